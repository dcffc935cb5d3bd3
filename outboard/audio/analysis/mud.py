"""Mud index: a low middle (200 to 500 Hz) that is congested all the time.

Whole-song band shares do not show it: a warm recording and a muddy one have the same. What shows it is persistence.
Per frame of 85 ms, r is the energy at 200 to 500 Hz over that at 500 to 2000 Hz, in decibels; notes and words of a
clean recording leave the low middle again and again, so the tenth percentile of r over the sounding frames (within 30
dB of the mean) is at 1 dB or less, while a congested one stays 3 to 8 dB above its upper neighbour even then. The
index is ``1 / (1 + exp((3.2 - r10) / 0.9))``, weighed down where the energy at 60 to 200 Hz is over 14 dB above the
band's (a bass sounds there, and nothing is congested). Ratios, so gain does not matter. On a single stem it says
where the instrument plays as much as how congested it is: compare stems of one role.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from outboard.audio.spectrum import SpectrumBatch

_BAND_HERTZ = (200.0, 500.0)
_ABOVE_HERTZ = (500.0, 2000.0)
_BELOW_HERTZ = (60.0, 200.0)
_ACTIVE_POWER = 1e-3
_PERCENTILE = 10.0
_HALF_INDEX_DB, _WIDTH_DB = 3.2, 0.9
_BASS_OVER_BAND_DB, _BASS_WIDTH_DB = 14.0, 2.0
_FLOOR = 1e-12


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-60.0, min(60.0, value))))


class MudMeter:
    """Collects three numbers per frame (24 frames a second at 48 kHz)."""

    def __init__(self) -> None:
        self._power = array("f")
        self._over_above_db = array("f")
        self._below_over_db = array("f")

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        total = batch.power.sum(axis=1)
        band, above, below = (_energy(batch, edges, total) for edges in (_BAND_HERTZ, _ABOVE_HERTZ, _BELOW_HERTZ))
        self._power.extend(total)
        self._over_above_db.extend(10 * np.log10(band / above))
        self._below_over_db.extend(10 * np.log10(below / band))

    @property
    def mud_index(self) -> float | None:
        """See the module; None for silence."""
        power = np.array(self._power)
        active = power > _ACTIVE_POWER * power.mean() if len(power) else np.zeros(0, bool)
        if not active.any():
            return None
        persistent_db = float(np.percentile(np.array(self._over_above_db)[active], _PERCENTILE))
        bass_db = float(np.median(np.array(self._below_over_db)[active]))
        congested = _logistic((persistent_db - _HALF_INDEX_DB) / _WIDTH_DB)
        return congested * _logistic((_BASS_OVER_BAND_DB - bass_db) / _BASS_WIDTH_DB)


def _energy(batch: SpectrumBatch, edges_hertz: tuple[float, float], total: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energy of a band per frame, with a floor relative to the frame that keeps ratios finite."""
    return np.asarray(batch.power[:, batch.band(*edges_hertz)].sum(axis=1) + _FLOOR * total + 1e-30)
