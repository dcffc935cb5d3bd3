"""What the mixer does with plans from outside: each is refused field by field, or renders to finite sound."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    BandExtender,
    Compressor,
    CurvePoint,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    LinearPhaseEqualizer,
    MultibandCompressor,
    Processor,
    Saturator,
    StereoField,
    StereoWidth,
    TransientShaper,
)
from outboard.audio.stereo import StereoFieldBand
from outboard.errors import InvalidInput
from services.mixer.check import check_plan
from services.mixer.console import Bus, EnvelopePoint, MixPlan, Send, Strip
from services.mixer.mix import mix

RATE = 48_000
STEMS = ("a", "b")
PLAIN = MixPlan((Strip("a", "drums", bus="drums"), Strip("b", "bass")), buses=(Bus("drums"),))


def fields_of(plan: MixPlan) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        check_plan(plan, STEMS, RATE)
    assert caught.value.reason == "INVALID_ARGUMENT"
    return [violation.field for violation in caught.value.violations]


def with_strip(**numbers: Any) -> MixPlan:
    return dataclasses.replace(PLAIN, strips=(dataclasses.replace(PLAIN.strips[0], **numbers), PLAIN.strips[1]))


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (with_strip(pan=5.0), "plan.strips[0].pan"),
        (with_strip(gain_db=math.nan), "plan.strips[0].gain_db"),
        (with_strip(gain_db=4_000.0), "plan.strips[0].gain_db"),
        (with_strip(gain_db=-math.inf), "plan.strips[0].gain_db"),
        (with_strip(bus="none"), "plan.strips[0].bus"),
        (with_strip(sends=(Send("none", 0.0),)), "plan.strips[0].sends[0].bus"),
        (with_strip(sends=(Send("drums", 99.0),)), "plan.strips[0].sends[0].level_db"),
        (with_strip(sends=(Send("drums", 0.0), Send("drums", 0.0))), "plan.strips[0].sends"),
        (with_strip(envelope=(EnvelopePoint(0, math.nan),)), "plan.strips[0].envelope[0].gain_db"),
        (with_strip(envelope=(EnvelopePoint(9, 0.0), EnvelopePoint(3, 0.0))), "plan.strips[0].envelope"),
        (with_strip(envelope=(EnvelopePoint(-1, 0.0),)), "plan.strips[0].envelope"),
        (with_strip(stem="b"), "plan.strips"),
        (with_strip(chain=(Processor("p", Compressor(-20.0, 2.0, sidechain="kick")),)),
         "plan.strips[0].chain[0].compressor.sidechain"),
        (with_strip(chain=(Processor("p", StereoWidth()),) * 33), "plan.strips[0].chain"),
        (dataclasses.replace(PLAIN, buses=(Bus("drums"), Bus("drums"))), "plan.buses"),
        (dataclasses.replace(PLAIN, buses=(Bus("drums"), Bus("mix"))), "plan.buses[1].name"),
        (dataclasses.replace(PLAIN, buses=(Bus("drums", gain_db=99.0),)), "plan.buses[0].gain_db"),
        (dataclasses.replace(PLAIN, master_chain=(Processor("p", Equalizer((FilterBand("peak", 9.0, q=0.0),))),)),
         "plan.master_chain[0].equalizer.bands[0].q"),
        (dataclasses.replace(PLAIN, trim_db=math.nan), "plan.trim_db"),
        (dataclasses.replace(PLAIN, peak_target_dbfs=1.0), "plan.peak_target_dbfs"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused_by_its_field(plan: MixPlan, field: str) -> None:
    """INVALID_ARGUMENT with the one field that is wrong."""
    assert fields_of(plan) == [field]


def test_all_wrong_fields_are_told_with_value_and_range() -> None:
    """One answer for a plan with many faults."""
    plan = dataclasses.replace(with_strip(pan=5.0, gain_db=math.nan), trim_db=100.0)
    assert fields_of(plan) == ["plan.strips[0].gain_db", "plan.strips[0].pan", "plan.trim_db"]
    with pytest.raises(InvalidInput, match=r"gain_db is nan, must be -144 to 24 dB"):
        check_plan(plan, STEMS, RATE)


# Mostly what is allowed, sometimes what is at the edge, sometimes nonsense.
def number(low: float, high: float) -> st.SearchStrategy[float]:
    nonsense = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0, 4_000.0, 1e300])
    inside = st.floats(low, high) | st.sampled_from([low, high])
    return st.integers(0, 299).flatmap(lambda dice: nonsense if dice == 299 else inside)


GAIN, TIME, LEVEL, SHARE = number(-24, 24), number(0, 10_000), number(-140, 24), number(0, 1)
HERTZ = number(1, 96_000)
KEYS = st.sampled_from(["", "a", "b", "drums"] * 9 + ["nobody"])
FILTERS = st.builds(
    FilterBand,
    st.sampled_from(["peak", "low_shelf", "high_shelf", "high_pass", "low_pass", "notch"]),
    HERTZ, GAIN, number(0.1, 20), st.sampled_from([*range(1, 9)] * 9 + [-1, 0, 9]),
)  # fmt: skip
COMPRESSORS = {
    "threshold_db": LEVEL, "ratio": number(0.5, 100), "knee_db": number(0, 24), "attack_ms": TIME,
    "release_ms": TIME, "makeup_db": GAIN, "lookahead_ms": number(0, 100), "detector": st.sampled_from(["peak", "rms"]),
    "mix": SHARE, "sidechain_high_pass_hertz": st.none() | HERTZ, "sidechain_low_pass_hertz": st.none() | HERTZ,
    "rms_ms": TIME, "hold_ms": number(0, 1_000), "range_db": number(0, 60),
}  # fmt: skip
BANDS = st.builds(
    DynamicBandSettings,
    HERTZ, number(0.1, 20), number(1, 100), GAIN, LEVEL, st.none() | LEVEL, TIME, TIME, KEYS,
)  # fmt: skip
FRAMES = st.lists(st.integers(0, 5_000), max_size=3, unique=True).flatmap(
    lambda frames: st.sampled_from([sorted(frames)] * 9 + [frames])
)
FIELDS = st.builds(
    lambda low, width, gain, share: StereoFieldBand(low, low * width, gain, share),
    HERTZ, number(1.001, 100.0), number(0, 1.4), number(-1, 1),
)  # fmt: skip
EDGES = st.lists(HERTZ, min_size=1, max_size=4, unique_by=repr).map(sorted)


@st.composite
def multibands(draw: st.DrawFn) -> MultibandCompressor:
    edges = [*draw(EDGES), 0.0]
    return MultibandCompressor(
        tuple(CompressorBand(edge, draw(st.builds(Compressor, **COMPRESSORS))) for edge in edges)
    )


@st.composite
def curves(draw: st.DrawFn) -> LinearPhaseEqualizer:
    points = tuple(CurvePoint(hertz, draw(number(-144, 24))) for hertz in draw(EDGES))
    return LinearPhaseEqualizer(points, draw(st.integers(31, 1_023).map(lambda half: 2 * half + 1)))


KINDS: tuple[st.SearchStrategy[Any], ...] = (
    st.builds(Equalizer, st.lists(FILTERS, max_size=4).map(tuple)),
    curves(),
    st.builds(DynamicEqualizer, st.lists(BANDS, max_size=2).map(tuple)),
    st.builds(Compressor, sidechain=KEYS, **COMPRESSORS),
    multibands(),
    st.builds(Saturator, st.sampled_from(["tanh", "tape", "tube", "clip"]), number(-24, 48), SHARE, HERTZ),
    st.builds(TransientShaper, number(-12, 12), number(-12, 12), TIME, TIME),
    st.builds(StereoWidth, number(0, 1.4), number(0, 1_000), number(-1, 1)),
    st.builds(StereoField, st.lists(FIELDS, max_size=3).map(tuple)),
    st.builds(BandExtender, number(8_000, 96_000), number(1_000, 8_000), number(-60, 24), number(-96, 0)),
)  # fmt: skip


@st.composite
def chains(draw: st.DrawFn) -> tuple[Processor, ...]:
    found = []
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=3)):
        try:
            found.append(Processor("p", draw(kind)))
        except ValueError:
            continue  # a dataclass that refuses its own numbers has answered already
    return tuple(found)


@st.composite
def plans(draw: st.DrawFn) -> MixPlan:
    fader, buses = number(-144, 24), st.sampled_from(["", "drums", "fx"] * 9 + ["nobody"])
    strips = tuple(
        Strip(
            name, "other", draw(fader), draw(number(-1, 1)), draw(st.booleans()), draw(chains()),
            tuple(Send(name, draw(fader)) for name in draw(st.sampled_from([(), ("fx",), ("drums", "fx")]))),
            draw(buses),
            tuple(EnvelopePoint(frame, draw(fader)) for frame in draw(FRAMES)),
        )
        for name in STEMS
    )  # fmt: skip
    return MixPlan(
        strips,
        (Bus("drums", draw(fader), draw(chains())), Bus(draw(st.sampled_from(["fx"] * 20 + ["drums"])))),
        draw(chains()),
        draw(fader),
        peak_target_dbfs=draw(st.none() | number(-40, 0)),
    )


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(plan=plans(), loudest=st.sampled_from([0.0, 0.1, 1.0, 1e6, 3.4e38]))
def test_any_plan_is_refused_or_renders_finite_sound(plan: MixPlan, loudest: float, tmp_path: Path) -> None:
    """Whatever stands in a plan: INVALID_ARGUMENT, or as many finite frames as the stems have. Nothing in between."""
    noise = np.clip(np.random.default_rng(1).standard_normal((len(STEMS), 2, 3_000)), -1.0, 1.0).astype(np.float32)
    stems = {name: noise[index] * np.float32(loudest) for index, name in enumerate(STEMS)}
    refusal = None
    try:
        rendered = np.concatenate(list(mix(stems, RATE, plan, spool_directory=tmp_path)), axis=1)
    except InvalidInput as error:
        refusal = error
    event("refused" if refusal else "rendered")
    if refusal is not None:
        assert refusal.reason == "INVALID_ARGUMENT"
        assert all(violation.field.startswith("plan.") for violation in refusal.violations)
        return
    assert rendered.shape == (2, 3_000)
    assert np.all(np.isfinite(rendered)), f"{np.sum(~np.isfinite(rendered))} samples are not finite"
