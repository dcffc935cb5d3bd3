"""Takes away tones of known frequencies: one narrow notch each, as deep as the tone is sure, and nothing else.

This is the adaptive notch with a reference of known frequency (Widrow and others, "Adaptive noise cancelling",
Proc. IEEE 63, 1975), without delay. A tone's amplitude and phase are measured in blocks of a third of a second, as the
mean of short spectra under the weights of :mod:`outboard.audio.calm_weights`: strokes do not spoil it, and a tone that
follows the music's level is taken for as soft as it is between them. Of the eight blocks around it is the median, each
as heavy as its weights, which a note that passes through does not move. How far the blocks differ tells how far the
median errs: it is taken for softer by three times its variance over its power, and one that is not surer than that, or
louder than a tone may be, is left where it is, so a stem does not end further away for it.

A block in which the tone is softer (the stem was cut to silence there) loses no more than it has. Blocks lie at fixed
places, so the result does not depend on where reading begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.calm_weights import SHORT_FRAMES_PER_LOOK, calm_weights, short_spectra
from outboard.audio.grid_tones import look_frames

Audio = NDArray[np.float32]
Amplitudes = NDArray[np.complex128]
Reals = NDArray[np.float64]
Read = Callable[[int, int], Audio]
"""float32 (channels, frames) from a first frame on, which may be negative; silence past the ends."""

_BLOCKS_BEFORE, _BLOCKS_AFTER = 3, 4  # of a window's first block: 2.7 s about its middle
_MEASURED_BINS = 2  # of a short spectrum, on either side
_WRITTEN_BINS = 12  # on either side: what a Hann window leaves out there lies 80 dB below the tone
_OVERLAP = 4  # of short spectra: tones half their width apart do not add to each other
_DOUBT = 3.0  # times its variance a tone is taken for softer
_OF_A_MEDIAN = np.pi / 2.0  # its variance against that of a mean
_KEPT_BLOCKS = 16  # reading goes forward, with looks back of a few windows


class ToneRemover:
    """The tones of one stem, by position.

    Args:
        read: of the stem.
        frames: of the stem, at least one window.
        sample_rate_hertz: of the stem.
        hertz: of the tones, at least twelve bins (17 Hz) apart.
        amount: 0 (nothing) to 1 (all of them).
        most_amplitude: what is louder is no tone.
    """

    def __init__(
        self,
        read: Read,
        frames: int,
        sample_rate_hertz: int,
        hertz: tuple[float, ...],
        amount: float,
        most_amplitude: float = np.inf,
    ) -> None:
        self._read = read
        self._frames = frames
        self._amount = amount
        self._most_amplitude = most_amplitude
        self._size = look_frames(sample_rate_hertz)
        self._hop = self._size // 2
        self._last = frames // self._hop - 1
        self._bins = np.array(hertz) * self._size / sample_rate_hertz
        self._shape = _tone_spectra(self._bins, self._size, _WRITTEN_BINS)
        self._near = _bins_around(self._bins, _WRITTEN_BINS)
        self._short = self._size // SHORT_FRAMES_PER_LOOK
        short_bins = self._bins / SHORT_FRAMES_PER_LOOK
        shape = _tone_spectra(short_bins, self._short, _MEASURED_BINS)
        # Least squares over the bins around, twice because a real tone has half its amplitude there.
        self._fit = 2.0 * shape.conj() / np.sum(np.abs(shape) ** 2, axis=1, keepdims=True)
        self._short_near = _bins_around(short_bins, _MEASURED_BINS)
        self._blocks: dict[int, tuple[Amplitudes, Reals]] = {}
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
            steady = 0.5 * self._amount * self._steady(number) * self._turned(np.array(number * self._hop))
            spectrum = np.zeros((steady.shape[0], self._size // 2 + 1), np.complex128)
            for place in range(2 * _WRITTEN_BINS + 1):  # no two tones have a bin in the same place
                spectrum[:, self._near[:, place]] += steady * self._shape[:, place]
            self._pieces[number] = scipy.fft.irfft(spectrum, n=self._size, axis=-1).astype(np.float32)
            _forget(self._pieces, number)
        return self._pieces[number]

    def _steady(self, number: int) -> Amplitudes:
        """(channels, tones): what is sure of each in one window, no louder than the window itself is."""
        first = max(0, min(number - _BLOCKS_BEFORE, self._last - _BLOCKS_BEFORE - _BLOCKS_AFTER))
        around = range(first, min(self._last, first + _BLOCKS_BEFORE + _BLOCKS_AFTER) + 1)
        sums = np.stack([self._block(one)[0] for one in around])
        weights = np.stack([self._block(one)[1] for one in around])[:, None, :]
        each = sums / np.where(weights > 0, weights, 1.0)
        middle = _weighted_median(each.real, weights) + 1j * _weighted_median(each.imag, weights)
        shares = weights / np.maximum(np.sum(weights, axis=0), np.finfo(np.float64).tiny)
        count = np.maximum(2, np.sum(weights > 0, axis=0))
        variance = np.sum(shares**2 * np.abs(each - middle) ** 2, axis=0) * _OF_A_MEDIAN * count / (count - 1)
        power = np.maximum(np.abs(middle) ** 2, np.finfo(np.float64).tiny)
        sure = middle * np.maximum(0.0, 1.0 - _DOUBT * variance / power)
        sure[np.abs(middle) > self._most_amplitude] = 0.0
        here = [self._block(min(max(one, 0), self._last)) for one in (number, number + 1)]
        heard = np.abs(here[0][0] + here[1][0])
        most = heard / np.maximum(here[0][1] + here[1][1], np.finfo(np.float64).tiny)
        return np.asarray(sure * np.minimum(1.0, most / np.maximum(np.abs(sure), 1e-30)))

    def _block(self, number: int) -> tuple[Amplitudes, Reals]:
        """Weighted sum (channels, tones) over the short spectra of one block, the phase as at frame 0; the weights."""
        if number not in self._blocks:
            hop = self._short // _OVERLAP
            starts = np.arange(number * self._hop, (number + 1) * self._hop, hop) - self._short // 2
            frames = int(starts[-1] - starts[0]) + self._short
            spectra = short_spectra(self._read(int(starts[0]), frames), self._short, hop)
            weights = calm_weights(spectra)[:, self._short_near[:, _MEASURED_BINS]]
            weights[(starts < 0) | (starts + self._short > self._frames)] = 0.0
            turns = weights * self._turned(starts[:, None]).conj()
            fitted = np.zeros((spectra.shape[0], self._bins.size), np.complex128)
            for place in range(2 * _MEASURED_BINS + 1):
                near = spectra[:, :, self._short_near[:, place]]
                fitted += np.einsum("cmt,mt->ct", near, turns) * self._fit[:, place]
            self._blocks[number] = fitted, np.sum(weights, axis=0)
            _forget(self._blocks, number)
        return self._blocks[number]

    def _turned(self, frame: NDArray[np.int64]) -> Amplitudes:
        """How far the phase of each tone has come at a frame."""
        return np.asarray(np.exp(2j * np.pi * ((frame * (self._bins / self._size)) % 1.0)))


def _bins_around(bins: Reals, reach: int) -> NDArray[np.int64]:
    """(tones, bins): the nearest bin and those on either side."""
    return np.round(bins).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)


def _weighted_median(values: Reals, weights: Reals) -> Reals:
    """Along the first axis: the value at which half of the weights is reached."""
    order = np.argsort(values, axis=0, kind="stable")
    reached = np.cumsum(np.take_along_axis(np.broadcast_to(weights, values.shape), order, axis=0), axis=0)
    place = np.argmax(reached >= 0.5 * reached[-1], axis=0)
    return np.asarray(np.take_along_axis(values, np.take_along_axis(order, place[None], axis=0), axis=0)[0])


def _tone_spectra(bins: Reals, size: int, reach: int) -> Amplitudes:
    """Spectra of ``exp(2j pi b t / size)`` under a periodic Hann window, at the bins around each b: (tones, bins)."""
    distance = _bins_around(bins, reach) - bins[:, None]

    def rectangle(u: Reals) -> Amplitudes:
        below = 1.0 - np.exp(-2j * np.pi * u / size)
        is_zero = np.abs(below) < 1e-15
        return np.asarray(np.where(is_zero, size, (1.0 - np.exp(-2j * np.pi * u)) / np.where(is_zero, 1.0, below)))

    return 0.5 * rectangle(distance) - 0.25 * (rectangle(distance - 1.0) + rectangle(distance + 1.0))


def _forget(kept: dict[int, Any], number: int) -> None:
    """What lies too far back to be asked for again."""
    for old in [one for one in kept if one < number - _KEPT_BLOCKS]:
        del kept[old]
