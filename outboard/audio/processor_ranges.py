"""What the numbers of a chain may be: every one finite and within its range, before anything is rendered.

A plan may come from anywhere. Within these ranges every processor is stable, its memory is small and finite sound stays
finite; outside of them a filter may blow up, a delay may want gigabytes, or an edit says what nobody can have meant.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeAlias

from outboard.audio.multiband import check_bands
from outboard.audio.plugins.facts import choice_faults
from outboard.audio.processors import (
    CurveEqualizer,
    Equalizer,
    FilterBand,
    MultibandCompressor,
    Plugin,
    Processor,
    ProcessorKind,
    member_name,
)
from outboard.errors import Violation

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Lowest and highest value by field name."""

MOST_SLOTS = 32
"""Processors of one chain."""
MOST_ITEMS = 256
"""Bands or points of one processor."""

GAIN_DB = (-144.0, 24.0)
"""Of faders and sends: from silence for 24 bits to four doublings."""

_HERTZ = (1.0, 96_000.0)  # designs move what lies above Nyquist below it
_TIME_MS = (0.0, 10_000.0)
_LEVEL_DB = (-140.0, 24.0)
_SHARE = (0.0, 1.0)
# By class and field. A class without an entry of its own takes those of the classes it is made of.
_RANGES: dict[str, Ranges] = {
    "FilterBand": {"frequency_hertz": _HERTZ, "gain_db": (-24.0, 24.0), "q": (0.1, 20.0), "order": (1, 8)},
    "CurvePoint": {"frequency_hertz": _HERTZ, "gain_db": (-144.0, 24.0)},
    "CurveEqualizer": {"taps": (63, 65_535)},
    "DynamicBandSettings": {
        "frequency_hertz": _HERTZ, "q": (0.1, 20.0), "ratio": (1.0, 100.0), "range_db": (-24.0, 24.0),
        "threshold_db": _LEVEL_DB, "relative_threshold_db": _LEVEL_DB, "attack_ms": _TIME_MS, "release_ms": _TIME_MS,
        "lookahead_ms": (0.0, 100.0),
    },
    "CompressorSettings": {
        "threshold_db": _LEVEL_DB, "ratio": (0.5, 100.0), "knee_db": (0.0, 24.0), "attack_ms": _TIME_MS,
        "release_ms": _TIME_MS, "makeup_db": (-24.0, 24.0), "lookahead_ms": (0.0, 100.0), "mix": _SHARE,
        "sidechain_high_pass_hertz": _HERTZ, "sidechain_low_pass_hertz": _HERTZ, "rms_ms": _TIME_MS,
        "hold_ms": (0.0, 1_000.0), "range_db": (0.0, 60.0),
    },
    "CompressorBand": {"high_hertz": (0.0, 96_000.0)},
    "SaturatorSettings": {"drive_db": (-24.0, 48.0), "mix": _SHARE, "low_hertz": _HERTZ, "high_hertz": _HERTZ},
    "TransientSettings": {
        "attack_db": (-12.0, 12.0), "sustain_db": (-12.0, 12.0), "attack_ms": _TIME_MS, "sustain_ms": _TIME_MS,
        "low_hertz": (1.0, 20_000.0),
    },
    "WidthSettings": {"side_gain": (0.0, 1.4), "mono_below_hertz": (0.0, 1_000.0), "balance": (-1.0, 1.0)},
    "StereoFieldBand": {"low_hertz": _HERTZ, "high_hertz": _HERTZ, "side_gain": (0.0, 1.4), "recentre": (-1.0, 1.0)},
    "BandExtensionSettings": {
        "cutoff_hertz": (8_000.0, 96_000.0), "shift_hertz": (1_000.0, 96_000.0), "gain_db": (-60.0, 24.0),
        "slope_db_per_octave": (-96.0, 0.0),
    },
    "DeEsserSettings": {
        "frequency_hertz": _HERTZ, "threshold_db": (-60.0, 0.0), "ratio": (1.0, 100.0), "range_db": (-24.0, 0.0),
        "attack_ms": _TIME_MS, "release_ms": _TIME_MS, "lookahead_ms": (0.0, 100.0),
    },
    "ExpanderSettings": {
        "threshold_db": _LEVEL_DB, "ratio": (1.0, 100.0), "range_db": (-144.0, 0.0), "attack_ms": _TIME_MS,
        "hold_ms": _TIME_MS, "release_ms": _TIME_MS, "lookahead_ms": (0.0, 100.0),
    },
    "EchoSettings": {
        "time_ms": (1.0, 5_000.0), "feedback": (0.0, 0.95), "damping_hertz": _HERTZ, "low_cut_hertz": _HERTZ,
        "mix": _SHARE,
    },
    "ReverbSettings": {
        "decay_seconds": (0.1, 20.0), "predelay_ms": (0.0, 500.0), "damping_hertz": (1_000.0, 96_000.0),
        "low_cut_hertz": _HERTZ, "high_cut_hertz": _HERTZ, "width": _SHARE, "mix": _SHARE,
    },
    "UnmaskerSettings": {
        "range_db": (-24.0, 0.0), "begins_db": (-60.0, 60.0), "ends_db": (-60.0, 60.0), "threshold_db": _LEVEL_DB,
        "low_hertz": _HERTZ, "high_hertz": _HERTZ, "attack_ms": _TIME_MS, "release_ms": _TIME_MS,
    },
    "ChorusSettings": {"rate_hertz": (0.01, 10.0), "depth_ms": (0.0, 20.0), "mix": _SHARE},
}  # fmt: skip
_SHAPES_WITH_Q = ("peak", "low_shelf", "high_shelf", "notch")


def number_violation(path: str, value: float, low: float, high: float, unit: str = "") -> Iterator[Violation]:
    """A violation if ``value`` is not a number from ``low`` to ``high``; a NaN is none."""
    if not low <= value <= high:
        name = path.rpartition(".")[2]
        yield Violation(path, f"{name} is {value:g}, must be {low:g} to {high:g}{unit and f' {unit}'}")


def chain_violations(
    chain: Collection[Processor], path: str, sample_rate_hertz: int, keys: Collection[str] = ()
) -> Iterator[Violation]:
    """Everything that is wrong with a chain, one violation per field.

    Args:
        chain: the slots; bypassed ones are looked at as well, since an edit may put them back.
        path: of the chain, in the terms of the contract, for instance ``strips[0].chain``.
        sample_rate_hertz: at which it is rendered.
        keys: names that a sidechain may have.
    """
    if len(chain) > MOST_SLOTS:
        yield Violation(path, f"a chain has at most {MOST_SLOTS} processors, not {len(chain)}")
        return
    for index, processor in enumerate(chain):
        yield from _kind_violations(processor.kind, f"{path}[{index}]", sample_rate_hertz, keys)


def _kind_violations(
    kind: ProcessorKind, path: str, sample_rate_hertz: int, keys: Collection[str]
) -> Iterator[Violation]:
    where = f"{path}.{member_name(kind)}"
    if not isinstance(kind, Plugin):
        yield from number_violations(kind, where, ranges_of)
        yield from _sidechains(kind, where, keys)
        yield from _structure(kind, where, sample_rate_hertz)
        return
    yield from choice_faults(kind.name, kind.parameters, kind.choices, where)
    if kind.stand_in is not None and isinstance(kind.stand_in.kind, Plugin):
        yield Violation(f"{where}.stand_in", "a stand-in is a native processor, that is there where plugins are not")
    elif kind.stand_in is not None:
        yield from _kind_violations(kind.stand_in.kind, f"{where}.stand_in", sample_rate_hertz, keys)


def ranges_of(kind: type) -> Ranges:
    """Range by field name of a dataclass that belongs to a chain."""
    return {name: limits for base in reversed(kind.__mro__) for name, limits in _RANGES.get(base.__name__, {}).items()}


def number_violations(part: Any, path: str, ranges_for: Callable[[type], Ranges]) -> Iterator[Violation]:
    """Every number of a dataclass, and of those inside it, that is outside of its range.

    Args:
        part: an instance; None, text and switches in it are passed over.
        path: of it in the request.
        ranges_for: lowest and highest value by field name, for every class that holds numbers.
    """
    ranges = ranges_for(type(part))
    unused = _unused_numbers(part)
    for field in dataclasses.fields(part):
        value, where = getattr(part, field.name), f"{path}.{field.name}"
        if isinstance(value, tuple):
            if len(value) > MOST_ITEMS:
                yield Violation(where, f"there are {len(value)} {field.name}, must be at most {MOST_ITEMS}")
                continue
            for index, item in enumerate(value):
                yield from number_violations(item, f"{where}[{index}]", ranges_for)
        elif dataclasses.is_dataclass(value):
            yield from number_violations(value, where, ranges_for)
        elif isinstance(value, int | float) and not isinstance(value, bool) and field.name not in unused:
            yield from number_violation(where, value, *ranges[field.name])


def _unused_numbers(part: Any) -> tuple[str, ...]:
    """What a filter of that shape does not look at; on the wire such numbers are 0."""
    if not isinstance(part, FilterBand):
        return ()
    if part.shape not in _SHAPES_WITH_Q:
        return ("q", "gain_db")
    return ("order",) if part.shape != "notch" else ("order", "gain_db")


def _sidechains(part: Any, path: str, keys: Collection[str]) -> Iterator[Violation]:
    for name, where in _sidechain_names(part, path):
        if name not in keys:
            known = f"known are {', '.join(sorted(keys))}" if keys else "there is none here"
            yield Violation(where, f"nothing is called {name!r}: {known}")


def _sidechain_names(part: Any, path: str) -> Iterator[tuple[str, str]]:
    if getattr(part, "sidechain", ""):
        yield part.sidechain, f"{path}.sidechain"
    if not isinstance(part, MultibandCompressor):  # its bands refuse any
        for index, band in enumerate(getattr(part, "bands", ())):
            if getattr(band, "sidechain", ""):
                yield band.sidechain, f"{path}.bands[{index}].sidechain"


def _structure(kind: object, path: str, sample_rate_hertz: int) -> Iterator[Violation]:
    """What no single number tells."""
    if isinstance(kind, Equalizer):
        for index, band in enumerate(kind.bands):
            if band.shape not in (*_SHAPES_WITH_Q, "high_pass", "low_pass"):
                yield Violation(f"{path}.bands[{index}].shape", f"there is no filter of the shape {band.shape!r}")
    elif isinstance(kind, CurveEqualizer):
        yield from _curve(kind, path, sample_rate_hertz)
    elif isinstance(kind, MultibandCompressor):
        try:
            check_bands(kind.bands)
        except ValueError as error:
            yield Violation(f"{path}.bands", str(error))


def _curve(kind: CurveEqualizer, path: str, sample_rate_hertz: int) -> Iterator[Violation]:
    hertz = [point.frequency_hertz for point in kind.points]
    if not hertz or any(not high > low for low, high in itertools.pairwise(hertz)):
        yield Violation(f"{path}.points", "a curve needs points of rising frequency")
    elif not hertz[0] < 0.5 * sample_rate_hertz:
        yield Violation(f"{path}.points", f"no point lies below half of {sample_rate_hertz} Hz")
    if kind.taps % 2 == 0:
        yield Violation(f"{path}.taps", f"taps is {kind.taps}, must be odd")
