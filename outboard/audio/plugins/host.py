"""What is installed, and processes in which it runs.

A plugin is found by the name of its bundle's file and by nothing else: a name never becomes a path. What a scan found
out holds while the binary does not change; that one crashed or hung holds for some minutes, so that a fault does not
cost every song its time limit and is not held against a plugin for ever.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from outboard.audio.plugins.facts import CRASHED, FAILED, HUNG, MISSING, PluginFacts, PluginFailed, PluginParameter
from outboard.audio.plugins.folders import STANDARD_FOLDERS, binary, bundles, digest, stamp
from outboard.audio.plugins.latency import IMPULSE, LONGEST_SECONDS, true_latency_frames
from outboard.audio.plugins.process import PluginProcess
from outboard.settings import PluginSettings

BLOCK_FRAMES = 512
"""Frames that a plugin is given at a time, whatever the blocks of its caller: some sound different in others."""

_SCAN_RATE_HERTZ = 48_000
_SCANS_AT_ONCE = 2
_GRUDGE_SECONDS = 600.0
_PASSING = (CRASHED, HUNG, FAILED)


@dataclass(frozen=True)
class PluginLimits:
    """How much a plugin may take.

    Attributes:
        load_seconds: within which it has to be loaded and to tell its parameters.
        block_seconds: within which it has to give a block back; a block is a third of a second.
        memory_bytes: limit of its process's address space.
        warm_processes: hosts that wait with their interpreter up, once the first plugin was asked for.
    """

    load_seconds: float = 10.0
    block_seconds: float = 10.0
    memory_bytes: int = 4 * 1024**3
    warm_processes: int = 1


class Latency(NamedTuple):
    """Of one plugin as it is set, in frames: what it says, and what an impulse through it shows."""

    reported_frames: int
    true_frames: int


def host_from(settings: PluginSettings) -> PluginHost:
    """The host that the environment asks for."""
    folders = [Path(folder).expanduser() for folder in settings.folders.split(os.pathsep) if folder]
    limits = PluginLimits(
        settings.load_seconds, settings.block_seconds, settings.maximum_bytes, settings.warm_processes
    )
    return PluginHost(folders or STANDARD_FOLDERS, limits)


class PluginHost:
    """The plugins of this machine; may be used by several threads.

    Args:
        folders: searched in this order; of two bundles of one name the first counts.
        limits: of every plugin.
    """

    def __init__(self, folders: Sequence[Path] = STANDARD_FOLDERS, limits: PluginLimits | None = None) -> None:
        self.folders = tuple(folders)
        self.limits = limits or PluginLimits()
        self._idle: list[PluginProcess] = []
        self._known: dict[Path, tuple[tuple[int, int], float, PluginFacts]] = {}
        self._locks: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> PluginFacts:
        """What is known of a plugin; it is loaded once to find out. One that is not there, or that cannot be used, has
        a ``reason``.
        """
        wanted = _plain(name)
        bundle = next((path for path in bundles(self.folders) if wanted and _plain(path.stem) == wanted), None)
        if bundle is None:
            return PluginFacts(name, reason=MISSING, message=f"{name} is not installed")
        return self._facts(bundle)

    def all(self) -> tuple[PluginFacts, ...]:
        """Everything in the folders, by name. Each is loaded once, which takes a while the first time."""
        found: dict[str, Path] = {}
        for path in bundles(self.folders):
            found.setdefault(_plain(path.stem), path)
        with ThreadPoolExecutor(_SCANS_AT_ONCE, thread_name_prefix="plugin-scan") as threads:
            return tuple(threads.map(self._facts, [found[name] for name in sorted(found)]))

    def start(
        self, facts: PluginFacts, sample_rate_hertz: int, numbers: Mapping[str, float], choices: Mapping[str, str]
    ) -> tuple[PluginProcess, Latency]:
        """A process of its own with the plugin loaded and set, and its latency. The caller closes it.

        Raises:
            PluginFailed: it cannot be used, or broke down.
        """
        if not facts.usable or facts.path is None:
            raise facts.failure()
        process = self._process()
        order = {
            "path": str(facts.path),
            "sample_rate_hertz": sample_rate_hertz,
            "block_frames": BLOCK_FRAMES,
            "numbers": dict(numbers),
            "choices": dict(choices),
        }
        try:
            process.load(facts.name, self.limits.load_seconds, order)
            return process, self._latency(process, sample_rate_hertz)
        except BaseException:
            process.close()
            raise

    def _latency(self, process: PluginProcess, sample_rate_hertz: int) -> Latency:
        """Of the loaded plugin: as it says, and as it is."""
        reported = int(process.told["latency_frames"])
        blocks = math.ceil((reported + 2.0 * LONGEST_SECONDS * sample_rate_hertz) / BLOCK_FRAMES)
        out = process.impulse_response(blocks * BLOCK_FRAMES, IMPULSE, self.limits.load_seconds)
        response = np.frombuffer(out, np.float32).reshape(-1, blocks * BLOCK_FRAMES)
        return Latency(reported, true_latency_frames(response, reported, sample_rate_hertz))

    def broke(self, error: PluginFailed) -> None:
        """Remembers that a plugin broke down at work: for some minutes it counts as unusable."""
        wanted = _plain(error.name)
        with self._lock:
            for path, (seen, _, facts) in list(self._known.items()):
                if _plain(path.stem) == wanted:
                    bad = replace(facts, reason=error.reason, message=error.message)
                    self._known[path] = (seen, time.monotonic() + _GRUDGE_SECONDS, bad)

    def waiting_process_ids(self) -> list[int]:
        """Of the processes that wait for a plugin."""
        with self._lock:
            return [process.process_id for process in self._idle]

    def close(self) -> None:
        """Ends the processes that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()

    def _process(self) -> PluginProcess:
        """One that waits, or a new one; another one begins to come up in its place."""
        with self._lock:
            ready = [process for process in self._idle if process.is_alive()]
            taken = ready.pop(0) if ready else PluginProcess(self.limits.memory_bytes)
            while len(ready) < self.limits.warm_processes:
                ready.append(PluginProcess(self.limits.memory_bytes))
            self._idle = ready
        return taken

    def _facts(self, bundle: Path) -> PluginFacts:
        with self._lock:
            lock = self._locks.setdefault(bundle, threading.Lock())
        with lock:
            try:
                file = binary(bundle)
                seen = stamp(file)
            except PluginFailed as error:
                return PluginFacts(error.name, path=bundle, reason=error.reason, message=error.message)
            known = self._known.get(bundle)
            if known and known[0] == seen and time.monotonic() < known[1]:
                return known[2]
            facts = self._scanned(bundle, file)
            until = time.monotonic() + _GRUDGE_SECONDS if facts.reason in _PASSING else float("inf")
            self._known[bundle] = (seen, until, facts)
            return facts

    def _scanned(self, bundle: Path, file: Path) -> PluginFacts:
        facts = PluginFacts(bundle.stem, path=bundle, digest=digest(file))
        try:
            process, latency = self.start(facts, _SCAN_RATE_HERTZ, {}, {})
        except PluginFailed as error:
            return replace(facts, reason=error.reason, message=error.message)
        try:
            return _with(facts, process.told, latency, process.parameters(self.limits.load_seconds))
        except PluginFailed as error:
            return replace(facts, reason=error.reason, message=error.message)
        finally:
            process.close()


def _with(
    facts: PluginFacts, told: Mapping[str, Any], latency: Latency, parameters: Sequence[Mapping[str, Any]]
) -> PluginFacts:
    return replace(
        facts,
        version=told["version"],
        manufacturer=told["manufacturer"],
        channels=told["channels"],
        latency_frames=latency.true_frames,
        reported_latency_frames=latency.reported_frames,
        parameters={
            entry["name"]: PluginParameter(**{**entry, "choices": tuple(entry.get("choices", ()))})
            for entry in parameters
        },
    )


def _plain(name: str) -> str:
    """A name without what people leave out or add: "TDR Nova" is "tdrnova"."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
