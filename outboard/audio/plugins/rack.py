"""The plugins of one render: which of them run, which have a stand-in, and what is told about it.

A render that a plugin breaks is begun again as a whole, since a plugin's state cannot be taken up in the middle of a
song: once with the plugin, and after a second fault with the stand-in. So every result is all plugin or all stand-in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np

from outboard.audio.filters import Audio
from outboard.audio.plugins.facts import (
    FAILED,
    MISSING,
    WRONG_LATENCY,
    PluginFacts,
    PluginFailed,
    parameter_faults,
)
from outboard.audio.plugins.host import BLOCK_FRAMES, Latency, PluginHost
from outboard.audio.plugins.process import PluginProcess
from outboard.audio.processors import Chorus, Delay, Plugin, Reverb
from outboard.audio.reporting import Warning
from outboard.errors import Violation

_MOST_FAULTS = 1
"""Faults after which a render is begun again with the plugin."""
_LATE_BY_DESIGN = (Chorus, Delay, Reverb)
"""What stands in for these is meant to come late: an impulse says nothing of its latency."""


class HostedPlugin:
    """A plugin at work on a stereo stream.

    It is given blocks of `BLOCK_FRAMES` counted from the first frame, whatever the blocks here are, so the sound does
    not depend on how a stream is cut; that costs a block of latency on top of its own.
    """

    def __init__(self, process: PluginProcess, latency_frames: int, block_seconds: float) -> None:
        self.latency_frames = latency_frames + BLOCK_FRAMES
        self._process = process
        self._seconds = block_seconds
        self._waiting: Audio = np.zeros((2, 0), np.float32)
        self._done: Audio = np.zeros((2, BLOCK_FRAMES), np.float32)

    def process(self, block: Audio) -> Audio:
        """As many frames as the block ``(2, frames)`` has, ``latency_frames`` late.

        Raises:
            PluginFailed: it crashed, hung, or gave back what is no sound.
        """
        frames = block.shape[1]
        waiting = np.concatenate([self._waiting, np.asarray(block, np.float32)], axis=1)
        whole = waiting.shape[1] // BLOCK_FRAMES * BLOCK_FRAMES
        self._waiting = waiting[:, whole:]
        if whole:
            given = np.ascontiguousarray(waiting[:, :whole])
            out = np.frombuffer(self._process.process(given.tobytes(), self._seconds), np.float32).reshape(2, -1)
            if not np.isfinite(out).all():
                raise self._process.fault(FAILED, "gave back numbers that are not finite")
            self._done = np.concatenate([self._done, out], axis=1)
        ready, self._done = self._done[:, :frames], self._done[:, frames:]
        return ready

    @property
    def process_id(self) -> int:
        """Of the plugin's process."""
        return self._process.process_id

    def close(self) -> None:
        """Ends the plugin."""
        self._process.close()


class PluginRack:
    """The plugins of one render, over all of its tries. Close when done.

    Args:
        host: the plugins of this machine; None: there are none.
    """

    def __init__(self, host: PluginHost | None) -> None:
        self._host = host
        self._faults: Counter[str] = Counter()
        self._facts: dict[str, PluginFacts] = {}
        self._latencies: dict[str, Latency] = {}
        self._bare: set[str] = set()
        self._running: list[HostedPlugin] = []

    def facts(self, name: str) -> PluginFacts:
        """What is known of a plugin, with the reason why it does not run in this render, if it does not."""
        if name not in self._facts:
            if self._host is None:
                found = PluginFacts(name, reason=MISSING, message=f"no plugin runs here, so neither does {name}")
            else:
                found = replace(self._host.find(name), name=name)
            self._facts[name] = found
        return self._facts[name]

    def used(self) -> tuple[PluginFacts, ...]:
        """Every plugin that was asked for, by name."""
        return tuple(self._facts[name] for name in sorted(self._facts))

    def process_ids(self) -> list[int]:
        """Of the plugins that run now."""
        return [hosted.process_id for hosted in self._running]

    def open(self, plugin: Plugin, sample_rate_hertz: int) -> HostedPlugin | None:
        """The plugin at work, or None where its stand-in has to do; ``facts`` tells why.

        Raises:
            PluginFailed: it broke down: `failed` has to be told.
        """
        facts = self.facts(plugin.name)
        if plugin.stand_in is None:
            self._bare.add(plugin.name)
        if self._host is None or not facts.usable:
            return None
        process, latency = self._host.start(facts, sample_rate_hertz, plugin.parameters, plugin.choices)
        if plugin.stand_in is not None and isinstance(plugin.stand_in.kind, _LATE_BY_DESIGN):
            latency = latency._replace(true_frames=latency.reported_frames)
        if latency.true_frames != latency.reported_frames:
            self._latencies[plugin.name] = latency
        hosted = HostedPlugin(process, latency.true_frames, self._host.limits.block_seconds)
        self._running.append(hosted)
        return hosted

    def failed(self, error: PluginFailed) -> None:
        """Notes a fault: all plugins end, and the render is to be begun again."""
        self.close()
        self._faults[error.name] += 1
        if self._faults[error.name] <= _MOST_FAULTS:
            return
        if self._host is not None:
            self._host.broke(error)
        self._facts[error.name] = replace(self._facts[error.name], reason=error.reason, message=error.message)

    def check(self, name: str, numbers: Mapping[str, float], choices: Mapping[str, str], path: str) -> list[Violation]:
        """What is wrong with the parameters of a slot whose plugin is here; of one that is not, nothing can be said."""
        facts = self.facts(name)
        if not facts.usable:
            return []
        return [
            Violation(f"{path}.{'choices' if key in choices else 'parameters'}[{key}]", text)
            for key, text in parameter_faults(facts, numbers, choices)
        ]

    def warnings(self) -> tuple[Warning, ...]:
        """One for each plugin that was asked for and did not run, or that comes at another time than it says."""
        away = [
            Warning(facts.reason, f"{facts.message}: {self._instead(facts.name)} took its place")
            for facts in self.used()
            if not facts.usable
        ]
        late = [
            Warning(
                WRONG_LATENCY,
                f"{name} says that it is {reported} frames late, an impulse through it {true}: those are taken out",
            )
            for name, (reported, true) in sorted(self._latencies.items())
            if self._facts[name].usable
        ]
        return (*away, *late)

    def _instead(self, name: str) -> str:
        return "nothing" if name in self._bare else "its stand-in"

    def close(self) -> None:
        """Ends all plugins that run."""
        running, self._running = self._running, []
        for hosted in running:
            hosted.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
