"""What a stem sounds like, in a dozen numbers: the basis on which its role is told.

Listened to are at most six excerpts of five seconds, the loudest of as many equal parts of the stem, so the cost does
not grow with the song. Spectra of 43 ms, every 11 ms; frames within 30 dB of the excerpts' loudest count as playing.
All numbers are ratios, unchanged by gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Floats = NDArray[np.float64]

BAND_EDGES_HERTZ = (120.0, 400.0, 2_000.0, 6_000.0)
_EXCERPTS = 6
_EXCERPT_SECONDS = 5.0
# The power of two nearest to this is the spectra's size; a quarter of it their distance.
_WINDOW_SECONDS = 2048 / 48_000
_OVERLAP = 4
_PLAYING_DB = 30.0
_SILENT_POWER = 1e-9
# Pitch is looked for where voices and most instruments have it.
_PITCH_HERTZ = (70.0, 1_000.0)
_VOICED = 0.8
# A voice moves its pitch by this much from frame to frame; keys and synths stand still or jump.
_GLIDE_SEMITONES = (0.06, 0.8)
# How long after an onset it is looked whether the sound is still there.
_DECAY_SECONDS = (0.10, 0.16)
_ONSET_DB = 6.0
_PEAK_HERTZ = (150.0, 5_000.0)


@dataclass(frozen=True)
class Sound:
    """What is heard of one stem.

    Attributes:
        shares: parts of the power under 120 Hz, to 400 Hz, to 2 kHz, to 6 kHz and above; they add up to 1.
        centroid_octaves: centre of the power on the octave scale, octaves over 20 Hz.
        decay_db: how far the level falls within about 130 ms after an onset, mean; 0 without onsets.
        onset_spread_octaves: how much the brightness of onsets differs, standard deviation in octaves.
        onsets_per_second: rises of at least 6 dB within 30 ms, per second of playing.
        tonality_db: how far spectral peaks stand over the floor between them at 150 Hz to 5 kHz, median.
        voiced: share of playing frames with one clear pitch from 70 Hz to 1 kHz.
        glide: share of the steps between voiced frames whose pitch moves as a voice moves.
        pitch_hertz: median pitch of voiced frames; 0 where there are none.
        side: share of the side in the power, 0 to 1.
        activity: share of the frames of the excerpts that play.
        level_dbfs: mean power while it plays (the one number that gain changes: it ranks voices of one mix).
    """

    shares: tuple[float, float, float, float, float]
    centroid_octaves: float
    decay_db: float
    onset_spread_octaves: float
    onsets_per_second: float
    tonality_db: float
    voiced: float
    glide: float
    pitch_hertz: float
    side: float
    activity: float
    level_dbfs: float


def listen(stem: NDArray[np.float32], sample_rate_hertz: int) -> Sound | None:
    """What ``stem`` ``(channels, frames)`` sounds like; None for silence or under half a second."""
    if stem.shape[1] < sample_rate_hertz // 2:
        return None
    size = int(2 ** round(math.log2(_WINDOW_SECONDS * sample_rate_hertz)))
    parts = [_spectra(excerpt, size) for excerpt in excerpts(stem, sample_rate_hertz)]
    power = np.concatenate([part[0] for part in parts])
    side = sum(part[1] for part in parts)
    levels = power.sum(axis=1)
    playing = levels > max(float(levels.max()) * 10.0 ** (-_PLAYING_DB / 10.0), _SILENT_POWER)
    if not playing.any():
        return None
    hertz: Floats = np.arange(power.shape[1]) * np.float64(sample_rate_hertz / size)
    mean = power[playing].mean(axis=0)
    total = float(mean[1:].sum())
    voiced, glide, pitch = _pitch(power[playing], sample_rate_hertz, size)
    decay, spread, rate = _onsets(power, playing, hertz, sample_rate_hertz * _OVERLAP / size)
    octaves = np.log2(np.maximum(hertz[1:], 20.0) / 20.0)
    edges = np.searchsorted(hertz[1:], BAND_EDGES_HERTZ)
    shares = [float(piece.sum()) / total for piece in np.split(mean[1:], edges)]
    return Sound(
        shares=(shares[0], shares[1], shares[2], shares[3], shares[4]),
        centroid_octaves=float(np.sum(octaves * mean[1:])) / total,
        decay_db=decay,
        onset_spread_octaves=spread,
        onsets_per_second=rate,
        tonality_db=_tonality_db(power[playing], hertz),
        voiced=voiced,
        glide=glide,
        pitch_hertz=pitch,
        side=float(side / (side + levels.sum())),
        activity=float(playing.mean()),
        level_dbfs=10.0 * math.log10(float(levels[playing].mean())),
    )


def excerpts(stem: Audio, sample_rate_hertz: int) -> list[Audio]:
    """The loudest five seconds of each sixth of the stem; the whole of a short one."""
    length = int(_EXCERPT_SECONDS * sample_rate_hertz)
    if stem.shape[1] <= _EXCERPTS * length:
        return [np.asarray(stem, np.float32)]
    found = []
    for part in range(_EXCERPTS):
        begin, end = (stem.shape[1] * k // _EXCERPTS for k in (part, part + 1))
        starts = range(begin, end - length + 1, length)
        # One sample in 37 tells the level well enough.
        best = max(starts, key=lambda s: float(np.sum(np.square(stem[:, s : s + length : 37], dtype=np.float64))))
        found.append(np.asarray(stem[:, best : best + length], np.float32))
    return found


def _spectra(excerpt: Audio, size: int) -> tuple[NDArray[np.float32], float]:
    """Power spectra (frames, bins) of the middle, and the summed power of the side on the same scale."""
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    scale = np.float32(math.sqrt(2.0 / (size * float(np.sum(window**2)))))
    powers = []
    for signal in (excerpt.mean(axis=0), 0.5 * (excerpt[0] - excerpt[-1])):
        frames = np.lib.stride_tricks.sliding_window_view(signal, size)[:: size // _OVERLAP]
        spectra = scipy.fft.rfft(frames * (window * scale), axis=-1)
        powers.append(np.asarray(spectra.real**2 + spectra.imag**2, np.float32))
        if len(excerpt) == 1:
            return powers[0], 0.0
    return powers[0], float(powers[1].sum())


def _pitch(power: NDArray[np.float32], sample_rate_hertz: int, size: int) -> tuple[float, float, float]:
    """Share of voiced frames, share of gliding steps among them, median pitch in Hz (0: none)."""
    low, high = (int(sample_rate_hertz / hertz) for hertz in reversed(_PITCH_HERTZ))
    # Lows and hiss pull the correlation to one side: pitch is judged on what lies between.
    hertz: Floats = np.arange(power.shape[1]) * np.float64(sample_rate_hertz / size)
    correlation = scipy.fft.irfft(power * ((hertz > 60.0) & (hertz < 4_000.0)), axis=-1)
    lags = np.arange(low, min(high, size // 2 - 1) + 1)
    # The window's own autocorrelation falls with the lag; divided out, a steady tone stays near 1.
    window = scipy.fft.irfft(np.abs(scipy.fft.rfft(np.hanning(size + 1)[:-1], 2 * size)) ** 2)[: size // 2]
    part = correlation[:, lags] / np.maximum(correlation[:, :1], 1e-20) / (window[lags] / window[0])
    # The first lag that is nearly the best: multiples of the period are as good.
    best = part.max(axis=1)
    first = np.argmax(part >= 0.92 * best[:, None], axis=1)
    last = np.minimum(first + 12, part.shape[1] - 1)
    peak = np.array([a + int(np.argmax(row[a : b + 1])) for row, a, b in zip(part, first, last, strict=True)])
    pitch = sample_rate_hertz / lags[peak]
    voiced = best > _VOICED
    both = voiced[1:] & voiced[:-1]
    steps = np.abs(12.0 * np.log2(pitch[1:] / pitch[:-1]))[both]
    gliding = (steps > _GLIDE_SEMITONES[0]) & (steps < _GLIDE_SEMITONES[1])
    glide = float(gliding.mean()) if steps.size else 0.0
    return float(voiced.mean()), glide, float(np.median(pitch[voiced])) if voiced.any() else 0.0


def _onsets(
    power: NDArray[np.float32], playing: NDArray[np.bool_], hertz: Floats, frames_per_second: float
) -> tuple[float, float, float]:
    """Mean fall after onsets in dB, spread of their brightness in octaves, onsets per second of playing."""
    # Highs count more: an onset is broad, and lows ring through it.
    heard = power * np.minimum(hertz / 1_000.0, 1.0) ** 0.5
    level = 10.0 * np.log10(heard.sum(axis=1) + 1e-12)
    rise = np.zeros_like(level)
    rise[3:] = level[3:] - level[:-3]
    peaks = (rise > _ONSET_DB) & playing
    starts = np.flatnonzero(peaks & ~np.concatenate([[False], peaks[:-1]]))
    first, last = (int(seconds * frames_per_second) for seconds in _DECAY_SECONDS)
    starts = starts[starts + last + 4 < len(level)]
    if not starts.size:
        return 0.0, 0.0, 0.0
    tops = np.array([level[s : s + 4].max() for s in starts])
    later = np.array([level[s + first : s + last].mean() for s in starts])
    octaves = np.log2(np.maximum(hertz[1:], 20.0) / 20.0)
    bright = np.array([float(np.average(octaves, weights=power[s : s + 4, 1:].sum(axis=0) + 1e-12)) for s in starts])
    rate = len(starts) * frames_per_second / float(playing.sum())
    return float(np.mean(tops - later)), float(np.std(bright)), rate


def _tonality_db(power: NDArray[np.float32], hertz: Floats) -> float:
    """Median over frames of how far the strongest tenth of the bins stands over their median."""
    band = 10.0 * np.log10(power[:, (hertz >= _PEAK_HERTZ[0]) & (hertz < _PEAK_HERTZ[1])] + 1e-12)
    # The slope of the spectrum is no tone: each bin is held against its own half octave or so.
    smooth = np.apply_along_axis(lambda row: np.convolve(row, np.ones(15) / 15.0, mode="same"), 1, band[::4])
    return float(np.median(np.percentile(band[::4] - smooth, 90, axis=1)))
