"""Width and place of a song band by band: what a whole-song correlation hides, and what a console can mend.

For every third of an octave, over the whole length, from the short-time spectra of mid and side:

    mid_side_ratio_db = 10 log10(sum |S|^2 / sum |M|^2)
    lean              = sum Re(S M*) / sum |M|^2

``lean`` is the least-squares answer to "how much of the side is the mid leaning to one edge": 0 in the middle, 1 a
band that plays on the left only, -1 on the right only. Reverb and doubled parts widen a band without leaning it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.stereo import mid_side

LOWEST_EDGE_HERTZ = 150.0
HIGHEST_EDGE_HERTZ = 16_000.0
_FFT_FRAMES = 4096
# Bands whose mid and side together are this far below the whole say nothing.
_SILENT_SHARE = 1e-9


@dataclass(frozen=True)
class StereoBand:
    """Width and place of one band.

    Attributes:
        low_hertz: lower edge.
        high_hertz: upper edge.
        mid_side_ratio_db: energy of side over mid, held within ±60 dB.
        lean: -1 right to 1 left; 0 in the middle.
    """

    low_hertz: float
    high_hertz: float
    mid_side_ratio_db: float
    lean: float


def band_edges_hertz(sample_rate_hertz: int) -> NDArray[np.float64]:
    """Edges of the bands: thirds of an octave from 150 Hz, up to 16 kHz or just under Nyquist."""
    highest = min(HIGHEST_EDGE_HERTZ, 0.48 * sample_rate_hertz)
    count = math.floor(3.0 * math.log2(highest / LOWEST_EDGE_HERTZ))
    edges: NDArray[np.float64] = LOWEST_EDGE_HERTZ * 2.0 ** (np.arange(count + 1) / 3.0)
    return edges


class StereoBandMeter:
    """Gathers the energies block by block; half-overlapping Hann windows of 4096 frames, whatever the blocks' sizes."""

    def __init__(self, sample_rate_hertz: int) -> None:
        self._edges = band_edges_hertz(sample_rate_hertz)
        bins = np.fft.rfftfreq(_FFT_FRAMES, 1.0 / sample_rate_hertz)
        self._starts = np.searchsorted(bins, self._edges)
        self._window = np.hanning(_FFT_FRAMES)
        self._kept = np.zeros((2, 0))
        self._energies = np.zeros((3, _FFT_FRAMES // 2 + 1))  # mid, side, cross

    def process(self, block: NDArray[np.floating]) -> None:
        """Take in a stereo block ``(2, frames)``."""
        joined = np.concatenate([self._kept, mid_side(block)], axis=1)
        hop = _FFT_FRAMES // 2
        start = 0
        while start + _FFT_FRAMES <= joined.shape[1]:
            mid, side = np.fft.rfft(joined[:, start : start + _FFT_FRAMES] * self._window)
            self._energies[0] += np.abs(mid) ** 2
            self._energies[1] += np.abs(side) ** 2
            self._energies[2] += (side * np.conj(mid)).real
            start += hop
        self._kept = joined[:, start:]

    def bands(self) -> tuple[StereoBand, ...]:
        """The bands so far; a silent one, or one without a mid signal, is left out."""
        found = []
        total = float(self._energies[:2].sum())
        for k in range(len(self._edges) - 1):
            mid, side, cross = self._energies[:, self._starts[k] : self._starts[k + 1]].sum(axis=1)
            if mid <= 0.0 or mid + side <= _SILENT_SHARE * total:
                continue
            ratio_db = 10.0 * math.log10(max(side, 1e-6 * mid) / mid)
            lean = min(max(cross / mid, -1.0), 1.0)
            found.append(StereoBand(float(self._edges[k]), float(self._edges[k + 1]), min(ratio_db, 60.0), float(lean)))
        return tuple(found)


def stereo_bands(blocks: Iterable[NDArray[np.floating]], sample_rate_hertz: int) -> tuple[StereoBand, ...]:
    """The bands of a whole stereo stream, given as blocks ``(2, frames)``."""
    meter = StereoBandMeter(sample_rate_hertz)
    for block in blocks:
        meter.process(block)
    return meter.bands()
