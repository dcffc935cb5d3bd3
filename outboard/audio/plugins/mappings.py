"""Native settings in the words of three well-known plugins, so that a preset need only name them.

Parameter names are those under which pedalboard shows them: RoughRider 3's stand in pedalboard's README, Valhalla
Supermassive's are the plugin's own; TDR Nova's are those of its host parameters ("Frequency 1" and so on). Units at the
end of a name differ between versions of plugin and host, so a name here has none and fits with any. Every number is
held to the range that the installed plugin tells. What an installed version does not have, or what the plugin cannot
do, is told (`Unmapped`), and the native processor keeps its slot.
"""

from __future__ import annotations

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

Value: TypeAlias = float | str | bool
Wanted: TypeAlias = dict[str, Value]

_UNIT = re.compile(r"_(db|hz|khz|ms|s|percent|x)$")
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
            raise Unmapped(f"{parameter.name} of {facts.name} {facts.version} has no {value!r}")
        else:
            numbers[parameter.name] = min(max(float(value), parameter.low), parameter.high)
    return numbers, choices


def _parameter(facts: PluginFacts, name: str) -> PluginParameter:
    for parameter in facts.parameters.values():
        if name in (parameter.name, _UNIT.sub("", parameter.name)):
            return parameter
    raise Unmapped(f"{facts.name} {facts.version} has no parameter {name!r}")


def _choice(facts: PluginFacts, parameter: PluginParameter, value: Value) -> str:
    word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
    for choice in parameter.choices:
        if choice.casefold() == word.casefold():
            return choice
    raise Unmapped(f"{parameter.name} of {facts.name} {facts.version} has no {word!r}")


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
        "mix": 100.0 * kind.mix,
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
            f"band_{number}_type": shape,
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
            "mix": 100.0 * kind.mix, "delay": kind.time_ms, "feedback": 100.0 * kind.feedback, "density": 0.0,
            "delaywarp": 0.0, "highcut": kind.damping_hertz, "lowcut": kind.low_cut_hertz,
            "width": 100.0 if kind.ping_pong else 0.0,
        }  # fmt: skip
    if not isinstance(kind, Reverb):
        raise Unmapped(f"Valhalla Supermassive is no {_told(kind)}")
    turn_seconds = min(0.08, 0.1 * kind.decay_seconds)
    return {
        "mix": 100.0 * kind.mix, "delay": 1e3 * turn_seconds, "density": 100.0, "delaywarp": 100.0,
        "feedback": 100.0 * 10.0 ** (-3.0 * turn_seconds / kind.decay_seconds),
        "highcut": kind.damping_hertz, "lowcut": kind.low_cut_hertz, "width": 100.0 * kind.width,
    }  # fmt: skip


def _told(kind: ProcessorKind) -> str:
    return member_name(kind).replace("_", " ")


_MAPPINGS: Mapping[str, Callable[[ProcessorKind], Wanted]] = {
    "roughrider3": _rough_rider,
    "tdrnova": _nova,
    "valhallasupermassive": _supermassive,
}
