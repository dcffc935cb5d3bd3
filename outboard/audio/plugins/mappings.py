"""Native settings in the words of three well-known plugins, so that a preset need only name them.

Parameter names are those under which pedalboard shows them: RoughRider 3's stand in pedalboard's README; TDR Nova's are
those of its host parameters ("Frequency_1", "Band_1_DynActive" and so on, as programs that write its presets name
them); Valhalla Supermassive's are the plugin's own ("DelayWarp", "Density"). Units differ between versions of plugin
and host, so a name here has none and fits with any; times are milliseconds and frequencies hertz, turned into seconds
and kilohertz where the parameter has those, and a share is one of the parameter's highest value.

Nothing is forced: where the installed version has no such parameter, or one that does not go as far as asked, that is
told with the nearest names or the range (`Unmapped`), and the native processor keeps its slot.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.plugins.facts import PluginFacts, PluginParameter
from outboard.audio.processors import (
    Compressor,
    Delay,
    DynamicEqualizer,
    Equalizer,
    ProcessorKind,
    Reverb,
    member_name,
)


class Share(float):
    """A share, 0 to 1, of the highest value of a parameter, which may be 1 or 100."""


Value: TypeAlias = float | str | bool
Wanted: TypeAlias = dict[str, Value]
"""Values by name; ``a|b``: the same parameter in different versions."""

_UNIT = re.compile(r"_(db|hz|khz|ms|s|percent|x)$")
_THOUSANDS = ("khz", "s")
_NEAREST_NAMES = 3
_ALMOST = 1e-9  # what rounding may put outside of a range
_Band: TypeAlias = tuple[str, float, float, float, DynamicBandSettings | None]
_NOVA_BANDS = 4
_NOVA_SHAPES = {"peak": "Bell", "low_shelf": "Low Shelf", "high_shelf": "High Shelf"}


class Unmapped(Exception):
    """The plugin cannot do what the slot does, or the installed version has no such parameter."""


def mapped(facts: PluginFacts, kind: ProcessorKind) -> tuple[dict[str, float], dict[str, str]]:
    """Numbers and words that set a plugin to what a native processor does; none for a plugin without a mapping.

    Raises:
        Unmapped: with the reason.
    """
    mapping = _MAPPINGS.get("".join(letter for letter in facts.name.casefold() if letter.isalnum()))
    if mapping is None:
        return {}, {}
    numbers: dict[str, float] = {}
    choices: dict[str, str] = {}
    for name, value in mapping(kind).items():
        parameter = _parameter(facts, name)
        if parameter.choices:
            choices[parameter.name] = _choice(facts, parameter, value)
        elif isinstance(value, str):
            raise Unmapped(f"{parameter.name} of {_told_version(facts)} has no {value!r}")
        else:
            numbers[parameter.name] = _number(facts, parameter, value)
    return numbers, choices


def _parameter(facts: PluginFacts, names: str) -> PluginParameter:
    wanted = names.split("|")
    for parameter in facts.parameters.values():
        if parameter.name in wanted or _UNIT.sub("", parameter.name) in wanted:
            return parameter
    near = difflib.get_close_matches(wanted[0], list(facts.parameters), n=_NEAREST_NAMES, cutoff=0.4)
    hint = f"; the nearest are {', '.join(map(repr, near))}" if near else ""
    raise Unmapped(f"{_told_version(facts)} has no parameter {' or '.join(map(repr, wanted))}{hint}")


def _number(facts: PluginFacts, parameter: PluginParameter, value: float) -> float:
    """The value in the parameter's unit; one that it cannot take is told, since another would be another sound."""
    unit = _UNIT.search(parameter.name)
    if isinstance(value, Share):
        number = float(value) * parameter.high
    elif (unit.group(1) if unit else parameter.unit.strip().lower()) in _THOUSANDS:
        number = 1e-3 * float(value)
    else:
        number = float(value)
    slack = _ALMOST * (parameter.high - parameter.low)
    if not parameter.low - slack <= number <= parameter.high + slack:
        allowed = f"{parameter.low:g} to {parameter.high:g} {parameter.unit}".rstrip()
        raise Unmapped(f"{parameter.name} of {_told_version(facts)} would be {number:g}, must be {allowed}")
    return min(max(number, parameter.low), parameter.high)


def _told_version(facts: PluginFacts) -> str:
    return f"{facts.name} {facts.version}".rstrip()


def _choice(facts: PluginFacts, parameter: PluginParameter, value: Value) -> str:
    word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    for choice in parameter.choices:
        if choice.casefold() == word.casefold():
            return choice
    words = ", ".join(parameter.choices[:20])
    raise Unmapped(f"{parameter.name} of {_told_version(facts)} has no {word!r}: it is one of {words}")


def _rough_rider(kind: ProcessorKind) -> Wanted:
    """A compressor; its sensitivity is the threshold the other way round."""
    if not isinstance(kind, Compressor) or kind.ratio < 1.0 or kind.sidechain:
        raise Unmapped(f"RoughRider 3 is no {_told(kind)}")
    return {
        "sensitivity": -kind.threshold_db,
        "ratio": kind.ratio,
        "attack": kind.attack_ms,
        "release": kind.release_ms,
        "makeup": kind.makeup_db,
        "mix": Share(kind.mix),
        "full_bandwidth": True,
    }


def _nova(kind: ProcessorKind) -> Wanted:
    """Four bands, each static or dynamic."""
    if isinstance(kind, Equalizer):
        bands = kind.bands
        if any(band.shape not in _NOVA_SHAPES for band in bands):
            raise Unmapped("TDR Nova is set here to peaks and shelves only")
        settings: list[_Band] = [
            (_NOVA_SHAPES[band.shape], band.frequency_hertz, band.gain_db, band.q, None) for band in bands
        ]
    elif isinstance(kind, DynamicEqualizer):
        if any(band.relative_threshold_db is not None or band.sidechain or band.range_db > 0.0 for band in kind.bands):
            raise Unmapped("bands that follow the rest of the signal, or that lift, are not in TDR Nova")
        settings = [("Bell", band.frequency_hertz, 0.0, band.q, band) for band in kind.bands]
    else:
        raise Unmapped(f"TDR Nova is no {_told(kind)}")
    if len(settings) > _NOVA_BANDS:
        raise Unmapped(f"TDR Nova has {_NOVA_BANDS} bands, not {len(settings)}")
    wanted: Wanted = {}
    for number in range(1, _NOVA_BANDS + 1):
        used = number <= len(settings)
        wanted[f"band_{number}_active"] = used
        if not used:
            continue
        shape, hertz, gain, q, dynamic = settings[number - 1]
        wanted |= {
            f"band_{number}_type|type_{number}": shape,
            f"frequency_{number}": hertz,
            f"gain_{number}": gain,
            f"q_factor_{number}": q,
            f"band_{number}_dynactive": dynamic is not None,
        }
        if dynamic is not None:
            wanted |= {
                f"threshold_{number}": dynamic.threshold_db,
                f"ratio_{number}": dynamic.ratio,
                f"attack_{number}": dynamic.attack_ms,
                f"release_{number}": dynamic.release_ms,
            }
    return wanted


def _supermassive(kind: ProcessorKind) -> Wanted:
    """Delays in a ring. A tail falls by 60 dB in T seconds where each turn of d seconds keeps 10^(-3 d / T)."""
    if isinstance(kind, Delay):
        return {
            "mix": Share(kind.mix), "delay": kind.time_ms, "feedback": Share(kind.feedback), "density": 0.0,
            "delaywarp": 0.0, "highcut": kind.damping_hertz, "lowcut": kind.low_cut_hertz,
            "width": Share(kind.ping_pong),
        }  # fmt: skip
    if not isinstance(kind, Reverb):
        raise Unmapped(f"Valhalla Supermassive is no {_told(kind)}")
    turn_seconds = min(0.08, 0.1 * kind.decay_seconds)
    return {
        "mix": Share(kind.mix), "delay": 1e3 * turn_seconds, "density": Share(1.0), "delaywarp": Share(1.0),
        "feedback": Share(10.0 ** (-3.0 * turn_seconds / kind.decay_seconds)),
        "highcut": kind.damping_hertz, "lowcut": kind.low_cut_hertz, "width": Share(kind.width),
    }  # fmt: skip


def _told(kind: ProcessorKind) -> str:
    return member_name(kind).replace("_", " ")


_MAPPINGS: Mapping[str, Callable[[ProcessorKind], Wanted]] = {
    "roughrider3": _rough_rider,
    "tdrnova": _nova,
    "valhallasupermassive": _supermassive,
}
