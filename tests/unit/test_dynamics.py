"""The compressor against its static curve, its time constants, and the audio contract."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outboard.audio.dynamics import Compressor, CompressorSettings, GainComputer

RATE = 48_000
GENTLE = CompressorSettings(threshold_db=-20.0, ratio=3.0, knee_db=8.0, attack_ms=5.0, release_ms=50.0)


def curve_db(level: float, s: CompressorSettings) -> float:
    """Giannoulis et al. 2012, equation 4, as a gain."""
    over = level - s.threshold_db
    slope = 1 / s.ratio - 1
    if 2 * over < -s.knee_db:
        return 0.0
    if 2 * abs(over) <= s.knee_db and s.knee_db > 0:
        return slope * (over + s.knee_db / 2) ** 2 / (2 * s.knee_db)
    return slope * over


def sine(level_dbfs: float, seconds: float, hertz: float = 997.0) -> np.ndarray:
    """Stereo sine whose peak is at `level_dbfs`."""
    t = np.arange(int(seconds * RATE)) / RATE
    return np.tile(10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hertz * t), (2, 1)).astype(np.float32)


@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0, 10.0, 0.7])
@pytest.mark.parametrize("detector", ["peak", "rms"])
def test_static_curve_is_within_a_tenth_of_a_db(ratio: float, detector: str) -> None:
    """Settled on a sine, the gain is the curve's at the sine's peak (peak) or RMS (rms) level."""
    s = dataclasses.replace(
        GENTLE, ratio=ratio, detector=detector, hold_ms=10.0, attack_ms=5.0, release_ms=500.0, rms_ms=50.0
    )
    for level in (-40.0, -24.0, -20.0, -17.0, -12.0, -3.0, 0.0):
        x = sine(level, 1.0)
        y = Compressor(s, RATE, 2).process(x)
        tail = slice(-4_800, None)
        gain = 10 * np.log10(np.mean(y[:, tail].astype(float) ** 2) / np.mean(x[:, tail].astype(float) ** 2))
        wanted = curve_db(level if detector == "peak" else level - 3.0103, s)
        assert abs(gain - wanted) < 0.1, f"{detector} at {level} dBFS, {ratio}:1: {gain:.3f} dB, wanted {wanted:.3f} dB"


@pytest.mark.parametrize("attack_ms", [2.0, 10.0, 40.0])
@pytest.mark.parametrize("release_ms", [40.0, 200.0])
def test_time_constants_are_within_5_percent(attack_ms: float, release_ms: float) -> None:
    """A step up reaches 63 % of its gain after the attack time, a step down loses 63 % of it after the release time."""
    s = dataclasses.replace(GENTLE, detector="peak", knee_db=0.0, attack_ms=attack_ms, release_ms=release_ms)
    key = np.full((1, 2 * RATE), 10 ** (-30 / 20))
    key[:, RATE // 4 : RATE] = 10 ** (-6 / 20)
    gains = GainComputer(s, RATE).process(key)
    full = curve_db(-6.0, s)
    attack = 1000 * np.argmax(gains[RATE // 4 :] <= full * (1 - np.exp(-1))) / RATE
    release = 1000 * np.argmax(gains[RATE:] >= full * np.exp(-1)) / RATE
    assert abs(attack / attack_ms - 1) < 0.05, f"attack took {attack:.2f} ms instead of {attack_ms} ms"
    assert abs(release / release_ms - 1) < 0.05, f"release took {release:.2f} ms instead of {release_ms} ms"


@pytest.mark.parametrize("detector", ["peak", "rms"])
def test_any_cut_gives_the_same_samples(detector: str) -> None:
    """Detector, hold, ballistics and look-ahead carry their state: blocks of any size are bit-identical."""
    x = np.random.default_rng(3).standard_normal((2, 20_000)).astype(np.float32)
    s = dataclasses.replace(
        GENTLE, detector=detector, hold_ms=3.0, lookahead_ms=5.0, mix=0.7, sidechain_high_pass_hertz=100.0
    )
    whole = Compressor(s, RATE, 2)
    pieces = Compressor(s, RATE, 2)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 3, 500, 501, 8_192, 19_999], axis=1)], axis=1)
    assert np.array_equal(whole.process(x), cut)
    assert whole.average_gain_reduction_db == pieces.average_gain_reduction_db
    assert whole.max_gain_reduction_db == pieces.max_gain_reduction_db > 3.0


@pytest.mark.parametrize("change", [{"mix": 0.0}, {"ratio": 1.0}, {"threshold_db": 60.0}], ids=str)
def test_doing_nothing_is_exact(change: dict[str, float]) -> None:
    """A dry mix, a ratio of 1 and a threshold out of reach all null bit by bit."""
    x = np.random.default_rng(4).standard_normal((2, 5_000)).astype(np.float32)
    assert np.array_equal(Compressor(dataclasses.replace(GENTLE, **change), RATE, 2).process(x), x)


def test_look_ahead_delays_by_its_latency_and_nothing_else() -> None:
    """An impulse at frame n comes out at n + latency."""
    c = Compressor(dataclasses.replace(GENTLE, lookahead_ms=5.0), RATE, 2)
    x = np.zeros((2, 1_000), np.float32)
    x[:, 100] = 0.01
    assert c.latency_frames == 240
    assert int(np.argmax(c.process(x)[0])) == 340


def test_external_sidechain_drives_the_gain() -> None:
    """A quiet signal is turned down by a loud key; its own level does not matter."""
    x, key = sine(-40.0, 0.5), sine(-6.0, 0.5, 60.0)
    y = Compressor(dataclasses.replace(GENTLE, rms_ms=50.0, release_ms=500.0), RATE, 2).process(x, key)
    gain = 10 * np.log10(np.mean(y[:, -4_800:].astype(float) ** 2) / np.mean(x[:, -4_800:].astype(float) ** 2))
    assert abs(gain - curve_db(-9.01, GENTLE)) < 0.15, f"{gain:.2f} dB"
    with pytest.raises(ValueError, match="frames"):
        Compressor(GENTLE, RATE, 2).process(x, key[:, :-1])


def test_sidechain_high_pass_ignores_the_bass() -> None:
    """A bass note under the detector's high-pass moves nothing."""
    s = dataclasses.replace(GENTLE, sidechain_high_pass_hertz=800.0)
    c = Compressor(s, RATE, 2)
    c.process(sine(-6.0, 0.5, 50.0))
    assert abs(c.max_gain_reduction_db) < 0.01


def test_parallel_mix_is_a_blend() -> None:
    """Half a mix is the mean of dry and wet."""
    x = sine(-6.0, 0.2)
    wet = Compressor(GENTLE, RATE, 2).process(x)
    half = Compressor(dataclasses.replace(GENTLE, mix=0.5), RATE, 2).process(x)
    assert np.allclose(half, (x + wet) / 2, atol=1e-6)


def test_gain_returns_to_exactly_none() -> None:
    """In the release the gain becomes 0 dB exactly; no denormal lingers."""
    computer = GainComputer(GENTLE, RATE)
    computer.process(np.ones((1, 4_800)))
    gains = computer.process(np.zeros((1, 4 * RATE)))
    assert gains[-1] == 0.0
    assert not np.any((gains != 0) & (np.abs(gains) < 1e-12))


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.floats(0.5, 100.0),
    st.sampled_from(["peak", "rms"]),
)
def test_finite_stays_finite(x: np.ndarray, ratio: float, detector: str) -> None:
    """Any finite input gives finite output, whatever the ratio."""
    s = dataclasses.replace(GENTLE, ratio=ratio, detector=detector, makeup_db=24.0, attack_ms=0.0)
    assert np.all(np.isfinite(Compressor(s, RATE, 2).process(x)))


@pytest.mark.parametrize("change", [{"ratio": 0.1}, {"ratio": float("nan")}, {"mix": 1.5}, {"detector": "vu"}], ids=str)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    """What makes no sense is refused when it is set, not when it sounds."""
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(GENTLE, **change)
