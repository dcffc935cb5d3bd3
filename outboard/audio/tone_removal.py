"""Takes away tones of known frequencies that go on at a steady level: one narrow notch each, and nothing else.

This is the adaptive notch with a reference of known frequency (Widrow and others, "Adaptive noise cancelling",
Proc. IEEE 63, 1975), without delay: the tone's amplitude and phase are measured in windows of two thirds of a second
(Hann, half overlapped) by least squares over the five bins around it, and taken as the median over nine windows, which
a note that passes through does not move; then that tone is subtracted. A window in which the tone is softer (the stem
was cut to silence there) loses no more than it has. Windows lie at fixed places, so the result does not depend on where
reading begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.grid_tones import look_frames

Audio = NDArray[np.float32]
Amplitudes = NDArray[np.complex128]
Read = Callable[[int, int], Audio]
"""float32 (channels, frames) from a first frame on, which may be negative; silence past the ends."""

_AROUND = 4  # windows on either side over which the median is taken
_MEASURED_BINS = 2  # on either side
_WRITTEN_BINS = 12  # on either side: what a Hann window leaves out there lies 80 dB below the tone


class ToneRemover:
    """The tones of one stem, by position.

    Args:
        read: of the stem.
        frames: of the stem, at least one window.
        sample_rate_hertz: of the stem.
        hertz: of the tones, at least six bins (9 Hz) apart.
        amount: 0 (nothing) to 1 (all of them).
    """

    def __init__(
        self, read: Read, frames: int, sample_rate_hertz: int, hertz: tuple[float, ...], amount: float
    ) -> None:
        self._read = read
        self._amount = amount
        self._size = look_frames(sample_rate_hertz)
        self._hop = self._size // 2
        self._count = (frames - self._size) // self._hop + 1
        self._bins = np.array(hertz) * self._size / sample_rate_hertz
        self._window = np.hanning(self._size + 1)[:-1].astype(np.float32)
        self._shape = _tone_spectra(self._bins, self._size, _WRITTEN_BINS)
        self._near = np.round(self._bins).astype(np.int64)[:, None] + np.arange(-_WRITTEN_BINS, _WRITTEN_BINS + 1)
        self._measured: dict[int, Amplitudes] = {}
        self._pieces: dict[int, Audio] = {}

    def tones(self, start: int, frames: int) -> Audio:
        """What to subtract, (channels, frames) from a first frame on, which may be negative."""
        first = start // self._hop - 1
        last = (start + frames - 1) // self._hop
        pieces = [self._piece(number) for number in range(first, last + 1)]
        total = np.zeros((pieces[0].shape[0], (len(pieces) + 1) * self._hop), np.float32)
        for place, piece in enumerate(pieces):
            total[:, place * self._hop : place * self._hop + self._size] += piece
        skipped = start - first * self._hop
        return total[:, skipped : skipped + frames]

    def _piece(self, number: int) -> Audio:
        """The tones of one window, faded in and out by it."""
        if number not in self._pieces:
            steady = self._steady(number) * self._turned(number)
            spectrum = np.zeros((steady.shape[0], self._size // 2 + 1), np.complex128)
            for tone in range(self._bins.size):
                spectrum[:, self._near[tone]] += 0.5 * steady[:, tone, None] * self._shape[tone]
            piece = scipy.fft.irfft(self._amount * spectrum, n=self._size, axis=-1)
            self._pieces[number] = piece.astype(np.float32)
            _forget(self._pieces, number)
        return self._pieces[number]

    def _steady(self, number: int) -> Amplitudes:
        """(channels, tones): the median over the windows around, no louder than the window itself is."""
        inside = min(max(number, 0), self._count - 1)
        around = range(max(0, inside - _AROUND), min(self._count, inside + _AROUND + 1))
        several = np.stack([self._amplitudes(one) for one in around])
        middle = np.median(several.real, axis=0) + 1j * np.median(several.imag, axis=0)
        here = np.abs(self._amplitudes(inside))
        return np.asarray(middle * np.minimum(1.0, here / np.maximum(np.abs(middle), 1e-30)))

    def _amplitudes(self, number: int) -> Amplitudes:
        """(channels, tones): amplitude and phase in one window, the phase as it would be at the stem's beginning."""
        if number not in self._measured:
            spectra = scipy.fft.rfft(self._read(number * self._hop, self._size) * self._window, axis=-1)
            middle = slice(_WRITTEN_BINS - _MEASURED_BINS, _WRITTEN_BINS + _MEASURED_BINS + 1)
            shape = self._shape[:, middle]
            fitted = np.sum(spectra[:, self._near[:, middle]] * shape.conj(), axis=2) / np.sum(
                np.abs(shape) ** 2, axis=1
            )
            self._measured[number] = 2.0 * fitted * self._turned(number).conj()
            _forget(self._measured, number)
        return self._measured[number]

    def _turned(self, number: int) -> Amplitudes:
        """(tones,): how far the phase of each has come at the beginning of a window."""
        turns = self._bins * (number * self._hop / self._size)
        return np.asarray(np.exp(2j * np.pi * (turns % 1.0)))


def _tone_spectra(bins: NDArray[np.float64], size: int, reach: int) -> Amplitudes:
    """Spectra of ``exp(2j pi b t / size)`` under a periodic Hann window, at the bins around each b: (tones, bins)."""
    distance = np.round(bins)[:, None] + np.arange(-reach, reach + 1) - bins[:, None]

    def rectangle(u: NDArray[np.float64]) -> Amplitudes:
        below = 1.0 - np.exp(-2j * np.pi * u / size)
        is_zero = np.abs(below) < 1e-15
        return np.asarray(np.where(is_zero, size, (1.0 - np.exp(-2j * np.pi * u)) / np.where(is_zero, 1.0, below)))

    return 0.5 * rectangle(distance) - 0.25 * (rectangle(distance - 1.0) + rectangle(distance + 1.0))


def _forget(kept: dict[int, Any], number: int) -> None:
    """Reading goes forward, with looks back of a few windows."""
    for old in [one for one in kept if one < number - 4 * _AROUND]:
        del kept[old]
