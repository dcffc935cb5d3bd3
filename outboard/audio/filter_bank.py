"""A linear-phase filter bank for streams: bands that add up to the input exactly, at the cost of one transform each.

Band magnitudes are raised cosines over log frequency, an octave wide around every split, whose sum is 1 at every
frequency; designing by windowing is linear, so the sum of the bands' taps is a unit impulse and the sum of the bands
is the input (to rounding). Symmetric taps delay every frequency equally and the bank takes that delay out: a gain that
moves on one band shifts no phase against the others, which Linkwitz-Riley bands do.

Convolution is by overlap-save (Stockham 1966) in single precision (rounding below -120 dB of the largest sample).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Kernels = NDArray[np.float64]

BAND_TAPS_SECONDS = 0.043
"""Length of the band filters: resolves a split at 120 Hz."""

_GRID_PER_TAP = 4
_FFT_PER_TAP = 4
_SMALLEST_FFT = 16_384  # shorter ones cost more in calls than they save in operations


def band_taps(splits_hertz: Sequence[float], sample_rate_hertz: int) -> NDArray[np.float64]:
    """Taps of the bands between rising split frequencies.

    Returns:
        (splits + 1, n) float64 with n odd, each row symmetric; the rows add up to a unit impulse.

    Raises:
        ValueError: splits that do not rise or lie at or above Nyquist.
    """
    splits = np.asarray(splits_hertz, dtype=np.float64)
    if not splits.size or np.any(np.diff(splits) <= 0.0) or splits[0] <= 0.0 or splits[-1] >= 0.5 * sample_rate_hertz:
        raise ValueError(f"splits must rise between 0 and {0.5 * sample_rate_hertz} Hz: {list(splits_hertz)}")
    taps = 2 * round(0.5 * BAND_TAPS_SECONDS * sample_rate_hertz) + 1
    size = scipy.fft.next_fast_len(_GRID_PER_TAP * taps, real=True)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1.0 / sample_rate_hertz), 1e-3))
    above = [0.5 - 0.5 * np.cos(np.pi * np.clip(octaves - np.log2(split) + 0.5, 0.0, 1.0)) for split in splits]
    edges = [np.ones_like(octaves), *above, np.zeros_like(octaves)]
    half, window = taps // 2, np.hanning(taps + 2)[1:-1]
    rows = []
    for low, high in itertools.pairwise(edges):
        response = scipy.fft.irfft(low - high, n=size)
        rows.append(window * np.concatenate([response[-half:], response[: half + 1]]))
    return np.array(rows)


class FilterBank:
    """Convolves a stream with several symmetric filters at once, delay taken out.

    Args:
        kernels: (bands, channels, n) with n odd; a channel axis of 1 serves all channels.
        channels: of the stream.
    """

    def __init__(self, kernels: Kernels, channels: int) -> None:
        if kernels.ndim != 3 or kernels.shape[2] % 2 == 0 or kernels.shape[1] not in (1, channels):
            raise ValueError(f"expected kernels (bands, 1 or {channels}, odd number of taps), got {kernels.shape}")
        taps = kernels.shape[2]
        self._half = taps // 2
        self._size = scipy.fft.next_fast_len(max(_SMALLEST_FFT, _FFT_PER_TAP * taps), real=True)
        self._hop = self._size - taps + 1
        self._spectra = scipy.fft.rfft(kernels, n=self._size, axis=-1).astype(np.complex64)
        self._held = np.zeros((channels, self._half), dtype=np.float32)
        self._owed = 0

    def process(self, block: NDArray[np.float32], last: bool = False) -> Iterator[NDArray[np.float32]]:
        """Takes (channels, n) frames and yields (bands, channels, m) pieces as they are ready; `last` yields the rest.

        All pieces together have as many frames as all blocks, and do not depend on how the stream was cut.
        """
        self._owed += block.shape[1]
        pieces = [self._held, block.astype(np.float32, copy=False)]
        if last:
            pieces.append(np.zeros((block.shape[0], self._half + self._size), dtype=np.float32))
        waiting = np.concatenate(pieces, axis=1)
        start = 0
        while waiting.shape[1] - start >= self._size and self._owed:
            done = self._convolved(waiting[:, start : start + self._size])[..., : self._owed]
            self._owed -= done.shape[-1]
            start += self._hop
            yield done
        self._held = waiting[:, start:].copy()

    def _convolved(self, segment: NDArray[np.float32]) -> NDArray[np.float32]:
        """The valid part of every band, (bands, channels, hop)."""
        silent = ~segment.any(axis=1)
        spectrum = scipy.fft.rfft(segment[~silent], axis=1)
        spectra = self._spectra if self._spectra.shape[1] == 1 else self._spectra[:, ~silent]
        done: NDArray[np.float32] = scipy.fft.irfft(spectrum * spectra, n=self._size, axis=-1)
        done = done[..., self._size - self._hop :]
        if not silent.any():  # the side of a mono song costs nothing
            return done
        whole = np.zeros((done.shape[0], segment.shape[0], done.shape[2]), np.float32)
        whole[:, ~silent] = done
        return whole
