"""Stereo over frequency: correlation of the lows, hard panning, and width and place by thirds of an octave.

**Hard-panning index.** In third octaves from 300 Hz to 7.6 kHz, over the whole piece: how far left and right differ in
level (mean of the absolute differences in decibels, the largest 30 % of them left out, since one panned instrument
fills a few bands), plus 0.35 times what side over mid exceeds -6 dB by (mean over the bands). With z that sum the index
is ``z^6 / (z^6 + 1.75^6)``. Released recordings balance their bands and keep the side under the mid: z is at most 1.15
in any 20 s (index under 0.1); generated ones push bands to an edge and raise the side to the level of the mid. All are
ratios, so gain does not matter. 0 for one channel; None for silence there. A single stem that is panned reads as such.

**Stereo bands.** In third octaves from 150 Hz to 15 kHz, over the whole piece: side over mid in decibels, and the lean
``sum Re(S M*) / sum |M|^2``: the least-squares answer to how much of the mid plays at one edge (0 middle, 1 left only,
-1 right only). Reverb and doubled parts widen a band without leaning it.
"""

from __future__ import annotations

import math
from itertools import pairwise

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
_HALF_INDEX, _STEEPNESS = 1.75, 6
_KEPT_SHARE = 0.7
_FLOOR = 1e-12  # of a band's energy: keeps the ratio of an empty side finite


class StereoSpectrum:
    """Energies of left and right and their product, per bin; needs two channels."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        self._bin_hertz = bin_hertz
        self._total = np.zeros((3, bins))

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch of two-channel spectra."""
        for index, plane in enumerate((batch.powers[0], batch.powers[1], batch.cross)):
            self._total[index] += plane.sum(axis=0, dtype=np.float64)

    def _bands(self, edges_hertz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Energies of left, right and their product in the bands that end under Nyquist, (3, bands)."""
        edges = np.ceil(edges_hertz / self._bin_hertz).astype(int)
        edges = edges[edges < self._total.shape[1]]
        sums = [self._total[:, low:high].sum(axis=1) for low, high in pairwise(edges)]
        return np.array(sums).reshape(-1, 3).T

    @property
    def low_correlation(self) -> float | None:
        """Correlation of left and right below 120 Hz; None where a channel is silent there."""
        left, right, product = self._total[:, : math.ceil(_LOW_HERTZ / self._bin_hertz)].sum(axis=1)
        energy = float(left * right)
        return max(-1.0, min(1.0, float(product) / math.sqrt(energy))) if energy > 0.0 else None

    @property
    def stereo_bands(self) -> tuple[StereoBand, ...]:
        """See the module; a band that is silent, or has no mid signal, is left out."""
        found = []
        everything = float(self._total[:2].sum())
        for index, (left, right, product) in enumerate(self._bands(_FIELD_EDGES_HERTZ).T.tolist()):
            mid, side = (left + right + 2 * product) / 4, (left + right - 2 * product) / 4
            if mid <= 1e-6 * side or left + right <= _SILENT_SHARE * everything:
                continue
            ratio_db = 10 * math.log10(max(side, 1e-6 * mid) / mid)
            lean = max(-1.0, min(1.0, (left - right) / (4 * mid)))
            low, high = _FIELD_EDGES_HERTZ[index : index + 2].tolist()
            found.append(StereoBand(low, high, ratio_db, lean))
        return tuple(found)

    @property
    def hard_panning_index(self) -> float | None:
        """See the module; None for silence between 300 Hz and 7.6 kHz."""
        left, right, product = self._bands(_BAND_EDGES_HERTZ)
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
