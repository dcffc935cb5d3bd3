"""Profiles of songs: exact filter bank, independence of cutting and gain, an embedding that orders by sound."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.demo import synthesise
from outboard.audio.filter_bank import FilterBank, band_taps
from outboard.audio.song_profile import (
    CENTRES_HERTZ,
    QUANTILES,
    ProfileMeter,
    embedding_distance,
    measure_profile,
    third_octave_weights,
)

RATE_HERTZ = 48_000
Array = NDArray[np.float32]


def banked(audio: Array, cuts: list[int]) -> Array:
    """The bank's bands of a stream that is cut as said."""
    bank = FilterBank(band_taps((120.0, 800.0, 5000.0), RATE_HERTZ)[:, None], audio.shape[0])
    pieces = [piece for block in np.split(audio, cuts, axis=1) for piece in bank.process(block)]
    pieces += list(bank.process(np.zeros((audio.shape[0], 0), np.float32), last=True))
    return np.concatenate(pieces, axis=2)


@pytest.mark.parametrize("rate_hertz", [44_100, 48_000, 96_000])
def test_bands_of_the_bank_add_up_to_an_impulse(rate_hertz: int) -> None:
    """The rows of taps sum to 1 at the centre and 0 elsewhere, at every rate."""
    total = band_taps((120.0, 800.0, 5000.0), rate_hertz).sum(axis=0)
    wanted = np.zeros_like(total)
    wanted[wanted.size // 2] = 1.0
    assert np.abs(total - wanted).max() < 1e-12, np.abs(total - wanted).max()


def test_bank_returns_the_stream_aligned_however_it_is_cut() -> None:
    """The bands sum to the input within -120 dB, frame for frame, and do not depend on the cutting."""
    audio = np.random.default_rng(1).standard_normal((2, 50_000)).astype(np.float32)
    whole = banked(audio, [])
    cut = banked(audio, [1, 7000, 7001, 33_333])
    assert whole.shape == (4, 2, 50_000)
    worst = 20.0 * np.log10(np.abs(whole.sum(axis=0) - audio).max())
    assert worst < -105.0, f"{worst:.1f} dB"
    assert np.array_equal(whole, cut)


def test_profile_does_not_depend_on_level_or_cutting() -> None:
    """12 dB less change no relative figure by more than 0.1 dB; other blocks give the same profile."""
    song = synthesise(5, 8.0).clean
    profile, quiet = measure_profile(song, RATE_HERTZ), measure_profile(song * np.float32(0.25), RATE_HERTZ)
    meter = ProfileMeter(RATE_HERTZ, 2)
    for block in np.split(song, [100, 50_000, 50_001], axis=1):
        meter.process(block)
    meter.process(np.zeros((2, 0), np.float32), last=True)
    assert profile.lufs is not None
    assert quiet.lufs == pytest.approx(profile.lufs - 12.04, abs=0.05)
    for name in ("mid_db", "side_db", "level_db"):
        assert np.allclose(getattr(profile, name), getattr(quiet, name), atol=0.11), name
        assert np.allclose(getattr(profile, name), getattr(meter.profile(), name), atol=0.11), name


def test_third_octave_levels_of_pink_noise_are_level() -> None:
    """Pink noise has equal power per third of an octave: within 1.5 dB from 63 Hz up; its level quantiles rise."""
    generator = np.random.default_rng(2)
    spectrum = np.fft.rfft(generator.standard_normal((2, 20 * RATE_HERTZ)), axis=1)
    spectrum[:, 1:] /= np.sqrt(np.arange(1, spectrum.shape[1]))
    pink = np.fft.irfft(spectrum, axis=1)
    profile = measure_profile((0.1 * pink / pink.std()).astype(np.float32), RATE_HERTZ)
    levels = profile.mid_db[CENTRES_HERTZ > 60.0]
    assert np.ptp(levels) < 1.5, f"{np.ptp(levels):.2f} dB"
    assert profile.level_db.shape == (4, QUANTILES.size)
    assert np.all(np.diff(profile.level_db, axis=1) >= 0.0)
    assert np.allclose(third_octave_weights(8193, 2.93).sum(axis=0).max(), 1.0)


def test_embedding_orders_by_sound() -> None:
    """A song is nearest to itself at another level, then to itself duller, then to noise; mono is no stereo."""
    song = synthesise(6, 8.0).clean
    profile = measure_profile(song, RATE_HERTZ)
    duller = np.fft.rfft(song, axis=1)
    duller[:, np.fft.rfftfreq(song.shape[1], 1.0 / RATE_HERTZ) > 4000.0] *= 0.5
    dull = np.fft.irfft(duller, n=song.shape[1], axis=1).astype(np.float32)
    noise = 0.1 * np.random.default_rng(3).standard_normal(song.shape).astype(np.float32)
    distances = [
        embedding_distance(profile, measure_profile(audio, RATE_HERTZ))
        for audio in (song * np.float32(0.5), dull, noise)
    ]
    assert distances[0] < 0.05 < distances[1] < distances[2], distances
    assert not measure_profile(song[:1], RATE_HERTZ).is_stereo
    assert profile.is_stereo


@pytest.mark.parametrize("frames", [0, 1, 300, 5000, 30_000])
def test_short_audio_and_silence_have_a_profile(frames: int) -> None:
    """Nothing, a sample, silence: no loudness, no failure."""
    profile = measure_profile(np.zeros((2, frames), np.float32), RATE_HERTZ)
    assert profile.lufs is None
    assert not profile.is_stereo
    assert not profile.is_speech
