"""What every processor keeps, at 44.1, 48 and 96 kHz: exact nulls, tails that end, finite sound for any finite input,
whatever the settings within their ranges.
"""

from __future__ import annotations

import dataclasses
import math
import typing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from outboard.audio import processors
from outboard.audio.chain import Chain
from outboard.audio.processor_ranges import chain_violations, ranges_of
from outboard.audio.processors import CurveEqualizer, Plugin, Processor, ProcessorKind
from tests.processors import AT_ALL_RATES, KINDS, NEUTRAL, RATES, chain, compensated

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@AT_ALL_RATES
@pytest.mark.parametrize("name", NEUTRAL)
def test_what_does_nothing_changes_no_bit(name: str, rate: int) -> None:
    """Neutral settings null exactly, latency taken out."""
    sound = (0.3 * np.random.default_rng(5).standard_normal((2, 8_192))).astype(np.float32)
    assert np.array_equal(compensated(NEUTRAL[name], rate, sound), sound)


@pytest.mark.parametrize("name", KINDS)
def test_a_bypassed_slot_is_not_there(name: str) -> None:
    """No bit, no latency."""
    sound = (0.3 * np.random.default_rng(6).standard_normal((2, 4_096))).astype(np.float32)
    bypassed = Chain((Processor("p", KINDS[name], bypass=True),), RATES[1])
    assert bypassed.latency_frames == 0
    assert np.array_equal(bypassed.process(sound), sound)


@AT_ALL_RATES
@pytest.mark.parametrize("name", KINDS)
def test_tails_end_without_denormals(name: str, rate: int) -> None:
    """In the silence after a burst nothing subnormal ever comes out, and after 15 s at most nothing at all. Subnormal
    input gives no more than itself back.
    """
    made = chain(KINDS[name], rate)
    burst = (0.5 * np.random.default_rng(7).standard_normal((2, rate // 4))).astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    made.process(burst)
    silence = np.zeros((2, rate), np.float32)
    quiet_seconds = 0  # no echo here is later than three seconds
    for _ in range(15):
        out = made.process(silence)
        quiet_seconds = 0 if out.any() else quiet_seconds + 1
        if quiet_seconds == 3:
            break
        subnormal = (out != 0.0) & (np.abs(out) < tiny)
        assert not subnormal.any(), f"{np.count_nonzero(subnormal)} subnormal samples"
    assert not out.any(), f"{np.max(np.abs(out))} after 15 s"
    faint = np.full((2, rate // 4), 1e-41, np.float32)
    assert np.max(np.abs(chain(KINDS[name], rate).process(faint))) <= 1e-38


@AT_ALL_RATES
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sound=arrays.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 600)),
        elements=FINITE,
    )
)
def test_finite_stays_finite(name: str, rate: int, sound: np.ndarray) -> None:
    """Any finite input, at any rate, gives finite output."""
    made = chain(KINDS[name], rate)
    assert np.isfinite(made.process(sound)).all()
    assert np.isfinite(made.process(np.zeros((2, 2_000), np.float32))).all()


# --- any settings within their ranges ---------------------------------------------------------------------------------

NATIVE = [kind for kind in typing.get_args(ProcessorKind) if kind is not Plugin]


def _numbers(low: float, high: float) -> st.SearchStrategy[float]:
    """Both ends, and everything between them: evenly, and by octaves where the range has some."""
    evenly = st.sampled_from([low, high]) | st.floats(low, high)
    if low <= 0.0 or high < 10.0 * low:
        return evenly
    return evenly | st.floats(math.log(low), math.log(high)).map(lambda value: min(max(math.exp(value), low), high))


@st.composite
def _settings(draw: st.DrawFn, kind: type) -> typing.Any:
    """An instance of a dataclass of a chain, each number anywhere in its range."""
    values: dict[str, typing.Any] = {}
    limits, hints = ranges_of(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        inner = next((one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)), None)
        if field.name == "sidechain":
            continue
        if inner is not None:
            values[field.name] = tuple(draw(st.lists(_settings(inner), min_size=1, max_size=3)))
        elif dataclasses.is_dataclass(hint):
            values[field.name] = draw(_settings(hint))  # type: ignore[arg-type]
        elif typing.get_origin(hint) is typing.Literal:
            values[field.name] = draw(st.sampled_from(typing.get_args(hint)))
        elif hint is bool:
            values[field.name] = draw(st.booleans())
        elif hint is int:
            values[field.name] = draw(st.integers(*map(int, limits[field.name])))
        else:
            values[field.name] = draw(_numbers(*limits[field.name]))
    try:
        return kind(**_mended(kind, values))
    except ValueError:  # numbers that contradict each other are refused where they are set
        return draw(st.nothing())


def _mended(kind: type, values: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """What no single range says: points and edges rise, taps are odd."""
    if issubclass(kind, CurveEqualizer):
        points = sorted(values["points"], key=lambda point: point.frequency_hertz)
        rising = tuple(dataclasses.replace(p, frequency_hertz=20.0 * 3.0**k) for k, p in enumerate(points))
        return {"points": rising, "taps": min(values["taps"], 8_191) | 1}
    if kind is processors.MultibandCompressor:
        edges = sorted(min(band.high_hertz, 95_000.0) for band in values["bands"])
        rising = [dataclasses.replace(b, high_hertz=edges[k] + k + 1.0) for k, b in enumerate(values["bands"])]
        return {"bands": (*rising, dataclasses.replace(rising[-1], high_hertz=0.0))}
    return values


@pytest.mark.parametrize("kind", NATIVE, ids=lambda kind: kind.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), rate=st.sampled_from(RATES), scale=st.sampled_from([1e-20, 0.3, 3e38]))
def test_any_settings_within_their_ranges_stay_finite(kind: type, data: st.DataObject, rate: int, scale: float) -> None:
    """Noise at any level, then silence: nothing blows up."""
    made = data.draw(_settings(kind))
    assert list(chain_violations((Processor("p", made),), "chain", rate)) == []
    working = chain(made, rate)
    noise = (scale * np.random.default_rng(1).uniform(-1.0, 1.0, (2, 3_000))).astype(np.float32)
    for block in (noise, np.zeros((2, 6_000), np.float32)):
        assert np.isfinite(working.process(block)).all()
