"""Stereo over frequency: correlation of the lows, and hard panning.

**Hard-panning index.** In third octaves from 300 Hz to 7.6 kHz, over the whole piece: how far left and right differ in
level (mean of the absolute differences in decibels, the largest 30 % of them left out, since one panned instrument fills
a few bands), plus 0.35 times what side over mid exceeds -6 dB by (mean over the bands). With z that sum the index is
``z^4 / (z^4 + 1.6^4)``. Released recordings balance their bands and keep the side under the mid: z is at most 0.9 in
any 20 s (index under 0.1); generated ones push bands to an edge and raise the side to the level of the mid. All are
ratios, so gain does not matter. 0 for one channel; None for silence there. A single stem that is panned reads as such.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis.result import StereoBand
from outboard.audio.spectrum import SpectrumBatch

_LOW_HERTZ = 120.0
_BAND_EDGES_HERTZ = 300.0 * 2.0 ** (np.arange(15) / 3)
_FIELD_EDGES_HERTZ = 150.0 * 2.0 ** (np.arange(21) / 3)
_SILENT_SHARE = 1e-9  # of all bands' energy: a band below it has no width
_SIDE_LIMIT_DB = -6.0
_SIDE_WEIGHT = 0.35
_HALF_INDEX, _STEEPNESS = 1.6, 4
_KEPT_SHARE = 0.7
_FLOOR = 1e-12  # of a band's energy: keeps the ratio of an empty side finite


class StereoSpectrum:
    """Energies of left, right and their product, per third octave and below 120 Hz; needs two channels."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        edges = np.unique(np.ceil(_BAND_EDGES_HERTZ / bin_hertz).astype(int))
        self._edges = edges[edges < bins]
        self._low = np.zeros(3)
        self._bands = np.zeros((3, max(len(self._edges) - 1, 0)))
        self._field_edges = np.ceil(_FIELD_EDGES_HERTZ / bin_hertz).astype(int)
        self._total = np.zeros((3, bins))

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch of two-channel spectra."""
        low = batch.band(0.0, _LOW_HERTZ)
        planes = (batch.powers[0], batch.powers[1], batch.cross)
        for index, plane in enumerate(planes):
            total = plane.sum(axis=0, dtype=np.float64)
            self._low[index] += total[low].sum()
            self._total[index] += total
            if self._bands.shape[1]:
                self._bands[index] += np.add.reduceat(total[: self._edges[-1]], self._edges[:-1])

    @property
    def low_correlation(self) -> float | None:
        """Correlation of left and right below 120 Hz; None where a channel is silent there."""
        energy = float(self._low[0] * self._low[1])
        return max(-1.0, min(1.0, float(self._low[2]) / math.sqrt(energy))) if energy > 0.0 else None

    @property
    def stereo_bands(self) -> tuple[StereoBand, ...]:
        """See the module; a band that is silent, or has no mid signal, is left out."""
        found = []
        everything = float(self._total[:2].sum())
        edges = self._field_edges[self._field_edges < self._total.shape[1]]
        for index in range(len(edges) - 1):
            left, right, product = self._total[:, edges[index] : edges[index + 1]].sum(axis=1)
            mid, side = (left + right + 2 * product) / 4, (left + right - 2 * product) / 4
            if mid <= 1e-6 * side or left + right <= _SILENT_SHARE * everything:
                continue
            ratio_db = 10 * math.log10(max(side, 1e-6 * mid) / mid)
            lean = max(-1.0, min(1.0, float(left - right) / (4 * mid)))
            low, high = _FIELD_EDGES_HERTZ[index : index + 2]
            found.append(StereoBand(float(low), float(high), ratio_db, lean))
        return tuple(found)

    @property
    def hard_panning_index(self) -> float | None:
        """See the module; None for silence between 300 Hz and 7.6 kHz."""
        left, right, product = self._bands
        both = left + right
        heard = both > both.max(initial=0.0) * _FLOOR
        if not heard.any():
            return None
        left, right, product, both = left[heard], right[heard], product[heard], both[heard]
        floor = _FLOOR * both
        difference_db = 10 * np.log10((left + floor) / (right + floor))
        side_db = 10 * np.log10(np.maximum(both - 2 * product, floor) / np.maximum(both + 2 * product, floor))
        # One silent channel is 120 dB of difference: as hard as it gets, wherever the scale ends.
        evidence = _trimmed_mean(np.abs(difference_db)) + _SIDE_WEIGHT * max(
            0.0, float(side_db.mean()) - _SIDE_LIMIT_DB
        )
        return float(evidence**_STEEPNESS / (evidence**_STEEPNESS + _HALF_INDEX**_STEEPNESS))


def _trimmed_mean(values: NDArray[np.float64]) -> float:
    """Mean of the smallest 70 %: one instrument panned to a side fills a few bands, the fault fills most."""
    return float(np.sort(values)[: max(1, round(len(values) * _KEPT_SHARE))].mean())
