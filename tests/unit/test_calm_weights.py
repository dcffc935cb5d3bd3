"""Weights under which a steady tone is heard between strokes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.calm_weights import SHORT_FRAMES_PER_LOOK, calm_weights, calmed, short_spectra, short_window

LOOK = 32_768
SHORT = LOOK // SHORT_FRAMES_PER_LOOK


def strokes(seed: int, level: float) -> np.ndarray:
    """Bursts of noise, (2, LOOK): 40 ms every 150 ms at 48 kHz."""
    noise = np.random.default_rng(seed).standard_normal((2, LOOK))
    return np.where(np.arange(LOOK) % 7_200 < 1_920, level * noise, 1e-6 * noise).astype(np.float32)


def tone(bins: float, amplitude: float) -> np.ndarray:
    """(2, LOOK), so many periods to the look."""
    wave = amplitude * np.sin(2 * np.pi * bins * np.arange(LOOK) / LOOK + 1.0)
    return np.repeat(wave[None], 2, axis=0).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1_000), bins=st.floats(700.0, 13_000.0), level=st.sampled_from([0.0, 1e-3, 0.1, 1.0]))
def test_a_tone_is_read_at_its_level_whatever_strikes(seed: int, bins: float, level: float) -> None:
    """A tone of -60 dBFS under strokes of up to 0 dBFS is read to 0.5 dB, at any frequency."""
    window = short_window(LOOK)
    calm, gains = calmed(strokes(seed, level) + tone(bins, 1e-3), window)
    carrier = np.exp(-2j * np.pi * bins * np.arange(LOOK) / LOOK)
    gain = np.interp(bins / SHORT_FRAMES_PER_LOOK, np.arange(gains.size), gains)
    read = np.abs((calm * window) @ carrier) * 2.0 / np.sum(window) / gain
    error_db = 20 * np.log10(read / 1e-3)
    assert np.max(np.abs(error_db)) < 0.5, error_db


def test_what_is_steady_stays_as_it_is() -> None:
    """Where nothing changes, a look comes back as it was but for its level, bin by bin: the gains tell of it."""
    sine = tone(3_000.0, 0.5)
    calm, gains = calmed(sine, short_window(LOOK))
    middle = slice(SHORT, LOOK - SHORT)
    gain = gains[round(3_000.0 / SHORT_FRAMES_PER_LOOK)]
    assert 0.9 < gain <= 1.0
    error = np.sqrt(np.mean((calm[:, middle] / np.max(np.abs(calm[:, middle])) * 0.5 - sine[:, middle]) ** 2))
    assert error < 1e-3, error


def test_silence_counts_for_nothing() -> None:
    """Where nothing sounds no tone can be: its moments have no weight, and all of it gives finite numbers."""
    audio = tone(3_000.0, 0.1)
    audio[:, LOOK // 2 :] = 0.0
    weights = calm_weights(short_spectra(audio, SHORT, SHORT))
    assert np.all(weights[: SHORT_FRAMES_PER_LOOK // 2] > 0)
    assert np.all(weights[SHORT_FRAMES_PER_LOOK // 2 :] == 0)
    calm, gains = calmed(np.zeros((1, LOOK), np.float32), short_window(LOOK))
    assert not np.any(calm)
    assert np.all(np.isfinite(gains) & (gains > 0))


@pytest.mark.parametrize("gain", [2.0**-6, 2.0**6])
def test_gain_does_not_matter(gain: float) -> None:
    """Weights are relative: a look turned up or down by a power of two has the same gains."""
    audio = strokes(1, 0.1) + tone(2_000.3, 0.1)
    _, gains = calmed(audio, short_window(LOOK))
    _, changed = calmed(audio * np.float32(gain), short_window(LOOK))
    np.testing.assert_allclose(changed, gains, rtol=1e-6)
