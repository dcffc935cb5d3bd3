"""Whether two files hold one recording: coded, resampled, at another level, cut or shifted, but not processed anew.

What is compared is how the energy of each third of an octave (100 Hz to 8 kHz, which every codec keeps) moves over
time, 50 times a second: the correlation of all bands at the lag where it is highest, near 1 for one recording and far
below for two; and the tone, how far the bands' mean levels stand apart once the level of the whole is taken out. A
master of a song moves like the song and sounds otherwise.

The idea of telling recordings by the course of their bands' energies is that of J. Haitsma and T. Kalker, *A highly
robust audio fingerprinting system*, ISMIR 2002; here the energies themselves are kept, as two files are compared and
not millions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.spool import blocks

Array = NDArray[np.float32]
Courses = NDArray[np.float32]
"""(bands, steps): level of each band over time, dB."""

SAME_CORRELATION, SAME_TONE_DB = 0.985, 0.7
"""Of seven songs, copies at 64 to 128 kbit/s (mp3, aac, opus), at 22 kHz, 20 dB lower, begun later or cut in half came
to 0.988 at least and 0.64 dB at most; two different songs to 0.31. At 48 kbit/s four of seven by mp3 and one by aac are
another sound (docs/benchmarks.md). A master of the song has another tone, or lower correlation, unless next to nothing
was done to it."""
_STEPS_PER_SECOND = 50
_FRAME_SECONDS = 0.2  # so long that a lag between two steps costs nothing
_EDGES_HERTZ = 100.0 * 2.0 ** (np.arange(20) / 3.0)
_RANGE_DB = 50.0  # under a band's highest level: below lies what codecs make of silence
_SHORTEST_SECONDS = 5.0
_LEAST_OVERLAP = 0.5  # of the shorter file


def courses(array: Array, sample_rate_hertz: int, progress: Callable[[float], None] | None = None) -> Courses:
    """How the bands of a recording move.

    Args:
        array: (1 or 2, frames), at 16 kHz or more; may be mapped, a block at a time is read.
        sample_rate_hertz: of it.
        progress: told the fraction done; may raise.
    """
    step = sample_rate_hertz // _STEPS_PER_SECOND
    size = int(_FRAME_SECONDS * sample_rate_hertz)
    window = np.hanning(size).astype(np.float32)
    edges = np.searchsorted(np.fft.rfftfreq(size, 1.0 / sample_rate_hertz), _EDGES_HERTZ)
    kept = np.zeros((array.shape[0], 0), np.float32)
    found: list[NDArray[np.float32]] = []
    done = 0
    for block in blocks(array):
        kept = np.concatenate([kept, block], axis=1)
        count = max(0, (kept.shape[1] - size) // step + 1)
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(kept, size, axis=1)[:, : count * step : step]
            spectra = scipy.fft.rfft(frames * window, axis=2)
            power = (spectra.real**2 + spectra.imag**2).sum(axis=0)
            found.append(np.add.reduceat(power, edges, axis=1)[:, :-1].T)
            kept = kept[:, count * step :]
        done += block.shape[1]
        if progress:
            progress(done / array.shape[1])
    if not found:
        return np.zeros((len(edges) - 1, 0), np.float32)
    levels = 10.0 * np.log10(np.concatenate(found, axis=1) + 1e-12)
    return np.asarray(np.maximum(levels, levels.max(axis=1, keepdims=True) - _RANGE_DB), np.float32)


@dataclass(frozen=True)
class Likeness:
    """How alike two recordings are.

    Attributes:
        correlation: of all bands' courses at the best lag, 0 to 1; 0 where either is too short.
        tone_db: how far their bands stand apart once the level is taken out, root mean square.
    """

    correlation: float
    tone_db: float

    @property
    def is_same(self) -> bool:
        """Whether the files hold one recording."""
        return self.correlation >= SAME_CORRELATION and self.tone_db <= SAME_TONE_DB


def likeness(one: Courses, other: Courses) -> Likeness:
    """How alike two recordings are, over what they have in common at the lag where they agree best."""
    lengths = one.shape[1], other.shape[1]
    least = int(max(_SHORTEST_SECONDS * _STEPS_PER_SECOND, _LEAST_OVERLAP * min(lengths)))
    if min(lengths) < least:
        return Likeness(0.0, np.inf)
    lag = _best_lag(_centred(one), _centred(other), least)
    first, last = max(lag, 0), min(lag + lengths[1], lengths[0])
    here, there = one[:, first:last], other[:, first - lag : last - lag]
    tone = here.mean(axis=1, dtype=np.float64) - there.mean(axis=1, dtype=np.float64)
    a, b = _centred(here), _centred(there)
    power = float(np.sum(a * a) * np.sum(b * b))
    correlation = float(np.sum(a * b)) / math.sqrt(power) if power > 0.0 else 0.0
    return Likeness(max(correlation, 0.0), float(np.std(tone)))


def _best_lag(one: NDArray[np.float64], other: NDArray[np.float64], least: int) -> int:
    """By how many steps `other` is shifted to the right where it agrees with `one` best over at least so many steps."""
    lengths = one.shape[1], other.shape[1]
    size = scipy.fft.next_fast_len(sum(lengths))
    spectrum = np.zeros(size // 2 + 1, np.complex128)
    for a, b in zip(one, other, strict=True):  # band by band: recordings of an hour have long courses
        spectrum += scipy.fft.rfft(a, size) * scipy.fft.rfft(b, size).conj()
    products = scipy.fft.irfft(spectrum, size)
    lags = np.arange(-lengths[1] + least, lengths[0] - least + 1)
    first, last = np.maximum(lags, 0), np.minimum(lags + lengths[1], lengths[0])
    energies = [np.concatenate([[0.0], np.cumsum((c**2).sum(axis=0))]) for c in (one, other)]
    over = energies[0][last] - energies[0][first]
    under = energies[1][last - lags] - energies[1][first - lags]
    return int(lags[np.argmax(products[lags % size] / np.sqrt(np.maximum(over * under, 1e-12)))])


def _centred(levels: Courses) -> NDArray[np.float64]:
    return np.asarray(levels - levels.mean(axis=1, keepdims=True, dtype=np.float64), np.float64)
