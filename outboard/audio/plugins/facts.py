"""What is known of a plugin, and how its parameters are checked before any sound is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outboard.errors import FailedPrecondition, Violation

MOST_PARAMETERS = 256
"""Parameters that one slot sets."""
_LONGEST_NAME = 100
MISSING = "PLUGIN_MISSING"
WRONG_MACHINE = "PLUGIN_WRONG_MACHINE"
CRASHED = "PLUGIN_CRASHED"
HUNG = "PLUGIN_HUNG"
UNSUITABLE = "PLUGIN_UNSUITABLE"
FAILED = "PLUGIN_FAILED"
WRONG_LATENCY = "PLUGIN_LATENCY"
"""Code of the warning that a plugin comes later or earlier than it says."""
REASONS = (MISSING, WRONG_MACHINE, CRASHED, HUNG, UNSUITABLE, FAILED)
"""Why a plugin does not run: each is an error reason, and the code of the warning where its stand-in runs."""


class PluginFailed(FailedPrecondition):
    """A plugin cannot be used, or broke down at work; ``reason`` is one of `REASONS`, ``metadata`` names the plugin."""

    default_reason = FAILED

    def __init__(self, name: str, message: str, reason: str = FAILED) -> None:
        super().__init__(message, reason=reason, metadata={"plugin": name})
        self.name = name

    def __reduce__(self) -> tuple[object, ...]:
        return PluginFailed, (self.name, self.message, self.reason)


@dataclass(frozen=True)
class PluginParameter:
    """One parameter, in the plugin's own units.

    Attributes:
        name: as presets name it: lower case, words joined by ``_``, the unit at the end (``threshold_db``).
        low, high: range of a number, both ends included; 0 and 1 for a switch.
        choices: the words of a parameter that is no number; none otherwise.
        unit: as the plugin tells it.
        value: what it is when the plugin is loaded: a number, or one of the choices.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()
    unit: str = ""
    value: float | str = 0.0


@dataclass(frozen=True)
class PluginFacts:
    """What a scan found.

    Attributes:
        name: as the plugin calls itself; of one that does not load, the name of its file.
        version, manufacturer: as it tells them.
        path: of its bundle; None where nothing of the name is installed.
        digest: SHA-256 of its binary in hexadecimal.
        channels: 2; 1 for a mono plugin, which runs as one instance per channel.
        latency_frames: as it was measured at 48 kHz before any parameter is set.
        reported_latency_frames: as it says.
        parameters: all of them, by name.
        reason: why it cannot be used, one of `REASONS`; empty where it can.
        message: the same for a person.
    """

    name: str
    version: str = ""
    manufacturer: str = ""
    path: Path | None = None
    digest: str = ""
    channels: int = 2
    latency_frames: int = 0
    reported_latency_frames: int = 0
    parameters: Mapping[str, PluginParameter] = field(default_factory=dict)
    reason: str = ""
    message: str = ""

    @property
    def usable(self) -> bool:
        """Whether a slot may run it."""
        return not self.reason

    def failure(self) -> PluginFailed:
        """Why it cannot be used, as an error."""
        return PluginFailed(self.name, self.message, self.reason)


@dataclass(frozen=True)
class PluginChoice:
    """A plugin for a slot as a preset names it: numbers and words by the names of its parameters."""

    name: str
    parameters: Mapping[str, float] = field(default_factory=dict, hash=False)
    choices: Mapping[str, str] = field(default_factory=dict, hash=False)


def choice_faults(
    name: str, parameters: Mapping[str, float], choices: Mapping[str, str], path: str
) -> Iterator[Violation]:
    """What is wrong with a plugin's slot whatever is installed: a name that is a path, a number that is none."""
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or set(name) & set("/\\") or name[0] == ".":
        text = "a plugin is called like its file in the plugin folders, without folder and .vst3; a path is no name"
        yield Violation(f"{path}.name", text)
    if len(parameters) + len(choices) > MOST_PARAMETERS:
        yield Violation(f"{path}.parameters", f"a slot sets at most {MOST_PARAMETERS} parameters of its plugin")
        return
    for key, value in sorted(parameters.items()):
        if not math.isfinite(value):
            yield Violation(f"{path}.parameters[{key}]", f"{key} is {value}, must be a finite number")


def parameter_faults(
    facts: PluginFacts, numbers: Mapping[str, float], choices: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """What is wrong with the parameters that a slot sets: (name of the parameter, what is wrong with it).

    Args:
        facts: of a usable plugin; of one that is not here nothing can be said.
        numbers, choices: values by name.
    """
    for name in sorted({*numbers, *choices}):
        known = facts.parameters.get(name)
        if known is None:
            yield name, f"{facts.name} has no parameter {name!r}{_nearest(name, facts.parameters)}"
        elif name in choices and known.choices:
            if choices[name] not in known.choices:
                near = _nearest(choices[name], known.choices) or f": it is one of {', '.join(known.choices[:20])}"
                yield name, f"{name} of {facts.name} cannot be {choices[name]!r}{near}"
        elif name in choices:
            yield name, f"{name} of {facts.name} is a number from {known.low:g} to {known.high:g}{_unit(known)}"
        elif known.choices:
            yield name, f"{name} of {facts.name} is one of {', '.join(known.choices[:20])}, not a number"
        elif not known.low <= numbers[name] <= known.high:  # a NaN is not in range either
            what = f"{name} of {facts.name} is {numbers[name]:g}"
            yield name, f"{what}, must be {known.low:g} to {known.high:g}{_unit(known)}"


def _unit(parameter: PluginParameter) -> str:
    return f" {parameter.unit}" if parameter.unit.strip() else ""


def _nearest(word: str, words: Mapping[str, object] | tuple[str, ...]) -> str:
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.4)
    return f"; did you mean {found[0]!r}?" if found else ""
