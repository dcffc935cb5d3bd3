"""Weights under which a steady tone is heard between strokes: the inverse of the power around it, moment by moment.

Of something constant in noise whose power changes, the best linear estimate weights every moment by the inverse of that
power (Gauss-Markov). So short spectra, a sixteenth of a look of :mod:`outboard.audio.grid_tones` each (43 ms), are
divided by the mean power of the bins around: a stroke counts for next to nothing, and what sounds between strokes, or
while a note rests, for nearly all. Where a tone is the loudest thing around, all moments count alike.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage

Audio = NDArray[np.float32]
Spectra = NDArray[np.complex64]
Weights = NDArray[np.float64]

SHORT_FRAMES_PER_LOOK = 16
_OVERLAP = 4
_HANN_SQUARES = 1.5  # the sum of squared Hann windows a quarter of their length apart
_AROUND_BINS = 64  # on either side, 1.5 kHz: strokes are broad, and partials that beat are no strokes
_OF_DC_BINS = 2  # filled by a constant offset, which is no sound
_SILENT = 1e-12  # mean square of a short frame; and below the loudest by 90 dB
_LEAST = 1e-12  # of a frame's loudest bin: what a running sum can tell


def short_window(size: int) -> Audio:
    """A periodic Hann window: copies half a window apart add up to 1."""
    return np.hanning(size + 1)[:-1].astype(np.float32)


def short_spectra(part: Audio, size: int, hop: int) -> Spectra:
    """(channels, moments, size // 2 + 1), the first of them of the first `size` frames."""
    frames = np.lib.stride_tricks.sliding_window_view(part, size, axis=1)[:, ::hop]
    return np.asarray(scipy.fft.rfft(frames * short_window(size), axis=-1), dtype=np.complex64)


def calm_weights(spectra: Spectra) -> Weights:
    """Of every moment and bin, the same for all channels, (moments, bins): 0 in silence, where no tone is."""
    power: Weights = np.asarray(np.mean(spectra.real**2 + spectra.imag**2, axis=0, dtype=np.float64))
    around = ndimage.uniform_filter1d(power, 2 * _AROUND_BINS + 1, axis=1, mode="nearest")
    around = np.maximum(around, _LEAST * np.max(power, axis=1, keepdims=True))
    # Parseval: a Hann window holds 3/8 of the power.
    size = 2 * (power.shape[1] - 1)
    mean_squares = 2.0 * np.sum(power[:, _OF_DC_BINS:], axis=1) / (0.375 * size**2)
    sounds = mean_squares > max(_SILENT, 1e-9 * float(np.max(mean_squares, initial=0.0)))
    return np.where(sounds[:, None], 1.0 / np.maximum(around, np.finfo(np.float64).tiny), 0.0)


def calmed(part: Audio, window: Audio) -> tuple[Audio, Weights]:
    """A look with its strokes turned down, and by how much a steady tone was turned down with them.

    Args:
        part: (channels, frames of a look).
        window: (frames of a look,), under which the result is looked at.

    Returns:
        The look, and for every bin of a short spectrum the mean gain under the window, above 0 and at most 1.
    """
    size = part.shape[1] // SHORT_FRAMES_PER_LOOK
    hop = size // _OVERLAP
    edge = size - hop  # of what is read twice, so that every sample lies in as many short frames
    spectra = short_spectra(np.pad(part, ((0, 0), (edge, edge)), mode="reflect"), size, hop)
    weights = calm_weights(spectra)
    loudest = np.max(weights, axis=0)
    gains = np.divide(weights, loudest, out=np.ones_like(weights), where=loudest > 0).astype(np.float32)
    # Faded a second time: what a gain that differs from bin to bin rings on for would click at every frame's end.
    fade = short_window(size)
    pieces = scipy.fft.irfft(spectra * gains, n=size, axis=-1) * (fade / _HANN_SQUARES)
    result = np.zeros((part.shape[0], part.shape[1] + 2 * edge), np.float32)
    for number in range(gains.shape[0]):
        result[:, number * hop : number * hop + size] += pieces[:, number]
    under = np.lib.stride_tricks.sliding_window_view(np.pad(window, edge), size)[::hop] @ fade**2
    return result[:, edge : edge + part.shape[1]], np.asarray((under / np.sum(under)) @ gains, dtype=np.float64)
