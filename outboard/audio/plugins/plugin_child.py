"""The process in which one plugin runs, started by `process.py` as a script: it knows nothing of Outboard.

    python plugin_child.py DESCRIPTOR MEMORY_BYTES

Orders come through the socket whose descriptor is given, each a head (length of the text, length of the sound), a JSON
text and float32 sound; answers go back in the same form. What the plugin writes to standard output and error goes
nowhere. An order that takes too long ends the process by the kernel's alarm, whether the parent is still there or not;
without orders it ends when the parent's end of the socket closes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import struct
import sys
from typing import Any

_HEAD = struct.Struct("<II")
_ALARM_MARGIN_SECONDS = 5.0


class Plugin:
    """One loaded plugin: an instance, or one for each channel where it is mono."""

    def __init__(self, order: dict[str, Any]) -> None:
        import numpy as np
        import pedalboard

        self._np = np
        self._rate = float(order["sample_rate_hertz"])
        self._block = int(order["block_frames"])
        self._path, self._name = order["path"], order.get("plugin_name")
        self._load: Any = pedalboard.VST3Plugin
        self._order = order
        self.instances = [self._instance(order)]
        self.channels = self._channels(self.instances[0])
        if self.channels == 1:
            self.instances.append(self._instance(order))
            self._hear_silence(self.instances[1], 1)

    def _instance(self, order: dict[str, Any]) -> Any:
        seconds = float(order["load_seconds"])
        plugin = self._load(self._path, plugin_name=self._name, initialization_timeout=seconds)
        for name, value in {**order.get("numbers", {}), **order.get("choices", {})}.items():
            parameter = plugin.parameters[name]
            setattr(plugin, name, bool(value) if parameter.type is bool else value)
        return plugin

    def _channels(self, plugin: Any) -> int:
        """2, or 1 for a plugin that only takes mono; after the silence it knows its latency at this rate."""
        if not plugin.is_effect:
            raise Unsuitable("it makes sound of its own: only effects have a place in a chain")
        for channels in (2, 1):
            try:
                self._hear_silence(plugin, channels)
            except ValueError:
                continue
            return channels
        raise Unsuitable("it takes neither stereo nor mono")

    def _hear_silence(self, plugin: Any, channels: int) -> None:
        silence = self._np.zeros((channels, self._block), self._np.float32)
        if plugin.process(silence, self._rate, buffer_size=self._block, reset=False).shape != silence.shape:
            raise Unsuitable("it keeps back sound")

    def facts(self) -> dict[str, Any]:
        """What it says of itself."""
        plugin = self.instances[0]
        return {
            "name": plugin.name,
            "version": plugin.version,
            "manufacturer": plugin.manufacturer_name,
            "channels": self.channels,
            "latency_frames": int(plugin.reported_latency_samples),
        }

    def parameters(self) -> list[dict[str, Any]]:
        """Its parameters in its own units."""
        plugin = self.instances[0]
        found = []
        for name, parameter in plugin.parameters.items():
            value = getattr(plugin, name)
            entry: dict[str, Any] = {"name": name, "unit": parameter.units or ""}
            if parameter.type is str:
                entry |= {"choices": [str(word) for word in parameter.valid_values], "value": str(value)}
            elif parameter.type is bool:
                entry |= {"low": 0.0, "high": 1.0, "value": float(value)}
            else:
                low, high, _ = parameter.range
                entry |= {"low": float(low), "high": float(high), "value": float(value)}
            found.append(entry)
        return found

    def impulse_response(self, frames: int, height: float) -> Any:
        """``(channels, frames)`` of an instance that is set like those at work, which hear nothing of it."""
        instance = self._instance(self._order)
        self._hear_silence(instance, self.channels)
        impulse = self._np.zeros((self.channels, frames), self._np.float32)
        impulse[:, 0] = height
        out = self._through(instance, impulse)
        if out.shape != impulse.shape:
            raise Unsuitable("it gave back less sound than it was given")
        return self._np.ascontiguousarray(out, self._np.float32)

    def process(self, sound: Any) -> Any:
        """A block ``(2, frames)`` of sound, as many frames back."""
        if self.channels == 2:
            out = self._through(self.instances[0], sound)
        else:
            pairs = zip(self.instances, sound, strict=True)
            out = self._np.concatenate([self._through(one, channel[None]) for one, channel in pairs])
        if out.shape != sound.shape:
            raise Unsuitable("it gave back less sound than it was given")
        return self._np.ascontiguousarray(out, self._np.float32)

    def _through(self, instance: Any, sound: Any) -> Any:
        return instance.process(sound, self._rate, buffer_size=self._block, reset=False)


class Unsuitable(Exception):
    """Nothing is broken, but a chain has no use for it."""


def _read(link: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = link.recv_into(view)
        if count == 0:
            os._exit(0)  # the parent is gone; a plugin's own exit code is not to be trusted with an orderly end
        view = view[count:]
    return data


def _answer(link: socket.socket, text: dict[str, Any], sound: bytes = b"") -> None:
    encoded = json.dumps(text).encode()
    link.sendall(_HEAD.pack(len(encoded), len(sound)) + encoded)
    if sound:
        link.sendall(sound)


def _obey(
    plugin: Plugin | None, order: dict[str, Any], sound: bytearray
) -> tuple[Plugin | None, dict[str, Any], bytes]:
    kind = order["order"]
    if kind == "load":
        plugin = Plugin(order)
        return plugin, plugin.facts(), b""
    assert plugin is not None
    if kind == "describe":
        return plugin, {"parameters": plugin.parameters()}, b""
    if kind == "impulse":
        return plugin, {}, plugin.impulse_response(int(order["frames"]), float(order["height"])).tobytes()
    import numpy as np

    out = plugin.process(np.frombuffer(sound, np.float32).reshape(2, -1))
    return plugin, {}, out.tobytes()


def main(descriptor: int, memory_bytes: int) -> None:
    """Obeys until the socket closes."""
    link = socket.socket(fileno=descriptor)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import pedalboard  # noqa: F401 - loaded now, so that a warm process has it

    _answer(link, {"ready": True})
    plugin: Plugin | None = None
    while True:
        lengths = _HEAD.unpack(_read(link, _HEAD.size))
        order, sound = json.loads(_read(link, lengths[0])), _read(link, lengths[1])
        signal.setitimer(signal.ITIMER_REAL, float(order["seconds"]) + _ALARM_MARGIN_SECONDS)
        try:
            plugin, text, out = _obey(plugin, order, sound)
        except Exception as error:
            kind = "unsuitable" if isinstance(error, Unsuitable) else "failed"
            text, out = {"error": kind, "message": str(error)[:500]}, b""
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _answer(link, text, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
