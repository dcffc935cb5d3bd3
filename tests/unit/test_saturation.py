"""The saturator: aliasing, harmonics by theory, slope at the origin, bands, blocks, and finite for anything finite."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outboard.audio.saturation import LATENCY_FRAMES, SaturationCurve, Saturator, SaturatorSettings, shape

Array = NDArray[np.float32]
CURVES: tuple[SaturationCurve, ...] = ("tanh", "tape", "tube", "clip")


def saturated(audio: Array, settings: SaturatorSettings, rate: int) -> Array:
    """All of it through the saturator, latency taken out."""
    padded = np.concatenate([audio, np.zeros((audio.shape[0], LATENCY_FRAMES), np.float32)], axis=1)
    return Saturator(settings, rate, audio.shape[0]).process(padded)[:, LATENCY_FRAMES:]


def sine(hertz: float, rate: int, seconds: float = 1.0) -> Array:
    time = np.arange(round(rate * seconds)) / rate
    return np.tile(np.sin(2 * np.pi * hertz * time), (2, 1)).astype(np.float32)


def spectrum_db(audio: Array) -> NDArray[np.float64]:
    """Relative to the largest line."""
    lines = np.abs(np.fft.rfft(audio[0].astype(np.float64) * np.blackman(audio.shape[1])))
    levels: NDArray[np.float64] = 20 * np.log10(lines / lines.max() + 1e-12)
    return levels


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_nothing_folds_back(curve: SaturationCurve, rate: int) -> None:
    """5 kHz at full scale, 6 dB into the curve: whatever is no harmonic lies at least 80 dB below the fundamental."""
    out = saturated(sine(5_000.0, rate, 1.5), SaturatorSettings(curve, 6.0), rate)[:, rate // 4 : rate // 4 + rate]
    levels = spectrum_db(out)
    for harmonic in range(0, rate // 2, 5_000):
        levels[max(0, harmonic - 20) : harmonic + 20] = -240.0
    assert levels.max() <= -80.0, f"{curve} at {rate} Hz: {levels.max():.1f} dB"


@pytest.mark.parametrize("curve", CURVES)
def test_harmonics_are_those_of_the_curve(curve: SaturationCurve) -> None:
    """The first five harmonics of a 1 kHz sine are the Fourier coefficients of the bent period, to 0.05 dB."""
    rate = 48_000
    drive_db = 4.0
    out = saturated(sine(1_000.0, rate, 1.5), SaturatorSettings(curve, drive_db), rate)[:, 12_000:60_000]
    measured = np.abs(np.fft.rfft(out[0].astype(np.float64))) / 24_000
    phase = 2 * np.pi * np.arange(4_096) / 4_096
    period = shape(np.sin(phase).astype(np.float32), curve, 10 ** (drive_db / 20)).astype(np.float64)
    expected = np.abs(np.fft.rfft(period)) / 2_048
    for k in range(1, 6):
        if expected[k] > 1e-4:
            off_db = 20 * math.log10(measured[1_000 * k] / expected[k])
            assert abs(off_db) <= 0.05, f"{curve}, harmonic {k}: {off_db:.3f} dB off"


def test_only_the_tube_makes_even_harmonics() -> None:
    """Symmetric curves make odd harmonics only; the tube's second one is plain to see and leaves no DC behind."""
    rate = 48_000
    for curve in CURVES:
        out = saturated(sine(1_000.0, rate, 3.0), SaturatorSettings(curve, 4.0), rate)[:, 2 * rate :]
        second = spectrum_db(out)[2_000]
        if curve == "tube":
            assert second > -40.0, f"{second:.1f} dB"
            assert abs(float(out.mean())) < 1e-4
        else:
            assert second < -100.0, f"{curve}: {second:.1f} dB"


@pytest.mark.parametrize("curve", CURVES)
def test_quiet_sound_passes(curve: SaturationCurve) -> None:
    """Every curve has slope 1 at the origin: at -60 dBFS the gain is within 0.01 dB of 0 dB."""
    quiet = (sine(1_000.0, 48_000) * np.float32(1e-3)).astype(np.float32)
    out = saturated(quiet, SaturatorSettings(curve, 0.0), 48_000)[:, 4_800:-4_800]
    gain_db = 20 * math.log10(float(out.std()) / float(quiet[:, 4_800:-4_800].std()))
    assert abs(gain_db) <= 0.01, f"{gain_db:.4f} dB"


def test_clipping_ends_at_one() -> None:
    """The soft clipper is a wire up to 0.7, never falls, and is 1 from 1.3 on."""
    values = np.linspace(-3, 3, 6_001, dtype=np.float32)
    bent = shape(values, "clip", 1.0)
    assert np.array_equal(bent[np.abs(values) < 0.7], values[np.abs(values) < 0.7])
    assert np.all(np.diff(bent) >= -1e-6)
    assert np.allclose(np.abs(bent[np.abs(values) >= 1.3]), 1.0, atol=1e-6)


def test_a_band_leaves_the_bass_alone() -> None:
    """Above 500 Hz only: a 50 Hz sine at full scale keeps at least 60 dB from its harmonics, a 2 kHz one does not."""
    settings = SaturatorSettings("tanh", 6.0, low_hertz=500.0)
    bass = spectrum_db(saturated(sine(50.0, 48_000, 1.5), settings, 48_000)[:, 12_000:60_000])
    high = spectrum_db(saturated(sine(2_000.0, 48_000, 1.5), settings, 48_000)[:, 12_000:60_000])
    assert bass[150] < -60.0, f"{bass[150]:.1f} dB"
    assert high[6_000] > -30.0, f"{high[6_000]:.1f} dB"


def test_a_mix_of_nothing_is_exact() -> None:
    """With mix 0 no bit changes and nothing is late."""
    audio = np.random.default_rng(1).standard_normal((2, 5_000)).astype(np.float32)
    at_work = Saturator(SaturatorSettings("tanh", 12.0, mix=0.0), 48_000, 2)
    assert at_work.latency_frames == 0
    assert np.array_equal(at_work.process(audio), audio)


def test_any_cut_gives_the_same_samples() -> None:
    """Blocks of one frame and of all of them lead to the same output, bit for bit."""
    audio = (0.3 * np.random.default_rng(2).standard_normal((2, 40_000))).astype(np.float32)
    wanted = Saturator(SaturatorSettings("tape", 9.0), 48_000, 2).process(audio)
    pieces = Saturator(SaturatorSettings("tape", 9.0), 48_000, 2)
    cut = [pieces.process(piece) for piece in np.split(audio, [1, 2, 3, 700, 9_000, 9_001, 30_000], axis=1)]
    assert np.array_equal(np.concatenate(cut, axis=1), wanted)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(CURVES), st.floats(-24.0, 48.0), st.sampled_from([1e-38, 1e-3, 1.0, 1e6, 3e38]), st.integers(0, 99)
)
def test_finite_stays_finite(curve: SaturationCurve, drive_db: float, scale: float, seed: int) -> None:
    """No finite input, however large or small, gives anything else than finite numbers."""
    audio = np.random.default_rng(seed).uniform(-1, 1, (2, 3_000)).astype(np.float32) * np.float32(scale)
    with np.errstate(over="ignore"):
        out = Saturator(SaturatorSettings(curve, drive_db), 48_000, 2).process(
            np.concatenate([audio, np.zeros((2, 6_000), np.float32)], axis=1)
        )
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"curve": "fuzz"},
        {"drive_db": 60.0},
        {"mix": 1.5},
        {"low_hertz": 0.0},
        {"low_hertz": 500.0, "high_hertz": 400.0},
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    """Numbers out of range are errors."""
    with pytest.raises(ValueError, match=r"curve|drive_db|mix|low_hertz|above 0"):
        SaturatorSettings(**wrong)  # type: ignore[arg-type]
