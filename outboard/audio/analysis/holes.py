"""Spectral-hole ratio: share of the time-frequency plane that a codec or a mask emptied.

The plane from 2 to 16 kHz (or to 93 % of where the local spectrum ends) is cut into cells of one frame by about 190
Hz. A cell is a hole when it lies 20 dB under the mean level, in decibels, of the 9 frames by 5 cells around it, and
those lie within 60 dB of the loudest cell near: music fades and has gaps, but hardly ever in one cell with sound on
all its sides. The ratio is holes over cells counted; levels are relative, so gain does not matter. None for silence
and where the sampling rate is under 8 kHz.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from outboard.audio.spectrum import SpectrumBatch

_PLANE_HERTZ = (2000.0, 16000.0)
_CELL_HERTZ = 190.0
_AROUND = (9, 5)
_DEPTH_DB = 20.0
_REACH_DB = 60.0
_LEAST_CELLS = 8
_EDGE_SHARE = 0.93


class HoleMeter:
    """Counts holes batch by batch."""

    def __init__(self, bin_hertz: float) -> None:
        self._bins = max(1, round(_CELL_HERTZ / bin_hertz))
        self._holes = 0
        self._cells = 0

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        plane = batch.power[:, batch.band(*_PLANE_HERTZ)]
        cells = plane.shape[1] // self._bins
        if cells < _LEAST_CELLS:
            return
        energy = plane[:, : cells * self._bins].reshape(len(plane), cells, self._bins).sum(axis=2)
        mean = energy.mean(axis=0)
        if not mean.any():
            return
        sounding = np.flatnonzero(mean > mean.max() * 10 ** (-_REACH_DB / 10))
        offset = batch.band(*_PLANE_HERTZ).start / self._bins
        end = max(_LEAST_CELLS, int((sounding[-1] + 1 + offset) * _EDGE_SHARE - offset))
        levels_db = 10 * np.log10(energy[:, :end] + 1e-30)
        around_db = scipy.ndimage.uniform_filter(levels_db, _AROUND)
        counted = around_db > levels_db.max() - _REACH_DB
        self._holes += int(np.count_nonzero(counted & (levels_db < around_db - _DEPTH_DB)))
        self._cells += int(np.count_nonzero(counted))

    @property
    def spectral_hole_ratio(self) -> float | None:
        """See the module."""
        return self._holes / self._cells if self._cells else None
