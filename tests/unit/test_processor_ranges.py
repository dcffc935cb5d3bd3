"""The ranges of a chain's numbers."""

from __future__ import annotations

import dataclasses
import math
import typing

import pytest

from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processor_ranges import chain_violations, ranges_of
from outboard.audio.processors import (
    Compressor,
    CurvePoint,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    LinearPhaseEqualizer,
    MultibandCompressor,
    Plugin,
    Processor,
    ProcessorKind,
    StereoWidth,
    TransientShaper,
)

RATE = 48_000


def nested(kind: type) -> set[type]:
    """A dataclass and those inside it; a stand-in is again one of the kinds."""
    found = {kind}
    for hint in typing.get_type_hints(kind).values():
        for inner in (hint, *typing.get_args(hint)):
            if dataclasses.is_dataclass(inner) and inner is not Processor:
                found |= nested(typing.cast(type, inner))
    return found


def fields_of(*kinds: ProcessorKind, keys: tuple[str, ...] = ()) -> list[str]:
    chain = tuple(Processor("p", kind) for kind in kinds)
    return [violation.field for violation in chain_violations(chain, "chain", RATE, keys)]


def test_every_number_of_every_processor_has_a_range() -> None:
    """A new number cannot reach a plan without somebody saying what it may be."""
    # A plugin's numbers have the ranges that it tells itself.
    native = [kind for kind in typing.get_args(ProcessorKind) if kind is not Plugin]
    for kind in set().union(*(nested(kind) for kind in native)):
        hints = typing.get_type_hints(kind)
        numbers = {name for name, hint in hints.items() if {int, float} & {hint, *typing.get_args(hint)}}
        assert numbers == set(ranges_of(kind)), kind.__name__


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (Equalizer((FilterBand("peak", 1_000.0, q=0.0),)), "equalizer.bands[0].q"),
        (Equalizer((FilterBand("peak", 1_000.0, math.nan),)), "equalizer.bands[0].gain_db"),
        (Equalizer((FilterBand("high_pass", 1_000.0, q=0.0, order=0),)), "equalizer.bands[0].order"),
        (Equalizer((FilterBand("comb", 1_000.0),)), "equalizer.bands[0].shape"),  # type: ignore[arg-type]
        (Equalizer((FilterBand("notch", 0.0, order=0),)), "equalizer.bands[0].frequency_hertz"),
        (Equalizer((FilterBand("peak", 1_000.0, order=0),) * 257), "equalizer.bands"),
        (Compressor(math.nan, 2.0), "compressor.threshold_db"),
        (Compressor(-20.0, math.inf), "compressor.ratio"),
        (Compressor(-20.0, 2.0, lookahead_ms=1e9), "compressor.lookahead_ms"),
        (Compressor(-20.0, 2.0, sidechain="kick"), "compressor.sidechain"),
        (DynamicEqualizer((DynamicBandSettings(300.0, 1.0, 2.0, -3.0, sidechain="x"),)),
         "dynamic_equalizer.bands[0].sidechain"),
        (LinearPhaseEqualizer(()), "linear_phase_equalizer.points"),
        (LinearPhaseEqualizer((CurvePoint(30_000.0),)), "linear_phase_equalizer.points"),
        (LinearPhaseEqualizer((CurvePoint(100.0),), 8_192), "linear_phase_equalizer.taps"),
        (MultibandCompressor((CompressorBand(0.0, CompressorSettings(-20.0, 2.0)),)), "multiband_compressor.bands"),
        (StereoWidth(mono_below_hertz=math.nan), "stereo_width.mono_below_hertz"),
        (TransientShaper(attack_ms=-1.0), "transient_shaper.attack_ms"),
        (TransientShaper(low_hertz=0.5), "transient_shaper.low_hertz"),
        (Plugin("../../etc/evil"), "plugin.name"),
        (Plugin("/usr/lib/vst3/Some.vst3"), "plugin.name"),
        (Plugin(".."), "plugin.name"),
        (Plugin("a\\b"), "plugin.name"),
        (Plugin("a\n"), "plugin.name"),
        (Plugin(""), "plugin.name"),
        (Plugin("x" * 101), "plugin.name"),
        (Plugin("Some", {"gain_db": math.nan}), "plugin.parameters[gain_db]"),
        (Plugin("Some", {str(index): 0.0 for index in range(257)}), "plugin.parameters"),
        (Plugin("Some", stand_in=Processor("p", Plugin("Other"))), "plugin.stand_in"),
        (Plugin("Some", stand_in=Processor("p", Compressor(math.nan, 2.0))),
         "plugin.stand_in.compressor.threshold_db"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_named(kind: ProcessorKind, field: str) -> None:
    """One violation, with the field's place in the contract."""
    assert fields_of(kind) == [f"chain[0].{field}"]


def test_everything_wrong_is_told_at_once() -> None:
    """Two processors, three fields, three violations; each with its value and range."""
    chain = (
        Processor("a", Equalizer((FilterBand("peak", 1_000.0, 99.0, 0.0),)), bypass=True),
        Processor("b", Compressor(-20.0, 2.0, attack_ms=-5.0)),
    )
    found = list(chain_violations(chain, "chain", RATE))
    assert [violation.description for violation in found] == [
        "gain_db is 99, must be -24 to 24",
        "q is 0, must be 0.1 to 20",
        "attack_ms is -5, must be 0 to 10000",
    ]


def test_a_known_sidechain_and_numbers_that_a_shape_does_not_use_are_no_fault() -> None:
    """On the wire a pass has a q of 0 and a peak an order of 0."""
    bands = (
        FilterBand("high_pass", 80.0, q=0.0),
        FilterBand("peak", 80.0, order=0),
        FilterBand("notch", 50.0, order=0),
    )
    assert fields_of(Equalizer(bands), Compressor(-20.0, 2.0, sidechain="kick"), keys=("kick",)) == []
