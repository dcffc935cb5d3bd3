"""Missing crests: long smooth ones, runs that noise hides, and what may never change."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio import declip

RATE = 48_000


def drawn(clipped: np.ndarray) -> tuple[np.ndarray, int]:
    """A whole stem of (channels, frames) in one go."""
    levels = np.max(np.abs(clipped), axis=1).astype(np.float64)
    missing = -clipped.shape[1] % declip.CORE_FRAMES
    around = declip.LOOKAROUND_FRAMES
    padded = np.pad(clipped, ((0, 0), (around, around + missing)))
    output, changed = declip.declip(padded, levels)
    return output[:, : clipped.shape[1]], changed


def sdr_db(clean: np.ndarray, other: np.ndarray) -> float:
    error = np.sum((other.astype(np.float64) - clean) ** 2)
    return float(10 * np.log10(np.sum(clean.astype(np.float64) ** 2) / error))


def treble_db(audio: np.ndarray, low_hertz: float) -> float:
    """Mean power above a frequency, dB."""
    spectrum = np.fft.rfft(audio.astype(np.float64) * np.hanning(audio.shape[1]))
    high = np.fft.rfftfreq(audio.shape[1], 1.0 / RATE) >= low_hertz
    return float(10 * np.log10(np.mean(np.abs(spectrum[:, high]) ** 2)))


def kick() -> np.ndarray:
    """A falling sine of 150 to 45 Hz that dies away, twice a second."""
    time = np.arange(RATE // 2) / RATE
    phase = 2 * np.pi * (45.0 * time + 105.0 * 0.03 * (1.0 - np.exp(-time / 0.03)))
    stroke = np.sin(phase) * np.exp(-time / 0.12) * np.minimum(1.0, time / 0.002)
    return np.tile(0.8 * stroke, (1, 2)).astype(np.float32)


@pytest.mark.parametrize("by_db", [3.0, 6.0])
def test_the_long_crests_of_a_kick_rise_again(by_db: float) -> None:
    """Plateaus of many milliseconds come back as crests, 8 dB nearer, and most of the clipping's treble goes."""
    clean = kick()
    level = np.max(np.abs(clean)) * 10 ** (-by_db / 20)
    clipped = np.clip(clean, -level, level).astype(np.float32)
    output, _ = drawn(clipped)
    before, after = sdr_db(clean, clipped), sdr_db(clean, output)
    assert after >= before + 8.0, f"{before:.1f} -> {after:.1f} dB"
    treble = [treble_db(audio, 1_500.0) for audio in (clipped, output)]
    assert treble[1] <= treble[0] - 10.0, f"{treble[0]:.1f} -> {treble[1]:.1f} dB"


def test_runs_that_noise_hides_are_redrawn_too() -> None:
    """Of a low tone under noise every sample at the level is redrawn, and the tone comes nearer."""
    time = np.arange(RATE) / RATE
    noise = np.random.default_rng(4).standard_normal(RATE)
    clean = (0.7 * np.sin(2 * np.pi * 61.0 * time) + 0.02 * noise)[None].astype(np.float32)
    clipped = np.clip(clean, -0.45, 0.45).astype(np.float32)
    output, changed = drawn(clipped)
    at_level = int(np.sum(np.abs(clipped) == np.float32(0.45)))
    assert changed >= 0.97 * at_level, f"{changed} of {at_level}"
    before, after = sdr_db(clean, clipped), sdr_db(clean, output)
    assert after >= before + 4.0, f"{before:.1f} -> {after:.1f} dB"


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    smoothing=st.integers(1, 200),
    share=st.floats(0.2, 0.95),
    channels=st.integers(1, 2),
)
def test_only_clipped_samples_change_and_only_outwards(seed: int, smoothing: int, share: float, channels: int) -> None:
    """Whatever was clipped: finite, no unclipped sample moves, and no clipped one comes below the level."""
    noise = np.random.default_rng(seed).standard_normal((channels, 4 * declip.CORE_FRAMES))
    kernel = np.hanning(smoothing + 2)
    sound = np.stack([np.convolve(channel, kernel, "same") for channel in noise])
    level = share * np.max(np.abs(sound), axis=1, keepdims=True)
    clipped = np.clip(sound, -level, level).astype(np.float32)
    output, _ = drawn(clipped)
    assert np.all(np.isfinite(output))
    highest = np.max(np.abs(clipped), axis=1, keepdims=True)
    is_below = np.abs(clipped) < highest * (1.0 - 2.0 * declip.LEVEL_TOLERANCE)
    assert np.array_equal(output[is_below], clipped[is_below])
    assert np.all(np.abs(output) >= np.abs(clipped) * (1.0 - 2.0 * declip.LEVEL_TOLERANCE))
    assert np.all(np.abs(output) <= declip.HIGHEST_CREST * highest * 1.000001)
    assert np.all(output * clipped >= 0.0)
