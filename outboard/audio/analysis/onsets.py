"""How many sounds begin per second.

Per spectrum (every 43 ms) the level of four bands above 200 Hz, each over a floor 40 dB under its mean, so that noise
in pauses begins nothing. An onset is a local maximum of the mean rise of the bands over two spectra (spectral flux on a
logarithmic scale; S. Dixon, *Onset detection revisited*, DAFx 2006) of more than 2 dB. Strokes up to eight a second are
told apart; a ratio of levels, so gain does not matter.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from outboard.audio.spectrum import SpectrumBatch

_EDGES_HERTZ = (200.0, 800.0, 2000.0, 5000.0, 10000.0)
_FLOOR = 1e-4
_RISE_DB = 2.0


class OnsetMeter:
    """Band levels of a stream of spectra: four numbers for each."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        places = [min(math.ceil(edge / bin_hertz), bins) for edge in _EDGES_HERTZ]
        self._bands = [slice(low, high) for low, high in itertools.pairwise(places) if high > low]
        self._levels: list[NDArray[np.float64]] = []

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        sums = [batch.power[:, band].sum(axis=1, dtype=np.float64) for band in self._bands]
        self._levels.append(np.stack(sums, axis=1) if sums else np.zeros((len(batch.power), 0)))

    def per_second(self, seconds: float) -> float | None:
        """Onsets per second of a piece of that length; None where it is silent or shorter than a second."""
        power = np.concatenate(self._levels) if self._levels else np.zeros((0, 0))
        if seconds < 1.0 or len(power) < 5 or not power.any():
            return None
        level_db = 10.0 * np.log10(power + _FLOOR * power.mean(axis=0) + 1e-30)
        rise_db = np.maximum(level_db[2:] - level_db[:-2], 0.0).mean(axis=1)
        inner = rise_db[1:-1]
        begins = (inner >= rise_db[:-2]) & (inner > rise_db[2:]) & (inner > _RISE_DB)
        return float(begins.sum()) / seconds
