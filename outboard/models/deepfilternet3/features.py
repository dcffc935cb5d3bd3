"""What DeepFilterNet3 sees of the audio: a spectrum every 10 ms, levels of 32 bands, and a normalised low spectrum.

All of it runs from block to block: what a block leaves behind (half a window, running means) is the next one's start,
so blocks may be of any number of hops. Source: libDF of Rikorose/DeepFilterNet (MIT or Apache-2.0), whose numbers these
are: Schröter et al., "DeepFilterNet: Perceptually Motivated Real-Time Speech Enhancement", 2023.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

SAMPLE_RATE_HERTZ = 48_000
HOP_FRAMES = 480
WINDOW_FRAMES = 960
BINS = WINDOW_FRAMES // 2 + 1
BANDS = 32
FILTERED_BINS = 96
"""Bins up to 4.8 kHz, which are filtered over five hops; above, bands get a gain each."""
LOOKAHEAD_HOPS = 2
"""Hops after the present one that the network sees."""

_FEWEST_BINS_PER_BAND = 2
_FORGETTING = 0.99  # a second at 100 hops per second, rounded to three digits as upstream does
_LEVEL_RANGE_DB = 40.0

Audio = NDArray[np.float32]
Spectrum = NDArray[np.complex64]
Features = tuple[Spectrum, NDArray[np.float32], Spectrum]
"""Spectrum (channels, hops, 481), band levels (channels, hops, 32), low spectrum (channels, hops, 96)."""


def window() -> Audio:
    """Vorbis power-complementary window: its square adds up to one at half a window's distance."""
    inner = np.sin(np.pi * (np.arange(WINDOW_FRAMES) + 0.5) / WINDOW_FRAMES)
    return np.sin(0.5 * np.pi * inner**2).astype(np.float32)


def band_widths() -> NDArray[np.int64]:
    """Bins per band, of equal width on the ERB scale (Glasberg and Moore 1990), at least two bins each."""
    lowest, quality = 24.7, 9.265
    highest = quality * np.log1p(SAMPLE_RATE_HERTZ / 2 / (lowest * quality))
    edges_hertz = lowest * quality * np.expm1(highest / BANDS * np.arange(1, BANDS + 1) / quality)
    widths, before, owed = [], 0, 0
    for edge in np.round(edges_hertz / (SAMPLE_RATE_HERTZ / WINDOW_FRAMES)).astype(int):
        width = int(edge) - before - owed
        owed = max(0, _FEWEST_BINS_PER_BAND - width)
        widths.append(max(width, _FEWEST_BINS_PER_BAND))
        before = int(edge)
    widths[-1] += BINS - sum(widths)
    return np.array(widths)


class Analyser:
    """Audio to features.

    Args:
        channels: each is a voice of its own.
    """

    def __init__(self, channels: int) -> None:
        self._window = window()
        self._tail = np.zeros((channels, HOP_FRAMES), np.float32)
        self._widths = band_widths()
        self._starts = np.concatenate([[0], np.cumsum(self._widths)[:-1]])
        self._level = np.tile(np.linspace(-60.0, -90.0, BANDS), (channels, 1))
        self._size = np.tile(np.linspace(1e-3, 1e-4, FILTERED_BINS), (channels, 1))

    def feed(self, audio: Audio) -> Features:
        """Features of the next (channels, whole hops); each window ends with its hop."""
        joined = np.concatenate([self._tail, audio], axis=1)
        self._tail = joined[:, -HOP_FRAMES:].copy()
        frames = np.lib.stride_tricks.sliding_window_view(joined, WINDOW_FRAMES, axis=1)[:, ::HOP_FRAMES]
        spectrum = scipy.fft.rfft(frames * self._window, axis=2) * np.float32(1.0 / WINDOW_FRAMES)
        power = spectrum.real**2 + spectrum.imag**2
        levels_db = 10.0 * np.log10(np.add.reduceat(power, self._starts, axis=2) / self._widths + 1e-10)
        means, self._level = _followed(levels_db, self._level)
        sizes, self._size = _followed(np.abs(spectrum[..., :FILTERED_BINS]), self._size)
        low = spectrum[..., :FILTERED_BINS] / np.sqrt(sizes)
        bands = (levels_db - means) / _LEVEL_RANGE_DB
        return spectrum.astype(np.complex64), bands.astype(np.float32), low.astype(np.complex64)


class Synthesiser:
    """Spectra back to audio, one hop later than they were analysed."""

    def __init__(self, channels: int) -> None:
        self._window = window()
        self._tail = np.zeros((channels, HOP_FRAMES), np.float32)

    def feed(self, spectrum: Spectrum) -> Audio:
        """As many hops of audio (channels, frames) as spectra (channels, hops, bins)."""
        parts = scipy.fft.irfft(spectrum, WINDOW_FRAMES, axis=2) * (self._window * np.float32(WINDOW_FRAMES))
        first, second = parts[..., :HOP_FRAMES], parts[..., HOP_FRAMES:]
        before = np.concatenate([self._tail[:, None], second[:, :-1]], axis=1)
        self._tail = second[:, -1].astype(np.float32)
        return np.asarray((first + before).reshape(spectrum.shape[0], -1), dtype=np.float32)


def _followed(
    values: NDArray[np.floating], state: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The running mean at every hop (channels, hops, ...), and the last one."""
    rest = (_FORGETTING * state)[:, None]
    means, _ = scipy.signal.lfilter(
        [1.0 - _FORGETTING], [1.0, -_FORGETTING], values.astype(np.float64), axis=1, zi=rest
    )
    return means, means[:, -1].copy()
