"""Tempo and key, from an excerpt of at most 90 s out of the middle, so that memory and time do not grow with the song.

**Tempo**: librosa's onset strength and tempogram-based estimate (prior around 120 bpm) at 22.05 kHz; it may be half or
twice what a listener taps.

**Key**: mean chroma (STFT magnitudes from 60 Hz to 2 kHz, 4096 at 11.025 kHz, tuned to the recording) against the 24
rotations of the Krumhansl-Kessler profiles (Krumhansl 1990); the best correlation r1 against the second best r2 gives
the confidence, ``(r1 - r2) / 0.2`` within 0 and 1. No key is named where r1 is under 0.4. The usual errors are the
relative key and the fifth.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import soxr
from numpy.typing import NDArray

_EXCERPT_SECONDS = 90.0
_LEAST_SECONDS = 6.0
_TEMPO_RATE_HERTZ = 22050
_KEY_DECIMATION = 2
_KEY_HERTZ = (60.0, 2000.0)  # where notes have their fundamentals; cymbals and noise are above
_BLOCK_FRAMES = 65536
_MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
_MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_CONFIDENT_DIFFERENCE = 0.2
_LEAST_CORRELATION = 0.4

Float32Array = NDArray[np.float32]


def excerpt(audio: Float32Array, sample_rate_hertz: int) -> Float32Array:
    """The middle of the song (at most 90 s), mono at 22.05 kHz."""
    wanted = min(audio.shape[1], int(_EXCERPT_SECONDS * sample_rate_hertz))
    begin = (audio.shape[1] - wanted) // 2
    resampler = soxr.ResampleStream(sample_rate_hertz, _TEMPO_RATE_HERTZ, 1, dtype="float32", quality="MQ")
    pieces = []
    for start in range(begin, begin + wanted, _BLOCK_FRAMES):
        stop = min(start + _BLOCK_FRAMES, begin + wanted)
        mono = np.ascontiguousarray(audio[:, start:stop].mean(axis=0), dtype=np.float32)
        pieces.append(resampler.resample_chunk(mono, last=stop == begin + wanted))
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def tempo_and_key(
    audio: Float32Array, sample_rate_hertz: int, tick: Callable[[], None] = lambda: None
) -> tuple[float | None, str | None, float | None]:
    """Tempo in bpm, key and its confidence, of audio (1 or 2 channels, frames); None where nothing pulses or sounds.

    `tick` is called between the pieces of the work; it may raise to stop.
    """
    mono = excerpt(audio, sample_rate_hertz)
    if len(mono) < _LEAST_SECONDS * _TEMPO_RATE_HERTZ or not np.abs(mono).max(initial=0.0) > 0.0:
        return None, None, None
    mono /= np.abs(mono).max()
    return _tempo(mono, tick), *_key(mono, tick)


def _tempo(mono: Float32Array, tick: Callable[[], None]) -> float | None:
    import librosa  # takes a second to load: paid by the first analysis, not by every command

    tick()
    onsets = librosa.onset.onset_strength(y=mono, sr=_TEMPO_RATE_HERTZ)
    if not np.any(onsets > 0.0):
        return None
    tick()
    tempo = librosa.feature.tempo(onset_envelope=onsets, sr=_TEMPO_RATE_HERTZ)
    return float(tempo[0]) if np.isfinite(tempo[0]) and tempo[0] > 0 else None


def _peaks(magnitudes: NDArray[np.float32], bin_hertz: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies in hertz and magnitudes of all spectral peaks, by parabolas through their three highest bins.

    Peaks 20 dB under their frame's highest are left out. (librosa.piptrack does the same, but on compiled generalised
    functions whose cache does not survive that several processes fill it at once.)
    """
    low, centre, high = (magnitudes[offset : len(magnitudes) - 2 + offset].astype(np.float64) for offset in range(3))
    floor = 0.1 * magnitudes.max(axis=0, keepdims=True)
    bins, frames = np.nonzero((centre > low) & (centre >= high) & (centre > floor))
    slope = 0.5 * (high - low)[bins, frames]
    curvature = (2.0 * centre - low - high)[bins, frames]
    shift = slope / curvature
    return (bins + 1 + shift) * bin_hertz, centre[bins, frames] + 0.5 * slope * shift


def _key(mono: Float32Array, tick: Callable[[], None]) -> tuple[str | None, float | None]:
    import librosa

    tick()
    low_rate = soxr.resample(mono, _KEY_DECIMATION, 1, quality="MQ")
    magnitudes = np.abs(librosa.stft(low_rate, n_fft=4096, hop_length=2048))
    bins_hertz = np.arange(len(magnitudes)) * (_TEMPO_RATE_HERTZ / _KEY_DECIMATION / 4096)
    magnitudes[(bins_hertz < _KEY_HERTZ[0]) | (bins_hertz >= _KEY_HERTZ[1])] = 0.0
    rate_hertz = _TEMPO_RATE_HERTZ // _KEY_DECIMATION
    tick()
    pitches, strengths = _peaks(magnitudes, rate_hertz / 4096)
    if not len(pitches):
        return None, None  # nothing has a pitch: noise, DC
    strong = strengths >= np.median(strengths)
    tick()
    tuning = librosa.pitch_tuning(pitches[strong])
    chroma = librosa.feature.chroma_stft(S=magnitudes, sr=rate_hertz, n_fft=4096, tuning=tuning)
    mean = chroma.mean(axis=1)
    if not np.isfinite(mean).all() or mean.std() <= 1e-6:
        return None, None
    profiles = np.stack([np.roll(profile, step) for profile in (_MAJOR, _MINOR) for step in range(12)])
    correlations = np.array([np.corrcoef(mean, profile)[0, 1] for profile in profiles])
    best, second = np.argsort(correlations)[::-1][:2]
    if correlations[best] < _LEAST_CORRELATION:
        return None, None
    confidence = float(np.clip((correlations[best] - correlations[second]) / _CONFIDENT_DIFFERENCE, 0.0, 1.0))
    return f"{_NAMES[best % 12]} {'major' if best < 12 else 'minor'}", confidence
