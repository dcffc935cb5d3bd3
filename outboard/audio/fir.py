"""Equalisation by FIR filters: linear-phase or minimum-phase taps from a curve of gains, and their convolution with a
stream.

Design is by frequency sampling and windowing (Oppenheim & Schafer, Discrete-Time Signal Processing, 7.5): the wanted
magnitude on a dense grid, with zero phase, gives an impulse response that is centred, cut to length and windowed.
Symmetric taps delay every frequency equally, and the convolver takes that delay out, so an impulse at frame n stays
centred on frame n.

A minimum-phase filter has the same magnitude and all of its energy as early as that allows: its phase is the Hilbert
transform of its log magnitude, which folding the real cepstrum onto positive times gives (Oppenheim & Schafer, 13.3).

Convolution is by overlap-save with the FFT (Stockham 1966), in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.filters import to_float32

DEFAULT_TAPS = 8191
"""Resolves about 12 Hz at 48 kHz; must be odd."""

_GRID_PER_TAP = 4  # oversampling of the design grid, against aliasing of the impulse response
_CEPSTRUM_PER_TAP = 8  # a cepstrum folds back on itself sooner than an impulse response
_SMALLEST_GAIN = 10.0 ** (-144.0 / 20.0)
_LOWEST_HERTZ = 1.0  # where the logarithmic frequency axis begins
_FFT_PER_TAP = 4  # FFT length over taps: the cheapest cost per frame for thousands of taps
_SMALLEST_FFT = 4096


def linear_phase_taps(
    frequencies_hertz: Sequence[float],
    gains_db: Sequence[float],
    sample_rate_hertz: int,
    *,
    taps: int = DEFAULT_TAPS,
    null_dc: bool = False,
) -> NDArray[np.float64]:
    """Taps of a linear-phase equaliser.

    Args:
        frequencies_hertz: rising, above 0; gains in between run linearly over log frequency, and stay level beyond both
            ends.
        gains_db: one gain per frequency.
        sample_rate_hertz: of the audio.
        taps: odd length.
        null_dc: makes the gain at DC exactly 0 (for a curve that falls towards it: elsewhere this would cut a notch of
            a few hertz).

    Returns:
        (taps,) float64, symmetric.

    Raises:
        ValueError: lengths differ, frequencies do not rise, or `taps` is even.
    """
    if taps < 3 or taps % 2 == 0:
        raise ValueError(f"a symmetric filter with whole-frame delay needs an odd number of taps, not {taps}")
    magnitude, size = _magnitude(frequencies_hertz, gains_db, sample_rate_hertz, _GRID_PER_TAP * taps)
    half = taps // 2
    response = scipy.fft.irfft(magnitude, n=size)
    centred = np.concatenate([response[-half:], response[: half + 1]])
    window = np.hanning(taps + 2)[1:-1]
    shaped: NDArray[np.float64] = centred * window
    shaped = 0.5 * (shaped + shaped[::-1])  # exact symmetry in spite of the FFT's rounding
    if null_dc:
        shaped -= window * (shaped.sum() / window.sum())
    return shaped


def minimum_phase_taps(
    frequencies_hertz: Sequence[float], gains_db: Sequence[float], sample_rate_hertz: int, *, taps: int = DEFAULT_TAPS
) -> NDArray[np.float64]:
    """Taps of a minimum-phase equaliser, for a curve as `linear_phase_taps` takes it.

    Returns:
        (2 * taps - 1,) float64 as `StreamConvolver` takes them: zeros before the centre, the filter from there on.

    Raises:
        ValueError: lengths differ, or frequencies do not rise.
    """
    least = 1 << (_CEPSTRUM_PER_TAP * taps - 1).bit_length()  # even: the cepstrum has a middle
    magnitude, size = _magnitude(frequencies_hertz, gains_db, sample_rate_hertz, least)
    cepstrum = scipy.fft.irfft(np.log(np.maximum(magnitude, _SMALLEST_GAIN)), n=size)
    folded = np.zeros(size)
    folded[0], folded[1 : size // 2] = cepstrum[0], 2.0 * cepstrum[1 : size // 2]
    folded[size // 2] = cepstrum[size // 2]
    response = scipy.fft.irfft(np.exp(scipy.fft.rfft(folded)), n=size)[:taps]
    window = np.hanning(2 * taps + 1)[taps:-1]
    return np.concatenate([np.zeros(taps - 1), response * window])


def _magnitude(
    frequencies_hertz: Sequence[float], gains_db: Sequence[float], sample_rate_hertz: int, least_size: int
) -> tuple[NDArray[np.float64], int]:
    """Gains of a curve from 0 Hz to Nyquist, and the size of the transform that they belong to."""
    frequencies = np.asarray(frequencies_hertz, dtype=np.float64)
    gains = np.asarray(gains_db, dtype=np.float64)
    if frequencies.shape != gains.shape or frequencies.ndim != 1 or not frequencies.size:
        raise ValueError(f"expected as many gains as frequencies, got {gains.shape} and {frequencies.shape}")
    if frequencies[0] <= 0.0 or np.any(np.diff(frequencies) <= 0.0):
        raise ValueError("frequencies must be above 0 and rise")
    size = int(scipy.fft.next_fast_len(least_size, real=True))
    grid = np.maximum(np.fft.rfftfreq(size, 1.0 / sample_rate_hertz), _LOWEST_HERTZ)
    magnitude: NDArray[np.float64] = 10.0 ** (np.interp(np.log(grid), np.log(frequencies), gains) / 20.0)
    return magnitude, size


def response_db(
    taps: NDArray[np.float64], frequencies_hertz: Sequence[float], sample_rate_hertz: int
) -> NDArray[np.float64]:
    """Gain in dB of a symmetric filter at some frequencies."""
    offsets = np.arange(taps.size) - taps.size // 2
    angles = 2.0 * np.pi * np.asarray(frequencies_hertz, dtype=np.float64) / sample_rate_hertz
    amplitudes = np.cos(np.outer(angles, offsets)) @ taps
    gains: NDArray[np.float64] = 20.0 * np.log10(np.maximum(np.abs(amplitudes), 1e-12))
    return gains


class StreamConvolver:
    """Convolves a stream with a symmetric filter, delay taken out.

    The blocks that `process` returns come when they can; together they have as many frames as went in. What comes out
    does not depend on how the stream is cut.

    Args:
        taps: (n,) with n odd.
        channels: at least 1.
    """

    def __init__(self, taps: NDArray[np.floating], channels: int) -> None:
        if taps.ndim != 1 or taps.size % 2 == 0:
            raise ValueError(f"expected an odd number of taps in one dimension, got {taps.shape}")
        self._half = taps.size // 2
        self._size = int(scipy.fft.next_fast_len(max(_SMALLEST_FFT, _FFT_PER_TAP * taps.size), real=True))
        self._hop = self._size - taps.size + 1
        self._spectrum = scipy.fft.rfft(np.asarray(taps, dtype=np.float64), n=self._size)
        # Overlap-save needs taps - 1 frames of history; starting with half of them silent leaves the delay out.
        self._held = np.zeros((channels, self._half), dtype=np.float32)
        self._owed = 0
        self._finished = False

    @property
    def most_held_frames(self) -> int:
        """How far what came out can be behind what went in."""
        return self._size

    def process(self, block: NDArray[np.floating], last: bool = False) -> NDArray[np.float32]:
        """Takes (channels, n) frames, returns (channels, m) float32; `last` ends the stream and returns the rest."""
        if self._finished:
            raise ValueError("the stream has ended")
        if block.ndim != 2 or block.shape[0] != self._held.shape[0]:
            raise ValueError(f"expected a block of shape ({self._held.shape[0]}, frames), got {block.shape}")
        self._owed += block.shape[1]
        self._finished = last
        pieces = [self._held, block.astype(np.float32, copy=False)]
        if last:
            pieces.append(np.zeros((block.shape[0], self._half + self._size), dtype=np.float32))
        waiting = np.concatenate(pieces, axis=1)
        outputs = []
        start = 0
        while waiting.shape[1] - start >= self._size and self._owed:
            done = self._convolve(waiting[:, start : start + self._size])[:, : self._owed]
            outputs.append(done)
            self._owed -= done.shape[1]
            start += self._hop
        self._held = waiting[:, start:].copy()
        return np.concatenate(outputs, axis=1) if outputs else np.empty((block.shape[0], 0), dtype=np.float32)

    def _convolve(self, segment: NDArray[np.float32]) -> NDArray[np.float32]:
        spectrum = scipy.fft.rfft(segment.astype(np.float64), axis=1) * self._spectrum
        valid: NDArray[np.float64] = scipy.fft.irfft(spectrum, n=self._size, axis=1)[:, self._size - self._hop :]
        return to_float32(valid)


class DelayedConvolver:
    """A `StreamConvolver` that gives as many frames as it takes, ``latency_frames`` late: one slot of a chain."""

    def __init__(self, taps: NDArray[np.floating], channels: int) -> None:
        self._convolver = StreamConvolver(taps, channels)
        self.latency_frames = self._convolver.most_held_frames
        self._ready = np.zeros((channels, self.latency_frames), dtype=np.float32)

    def process(self, block: NDArray[np.floating]) -> NDArray[np.float32]:
        """Takes and returns (channels, frames)."""
        ready = np.concatenate([self._ready, self._convolver.process(block)], axis=1)
        self._ready = ready[:, block.shape[1] :].copy()
        return ready[:, : block.shape[1]]
