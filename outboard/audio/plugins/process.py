"""A plugin's process as the parent sees it: started under limits, spoken to with a deadline, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outboard.audio.plugins.facts import CRASHED, FAILED, HUNG, UNSUITABLE, PluginFailed

START_SECONDS = 60.0
"""For an interpreter to come up on a machine that is busy; no plugin has a part in it."""

_SCRIPT = Path(__file__).with_name("plugin_child.py")
# Plugins look for licences and settings of their user; what else is in the environment is none of their business.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
_HEAD = struct.Struct("<II")
_EXIT_SECONDS = 2.0


class PluginProcess:
    """One child, which loads one plugin at most.

    Args:
        memory_bytes: limit of its address space, the interpreter's included (about 1 GiB of it, most of it never
            touched).
    """

    def __init__(self, memory_bytes: int) -> None:
        self._name = "the plugin host"
        self._link, theirs = socket.socketpair()
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                # -P and -s: nothing from the working folder or the user's site.
                [sys.executable, "-P", "-s", str(_SCRIPT), str(theirs.fileno()), str(memory_bytes)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(),),
            )
        self._ready = False
        self.told: dict[str, Any] = {}
        """What the loaded plugin says of itself."""

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether the child runs."""
        return self._process.poll() is None

    def load(self, name: str, seconds: float, order: Mapping[str, Any]) -> dict[str, Any]:
        """Loads a plugin and returns what it says of itself.

        Args:
            name: what messages call it.
            seconds: within which it has to be there.
            order: path, plugin_name, sample_rate_hertz, block_frames, numbers, choices.

        Raises:
            PluginFailed: PLUGIN_CRASHED, PLUGIN_HUNG, PLUGIN_UNSUITABLE or PLUGIN_FAILED.
        """
        self._wait_ready()
        self._name = name
        order = {"order": "load", "load_seconds": seconds, **order}
        self.told, _ = self._ask(order, b"", seconds, "while it was loaded")
        return self.told

    def parameters(self, seconds: float) -> list[dict[str, Any]]:
        """The loaded plugin's parameters.

        Raises:
            PluginFailed: as `load`.
        """
        text, _ = self._ask({"order": "describe"}, b"", seconds, "while it was asked for its parameters")
        found: list[dict[str, Any]] = text["parameters"]
        return found

    def impulse_response(self, frames: int, height: float, seconds: float) -> bytearray:
        """What the loaded plugin, as it is set, makes of an impulse in the first frame: float32 bytes, a channel after
        the other. Another instance of it hears the impulse.

        Raises:
            PluginFailed: as `load`.
        """
        order = {"order": "impulse", "frames": frames, "height": height}
        _, out = self._ask(order, b"", seconds, "while its latency was measured")
        if len(out) != frames * 4 * int(self.told["channels"]):
            raise self.fault(FAILED, f"gave {len(out)} bytes back for an impulse")
        return out

    def process(self, sound: bytes, seconds: float) -> bytearray:
        """Sends sound through the loaded plugin: float32 bytes, a channel after the other, as many back.

        Raises:
            PluginFailed: as `load`.
        """
        text, out = self._ask({"order": "process"}, sound, seconds, "at work")
        if len(out) != len(sound):
            raise self.fault(FAILED, f"gave {len(out)} bytes back for {len(sound)}: {text}")
        return out

    def close(self) -> None:
        """Ends the child."""
        self._process.kill()
        self._process.wait()
        self._link.close()

    def _wait_ready(self) -> None:
        if not self._ready:
            self._receive(time.monotonic() + START_SECONDS, START_SECONDS, "before it had a plugin")
            self._ready = True

    def _ask(
        self, order: Mapping[str, Any], sound: bytes, seconds: float, when: str
    ) -> tuple[dict[str, Any], bytearray]:
        deadline = time.monotonic() + seconds
        encoded = json.dumps({**order, "seconds": seconds}).encode()
        self._link.settimeout(seconds)
        try:
            self._link.sendall(_HEAD.pack(len(encoded), len(sound)) + encoded)
            if sound:
                self._link.sendall(sound)
        except TimeoutError:
            raise self._hung(seconds, when) from None
        except OSError:
            raise self._ended(when) from None
        text, out = self._receive(deadline, seconds, when)
        if "error" in text:
            kind = UNSUITABLE if text["error"] == "unsuitable" else FAILED
            raise self.fault(kind, f"cannot be used: {text['message']}")
        return text, out

    def _receive(self, deadline: float, seconds: float, when: str) -> tuple[dict[str, Any], bytearray]:
        lengths = _HEAD.unpack(self._read(_HEAD.size, deadline, seconds, when))
        text = json.loads(self._read(lengths[0], deadline, seconds, when))
        return text, self._read(lengths[1], deadline, seconds, when)

    def _read(self, size: int, deadline: float, seconds: float, when: str) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise self._hung(seconds, when)
            self._link.settimeout(rest)
            try:
                count = self._link.recv_into(view)
            except TimeoutError:
                raise self._hung(seconds, when) from None
            except OSError:
                count = 0
            if count == 0:
                raise self._ended(when)
            view = view[count:]
        return data

    def _hung(self, seconds: float, when: str) -> PluginFailed:
        return self.fault(HUNG, f"did not answer within {seconds:g} s {when}")

    def _ended(self, when: str) -> PluginFailed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS)
        status = self._process.poll()
        how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        return self.fault(CRASHED, f"ended its process {how} {when}")

    def fault(self, reason: str, what: str) -> PluginFailed:
        """An error about the loaded plugin, whose process is ended."""
        self._process.kill()
        return PluginFailed(self._name, f"{self._name} {what}", reason)
