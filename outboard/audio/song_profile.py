"""What a finished song sounds like, in about a hundred numbers: its spectrum, how its bands move, its width.

Measured in one pass and in flat memory; two songs of any length, rate and level can be compared.

- *Spectrum*: mean power per third of an octave (31.5 Hz to 16 kHz, IEC 61260-1 base-ten centres) of mid and side apart,
  relative to the song's loudness. Welch's method (1967), adjacent Hann frames of 0.34 s.
- *Dynamics*: for each of four bands (split at 120 Hz, 800 Hz and 5 kHz) the distribution over time of its level in
  windows of 60 ms, every 10 ms, relative to the band's mean power.
- *Width*: the side's spectrum over the mid's.

**Embedding.** `embedding` puts these into one vector in which distance is difference in sound: each coordinate is
divided by a difference that is plainly heard (spectrum 3 dB, quantiles of level 3 dB, width 6 dB), and each of the
three groups is weighted so that it counts equally however many coordinates it has. Loudness is left out: it is matched
anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.filter_bank import FilterBank, band_taps
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.spool import Spool, blocks
from outboard.audio.stereo import mid_side

Array = NDArray[np.float32]
Levels = NDArray[np.float64]

CENTRES_HERTZ: Levels = 1000.0 * 10.0 ** (np.arange(-15, 13) / 10.0)
"""Centres of the third-octave bands, 31.6 Hz to 15.8 kHz."""
SPLITS_HERTZ = (120.0, 800.0, 5000.0)
"""Where the bands of the dynamics meet."""
QUANTILES: Levels = np.array([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995])
"""Shares of time that the level quantiles stand for."""
STEPS_PER_SECOND = 100
FLOOR_DB = -120.0
"""Level of silence."""

_WINDOW_STEPS = 6
_SPECTRUM_SECONDS = 0.34
_HISTOGRAM_DB = np.arange(FLOOR_DB, 20.0, 0.1)
_SPECTRUM_UNIT_DB, _LEVEL_UNIT_DB, _WIDTH_UNIT_DB = 3.0, 3.0, 6.0
_WIDTH_FLOOR_DB = -40.0  # narrower than this is mono to any ear
_NARROW_DB = -24.0  # for the embedding: below this the ear tells little difference
_PRESENT_DB = -60.0  # against loudness: fainter bands tell nothing of the width
# Speech: both bands of the voice fall silent a fifth of the time, nothing is below them, and it comes from the middle.
_PAUSE_SHARE, _PAUSE_DB = 0.2, -13.0
_SPEECH_BASS_DB, _SPEECH_WIDTH_DB = -9.0, -15.0
_BASS_HERTZ, _VOICE_HERTZ = (0.0, 90.0), (110.0, 1800.0)


@dataclass(frozen=True)
class SongProfile:
    """Measurements of a song; levels in dB.

    Attributes:
        channels: 1 or 2.
        seconds: its length.
        lufs: integrated loudness; None for silence or under 400 ms.
        mid_db, side_db: (28,) third-octave levels relative to loudness; `side_db` at the floor for mono.
        level_db: (4, 13) quantiles of each band's level relative to its mean power, the floor where it is silent.
        band_mean_db: (4,) mean power of each band in dBFS.
    """

    channels: int
    seconds: float
    lufs: float | None
    mid_db: Levels
    side_db: Levels
    level_db: Levels
    band_mean_db: Levels

    @property
    def is_stereo(self) -> bool:
        """Whether there is a side signal worth the name."""
        if self.channels != 2 or self.lufs is None:
            return False
        return bool(np.any(self.width_db[self.mid_db > _PRESENT_DB] > _WIDTH_FLOOR_DB))

    @property
    def width_db(self) -> Levels:
        """(28,) side over mid, at most as narrow as is heard."""
        width: Levels = np.maximum(self.side_db - self.mid_db, _WIDTH_FLOOR_DB)
        return width

    @property
    def is_speech(self) -> bool:
        """Whether it is somebody speaking, in quiet or in noise, rather than music (a singing voice has fewer pauses
        or company).
        """
        if self.lufs is None or len(self.level_db) < 3:
            return False
        pauses = self.level_db[1:3, np.searchsorted(QUANTILES, _PAUSE_SHARE)]
        voice = self._share(*_VOICE_HERTZ)
        bass, width = self._share(*_BASS_HERTZ) / voice, self._share(*_VOICE_HERTZ, side=True) / voice
        return bool(
            np.all(pauses < _PAUSE_DB)
            and bass < 10.0 ** (_SPEECH_BASS_DB / 10.0)
            and (self.channels == 1 or width < 10.0 ** (_SPEECH_WIDTH_DB / 10.0))
        )

    def _share(self, low_hertz: float, high_hertz: float, *, side: bool = False) -> float:
        inside = (low_hertz <= CENTRES_HERTZ) & (high_hertz > CENTRES_HERTZ)
        levels = self.side_db if side else self.mid_db
        return float(np.sum(10.0 ** (levels[inside] / 10.0)))


def embedding(profile: SongProfile) -> Levels:
    """(108,) coordinates in units of plainly heard difference (see the module's text)."""
    groups = (
        profile.mid_db / _SPECTRUM_UNIT_DB,
        np.maximum(profile.level_db, -40.0).ravel() / _LEVEL_UNIT_DB,
        np.maximum(profile.width_db, _NARROW_DB) / _WIDTH_UNIT_DB,
    )
    return np.concatenate([group / math.sqrt(group.size) for group in groups])


def embedding_distance(one: SongProfile, other: SongProfile) -> float:
    """Euclidean distance of embeddings: 0 for the same sound, about 1 where all differs by a plainly heard step."""
    return float(np.linalg.norm(embedding(one) - embedding(other)))


class ProfileMeter:
    """Measures a stream; what is kept of the past does not grow.

    Args:
        sample_rate_hertz: 12 kHz or more.
        channels: 1 or 2.
        levels: receives the level of each band in every 10 ms as it is measured, (4, steps) dBFS, for a caller that
            wants to move gains by it.
    """

    def __init__(self, sample_rate_hertz: int, channels: int, levels: Spool | None = None) -> None:
        self._rate, self._channels = sample_rate_hertz, channels
        self._loudness = LoudnessMeter(sample_rate_hertz, channels)
        self._spectrum = _Spectrum(sample_rate_hertz, channels)
        self._bands = FilterBank(band_taps(splits_for(sample_rate_hertz), sample_rate_hertz)[:, None], channels)
        self._count = len(splits_for(sample_rate_hertz)) + 1
        self._step = sample_rate_hertz // STEPS_PER_SECOND
        self._left: NDArray[np.floating] = np.zeros((self._count, 0), np.float32)
        self._recent = np.zeros((self._count, _WINDOW_STEPS - 1))
        self._skip = _WINDOW_STEPS // 2
        self._histograms = np.zeros((self._count, len(_HISTOGRAM_DB) + 1), np.int64)
        self._energy = np.zeros(self._count)
        self._levels = levels
        self._frames = 0

    def process(self, block: Array, last: bool = False) -> None:
        """Takes (channels, frames); `last` ends the stream."""
        self._frames += block.shape[1]
        self._loudness.process(block)
        field = mid_side(block).astype(np.float32) if self._channels == 2 else block
        self._spectrum.process(field)
        for piece in self._bands.process(field, last):
            self._take(np.einsum("bcf,bcf->bf", piece, piece))  # m² + s² is the mean of l² and r²
        if last:
            steps = self._left.shape[1] // self._step + 1
            missing = max(steps, self._skip) * self._step - self._left.shape[1] + self._skip * self._step
            self._take(np.zeros((self._count, missing), np.float32))

    def _take(self, power: NDArray[np.floating]) -> None:
        """Power per frame to levels of overlapping windows, to histograms and to the caller's spool."""
        waiting = np.concatenate([self._left, power], axis=1)
        steps = waiting.shape[1] // self._step
        self._left = waiting[:, steps * self._step :]
        if not steps:
            return
        sums = waiting[:, : steps * self._step].reshape(self._count, steps, self._step).mean(axis=2, dtype=np.float64)
        self._energy += sums.sum(axis=1)
        known = np.concatenate([self._recent, sums], axis=1)
        self._recent = known[:, -(_WINDOW_STEPS - 1) :]
        means = np.lib.stride_tricks.sliding_window_view(known, _WINDOW_STEPS, axis=1).mean(axis=2)
        levels = decibels(means)[:, self._skip :]  # the first windows are centred before the song begins
        self._skip = max(0, self._skip - steps)
        for band, row in enumerate(np.searchsorted(_HISTOGRAM_DB, levels)):
            self._histograms[band] += np.bincount(row, minlength=self._histograms.shape[1])
        if self._levels is not None:
            self._levels.append(levels)

    def profile(self) -> SongProfile:
        """What was measured, once the stream has ended."""
        lufs = self._loudness.integrated_lufs
        mid, side = self._spectrum.thirds_db()
        steps = max(1.0, self._frames / self._step)
        mean_db = decibels(self._energy / steps)
        edges = np.append(_HISTOGRAM_DB, _HISTOGRAM_DB[-1])
        level_db = np.full((self._count, QUANTILES.size), FLOOR_DB)
        for band in range(self._count):
            if mean_db[band] <= FLOOR_DB:
                continue
            counted = self._histograms[band].copy()
            counted[0] = 0  # digital silence has no dynamics
            total = np.cumsum(counted)
            level_db[band] = edges[np.searchsorted(total, QUANTILES * total[-1])] - mean_db[band]
        reference = 0.0 if lufs is None else lufs
        return SongProfile(
            self._channels, self._frames / self._rate, lufs, mid - reference, side - reference, level_db, mean_db
        )


def measure_profile(
    array: Array, sample_rate_hertz: int, levels: Spool | None = None, progress: Callable[[float], None] | None = None
) -> SongProfile:
    """The profile of (channels, frames), block by block; see `ProfileMeter`. `progress` is told the fraction done."""
    meter = ProfileMeter(sample_rate_hertz, array.shape[0], levels)
    done = 0
    for block in blocks(array):
        meter.process(block)
        done += block.shape[1]
        if progress is not None:
            progress(done / array.shape[1])
    meter.process(np.zeros((array.shape[0], 0), np.float32), last=True)
    return meter.profile()


def splits_for(sample_rate_hertz: int) -> tuple[float, ...]:
    """The splits that lie well under Nyquist."""
    return tuple(split for split in SPLITS_HERTZ if split < 0.35 * sample_rate_hertz)


def decibels(power: Levels) -> Levels:
    """Power to dB, not under the floor."""
    level: Levels = 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0)))
    return level


class _Spectrum:
    """Mean power spectra of mid and side (one channel: mid), gathered into thirds of an octave."""

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        self._size = 2 ** round(math.log2(_SPECTRUM_SECONDS * sample_rate_hertz))
        self._rate = sample_rate_hertz
        window = np.hanning(self._size + 1)[:-1]
        self._window = (window * math.sqrt(2.0 / (self._size * np.sum(window**2)))).astype(np.float32)
        self._held = np.zeros((channels, 0), np.float32)
        self._sums = np.zeros((2, self._size // 2 + 1))
        self._frames = 0

    def process(self, block: Array) -> None:
        waiting = np.concatenate([self._held, block], axis=1)
        start = 0
        while waiting.shape[1] - start >= self._size:
            self._add(waiting[:, start : start + self._size])
            start += self._size
        self._held = waiting[:, start:]

    def _add(self, frame: Array) -> None:
        for row, signal in enumerate(frame):
            if signal.any():
                spectrum = scipy.fft.rfft(signal * self._window)
                self._sums[row] += spectrum.real**2 + spectrum.imag**2
        self._frames += 1

    def thirds_db(self) -> Iterator[Levels]:
        """Mid's and side's (28,) levels in dBFS."""
        if not self._frames and self._held.shape[1]:
            self._add(np.pad(self._held, ((0, 0), (0, self._size - self._held.shape[1]))))
        weights = third_octave_weights(self._size // 2 + 1, self._rate / self._size)
        for row in self._sums / max(1, self._frames):
            yield decibels(weights @ row)


def third_octave_weights(bins: int, bin_hertz: float) -> Levels:
    """(28, bins) shares of each bin's power in each third-octave band; a bin that straddles an edge is divided."""
    low = np.maximum((np.arange(bins) - 0.5) * bin_hertz, 0.0)
    high = (np.arange(bins) + 0.5) * bin_hertz
    lower, upper = CENTRES_HERTZ * 10.0**-0.05, CENTRES_HERTZ * 10.0**0.05
    overlap = np.minimum(high, upper[:, None]) - np.maximum(low, lower[:, None])
    return np.asarray(np.maximum(overlap, 0.0) / (high - low))
