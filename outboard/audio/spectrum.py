"""Short-time spectra of a stream, in batches, for what is measured over time and frequency.

Frames of about 85 ms (4096 samples at 48 kHz) under a Hann window, half overlapped; the first begins at the first
sample, the last is filled up with silence. Spectra are scaled so that the squared magnitudes of one frame add up to
the mean square of the windowed frame (Parseval, one-sided): a level in them is a level in the audio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]

_FRAME_SECONDS = 4096 / 48000
_BATCH_FRAMES = 32


@dataclass(frozen=True)
class SpectrumBatch:
    """Successive spectra.

    Attributes:
        spectra: complex64 (channels, frames, bins), bin k at ``k * bin_hertz``.
        bin_hertz: distance of bins.
    """

    spectra: NDArray[np.complex64]
    bin_hertz: float

    @cached_property
    def powers(self) -> Float32Array:
        """Squared magnitudes, (channels, frames, bins)."""
        return self.spectra.real**2 + self.spectra.imag**2

    @cached_property
    def power(self) -> Float32Array:
        """Mean over channels of the squared magnitudes, (frames, bins)."""
        return np.asarray(self.powers.mean(axis=0))

    @cached_property
    def cross(self) -> Float32Array:
        """Real part of left times conjugated right, (frames, bins); needs two channels."""
        left, right = self.spectra
        return np.asarray(left.real * right.real + left.imag * right.imag)

    def band(self, low_hertz: float, high_hertz: float) -> slice:
        """Bins from low (included) to high (excluded)."""
        return slice(math.ceil(low_hertz / self.bin_hertz), math.ceil(high_hertz / self.bin_hertz))


def frame_size(sample_rate_hertz: int) -> int:
    """Samples per frame: the power of two nearest to 85 ms."""
    return int(2 ** round(math.log2(_FRAME_SECONDS * sample_rate_hertz)))


class SpectrumStream:
    """Cuts a stream into spectra; batches do not depend on how the stream was cut."""

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        self.size = frame_size(sample_rate_hertz)
        self.hop = self.size // 2
        self.bin_hertz = sample_rate_hertz / self.size
        window = np.hanning(self.size + 1)[:-1]
        self._window = (window * math.sqrt(2.0 / (self.size * np.sum(window**2)))).astype(np.float32)
        self._pending = np.zeros((channels, (_BATCH_FRAMES + 1) * self.hop), np.float32)
        self._filled = 0
        self._begun = False

    def process(self, block: Float32Array) -> Iterator[SpectrumBatch]:
        """Take a block (channels, frames) and yield the batches that it completes."""
        position = 0
        while position < block.shape[1]:
            count = min(block.shape[1] - position, self._pending.shape[1] - self._filled)
            self._pending[:, self._filled : self._filled + count] = block[:, position : position + count]
            self._filled += count
            position += count
            if self._filled == self._pending.shape[1]:
                yield self._batch(_BATCH_FRAMES)
                self._pending[:, : self.hop] = self._pending[:, -self.hop :]
                self._filled = self.hop
                self._begun = True

    def finish(self) -> Iterator[SpectrumBatch]:
        """Yield what is left, filled up with silence; nothing for an empty stream."""
        if self._filled > (self.hop if self._begun else 0):
            frames = max(1, math.ceil((self._filled - self.hop) / self.hop))
            self._pending[:, self._filled :] = 0.0
            yield self._batch(frames)
        self._filled = 0

    def _batch(self, frames: int) -> SpectrumBatch:
        windows = np.lib.stride_tricks.sliding_window_view(self._pending, self.size, axis=1)[:, :: self.hop]
        spectra = scipy.fft.rfft(windows[:, :frames] * self._window, axis=-1)
        return SpectrumBatch(spectra, self.bin_hertz)
