"""What is taken from a voice: noise passes, and what exceeds the noise found does not."""

from __future__ import annotations

import numpy as np
import pytest

from services.restorer.noise import BandNoise, NoiseMeter
from services.restorer.noise_guard import NoiseGuard

RATE = 48_000
SIZE, AROUND = 65_536, 3_072  # of a guard at 48 kHz


def steady(level_db: float, seed: int, frames: int = SIZE + 2 * AROUND) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal((2, frames))
    return (10.0 ** (level_db / 20.0) * drawn).astype(np.float32)


def noise_of(audio: np.ndarray) -> BandNoise:
    meter = NoiseMeter(RATE)
    meter.add(audio)
    found = meter.bands()
    assert found is not None
    return found


def level_db(audio: np.ndarray) -> float:
    return float(10.0 * np.log10(np.mean(np.square(audio, dtype=np.float64))))


def middle(audio: np.ndarray) -> np.ndarray:
    return audio[:, AROUND : AROUND + SIZE]


def test_bands_of_steady_noise_add_up_to_it() -> None:
    """The power of white noise is found within 1.5 dB in all of it, and in every band within 2.5 dB."""
    found = noise_of(steady(-40.0, 1, 20 * RATE)[:1])
    total = 10.0 * np.log10(np.sum(found.power))
    assert abs(total + 40.0) <= 1.5, f"{total:.1f} dBFS"
    bins = np.diff(np.append(found.starts, 513))
    errors = 10.0 * np.log10(found.power / (1e-4 * bins / 512.0))
    assert np.max(np.abs(errors)) <= 2.5, np.round(errors, 1)


def test_noise_that_was_found_may_be_taken() -> None:
    """Another draw of the same noise passes to 25 dB; all of it is noise."""
    taken = steady(-50.0, 3)
    kept = NoiseGuard(noise_of(steady(-50.0, 2, 20 * RATE))).noise_of(taken)
    error = level_db(kept - middle(taken)) - level_db(middle(taken))
    assert error <= -25.0, f"{error:.1f} dB"


@pytest.mark.parametrize("hertz", [220.0, 1_000.0, 5_000.0])
def test_a_partial_that_was_taken_too_is_given_back(hertz: float) -> None:
    """A partial 30 dB above its band's noise comes down by 20 dB and more; the noise in other bands still passes."""
    noise = noise_of(steady(-60.0, 2, 20 * RATE))
    partial = 0.05 * np.sin(2 * np.pi * hertz * np.arange(SIZE + 2 * AROUND) / RATE)
    taken = steady(-60.0, 3) + partial.astype(np.float32)
    kept = NoiseGuard(noise).noise_of(taken)
    spectra = [np.abs(np.fft.rfft(audio[0] * np.hanning(SIZE))) for audio in (middle(taken), kept)]
    at = round(hertz * SIZE / RATE)
    lowered = 20.0 * np.log10(spectra[1][at] / spectra[0][at])
    assert lowered <= -20.0, f"{lowered:.1f} dB"
    far = slice(round(2.5 * at), round(min(4.0 * at, SIZE / 2)))
    passed = 10.0 * np.log10(np.sum(spectra[1][far] ** 2) / np.sum(spectra[0][far] ** 2))
    assert abs(passed) <= 1.0, f"{passed:.1f} dB"


def test_cells_join() -> None:
    """Two cells give what lies there in one longer part: the place decides, not the cell."""
    taken = steady(-45.0, 5, 2 * SIZE + 2 * AROUND)
    guard = NoiseGuard(noise_of(steady(-60.0, 2, 20 * RATE)))
    whole = np.concatenate([guard.noise_of(taken[:, at : at + SIZE + 2 * AROUND]) for at in (0, SIZE)], axis=1)
    shifted = guard.noise_of(taken[:, SIZE // 2 : SIZE // 2 + SIZE + 2 * AROUND])
    np.testing.assert_allclose(shifted, whole[:, SIZE // 2 : SIZE // 2 + SIZE], atol=1e-7)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 96_000])
def test_frames_last_as_long_at_every_rate(rate: int) -> None:
    """Bands, smoothing and cells are the same in time at every rate, and noise that was found passes."""
    meter = NoiseMeter(rate)
    meter.add(steady(-50.0, 2, 20 * rate))
    found = meter.bands()
    assert found is not None
    assert 0.016 <= found.frame / rate <= 0.033
    guard = NoiseGuard(found)
    around = guard.lookaround_frames
    taken = steady(-50.0, 3, guard.cell_frames + 2 * around)
    part = taken[:, around : around + guard.cell_frames]
    error = level_db(guard.noise_of(taken) - part) - level_db(part)
    assert error <= -20.0, f"{error:.1f} dB"


def test_too_little_to_tell() -> None:
    """Of half a second there is no noise to be told."""
    meter = NoiseMeter(RATE)
    meter.add(steady(-50.0, 1, RATE // 2))
    assert meter.bands() is None
