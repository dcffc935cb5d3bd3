"""TPDF dither: distribution, whiteness, independence of the signal, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outboard.audio.dither import NoiseShapedDither, TpdfDither

STEP_16 = 1.0 / 32768.0


def test_the_error_has_the_variance_of_tpdf() -> None:
    """Total error of a dithered signal: mean 0, variance a quarter of a step squared (1/12 rounding, 2/12 dither)."""
    audio = np.full((2, 400_000), 0.3 * STEP_16, dtype=np.float32)
    error = (TpdfDither(16, 2, 1).process(audio).astype(np.float64) - audio) / STEP_16
    assert abs(error.mean()) <= 0.003, f"mean {error.mean():.4f} steps"
    assert error.var() == pytest.approx(0.25, abs=0.003)


def test_the_error_does_not_depend_on_the_signal() -> None:
    """A sine of a third of a step, gone without dither, survives; its third harmonic stays in the noise."""
    frames = 1 << 18
    phase = 2 * np.pi * 1000 * np.arange(frames) / frames
    audio = (0.33 * STEP_16 * np.sin(phase))[None, :].astype(np.float32)
    spectrum = np.abs(np.fft.rfft(TpdfDither(16, 1, 3).process(audio)[0])) * 2 / frames / STEP_16
    noise = float(np.median(spectrum))
    assert spectrum[1000] == pytest.approx(0.33, abs=0.02)
    assert spectrum[3000] <= 5 * noise, f"third harmonic {spectrum[3000]:.5f}, noise {noise:.5f} steps"


def test_noise_is_white_and_never_repeats() -> None:
    """Autocorrelation of the error is below 1 % at every lag up to a second, and channels are independent."""
    error = TpdfDither(16, 2, 9).process(np.zeros((2, 96_000), dtype=np.float32)).astype(np.float64)
    spectrum = np.fft.rfft(error, n=1 << 18, axis=1)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :48_000]
    lags = np.abs(correlation[:, 1:] / correlation[:, :1]).max()
    between = abs(float(np.corrcoef(error)[0, 1]))
    assert lags <= 0.025, f"autocorrelation {lags:.4f}"
    assert between <= 0.02, f"channels correlate by {between:.4f}"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 3000), st.sampled_from([16, 24]))
def test_any_cut_gives_the_same_bytes(frames: int, chunk: int, depth: int) -> None:
    """The noise belongs to the frame, not to the block."""
    audio = np.random.default_rng(frames).uniform(-1, 1, (2, frames)).astype(np.float32)
    whole = TpdfDither(depth, 2, 4).process(audio)
    stream = TpdfDither(depth, 2, 4)
    pieces = [stream.process(audio[:, at : at + chunk]) for at in range(0, frames, chunk)]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("depth", [16, 24])
def test_the_result_lies_on_the_formats_grid(depth: int) -> None:
    """Every sample is a whole number of steps within the format's range, exactly representable in float32."""
    audio = np.array([[-2.0, -1.0, -0.3, 0.0, 0.7, 1.0, 2.0]], dtype=np.float32)
    scale = float(1 << (depth - 1))
    steps = TpdfDither(depth, 1, 0).process(audio).astype(np.float64) * scale
    assert np.array_equal(steps, np.rint(steps))
    assert steps.min() >= -scale
    assert steps.max() <= scale - 1


def test_other_depths_are_refused() -> None:
    """Floats need no dither."""
    with pytest.raises(ValueError, match="16 or 24"):
        TpdfDither(32, 1, 0)


def test_noise_shaping_moves_noise_out_of_the_ears_way() -> None:
    """At 44.1 kHz the noise of 16 bits lies at least 8 dB under plain dither at 2 to 5 kHz, and more lies on top."""
    quiet = np.zeros((1, 1 << 17), np.float32)
    plain = TpdfDither(16, 1, 3).process(quiet)[0].astype(np.float64)
    shaped = NoiseShapedDither(16, 1, 3, 44_100).process(quiet)[0].astype(np.float64)

    def level_db(noise: NDArray[np.float64], low_hertz: float, high_hertz: float) -> float:
        power = np.abs(np.fft.rfft(noise)) ** 2
        hertz = np.fft.rfftfreq(noise.size, 1 / 44_100)
        return 10 * float(np.log10(power[(hertz >= low_hertz) & (hertz < high_hertz)].mean()))

    better = level_db(plain, 2_000, 5_000) - level_db(shaped, 2_000, 5_000)
    assert better >= 8.0, f"{better:.1f} dB less"
    assert level_db(shaped, 18_000, 22_000) > level_db(plain, 18_000, 22_000)


@pytest.mark.parametrize("rate", [44_100, 96_000])
def test_shaped_noise_leaves_the_signal_and_repeats(rate: int) -> None:
    """The mean error is nothing, the same seed gives the same samples in any cut, and full scale stays."""
    tone = (0.5 * np.sin(np.arange(60_000) * 0.05)).astype(np.float32)[None, :]
    whole = NoiseShapedDither(16, 1, 1, rate).process(tone)
    pieces = NoiseShapedDither(16, 1, 1, rate)
    cut = np.concatenate([pieces.process(piece) for piece in np.split(tone, [1, 5_000, 5_001], axis=1)], axis=1)
    assert np.array_equal(whole, cut)
    assert abs(float((whole - tone).mean())) < 0.05 / 32_768
    loud = NoiseShapedDither(16, 1, 1, rate).process(np.ones((1, 10_000), np.float32))
    assert loud.max() == 1 - 1 / 32_768
    assert np.all(loud > 0.9)
