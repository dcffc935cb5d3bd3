"""Mud index: a low middle (200 to 500 Hz) that is congested all the time.

Shares of the whole song's energy do not show it: a warm recording and a muddy one have the same. What shows it is the
excess over the close neighbours, and that it persists. Levels of bands are taken per octave (pink). Per frame of 85 ms:

- e: level at 220 to 450 Hz over the mean level, in decibels, of 90 to 180 Hz and 550 to 1100 Hz;
- r: level at 220 to 450 Hz over that at 500 to 2000 Hz. Notes and words of a clean recording leave the low middle again
  and again, so its tenth percentile is low; a congested one stays above even then.

Over the sounding frames (within 30 dB of the mean), ``z = median(e) + 0.2 max(p10(r), -8 dB)``; the index is
``1 / (1 + exp(9.3 - z))``. Released recordings have z of -0.2 to 7 in any 20 s (index under 0.1); raising the band by 6
to 8 dB adds 6 to 8. Ratios, so gain does not matter. On a single stem it says where the instrument plays as
much as how congested it is: compare stems of one role.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from numpy.typing import NDArray

from outboard.audio.spectrum import SpectrumBatch

_Float32Array = NDArray[np.float32]

_BAND_HERTZ = (220.0, 450.0)
_BELOW_HERTZ = (90.0, 180.0)
_ABOVE_HERTZ = (550.0, 1100.0)
_FAR_ABOVE_HERTZ = (500.0, 2000.0)
_ACTIVE_POWER = 1e-3
_PERSISTENT_PERCENTILE = 10.0
_PERSISTENT_WEIGHT, _PERSISTENT_FLOOR_DB = 0.2, -8.0
_HALF_INDEX_DB, _WIDTH_DB = 9.3, 1.0
_FLOOR = 1e-12


class MudMeter:
    """Collects three numbers per frame (24 frames a second at 48 kHz)."""

    def __init__(self) -> None:
        self._power = array("f")
        self._excess_db = array("f")
        self._over_far_db = array("f")

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        total = batch.power.sum(axis=1)
        band, below, above, far = (
            _level_db(batch, edges, total) for edges in (_BAND_HERTZ, _BELOW_HERTZ, _ABOVE_HERTZ, _FAR_ABOVE_HERTZ)
        )
        self._power.extend(total)
        self._excess_db.extend(band - (below + above) / 2)
        self._over_far_db.extend(band - far)

    @property
    def mud_index(self) -> float | None:
        """See the module; None for silence."""
        power = np.array(self._power)
        active = power > _ACTIVE_POWER * power.mean() if len(power) else np.zeros(0, bool)
        if not active.any():
            return None
        excess_db = float(np.median(np.array(self._excess_db)[active]))
        persistent_db = float(np.percentile(np.array(self._over_far_db)[active], _PERSISTENT_PERCENTILE))
        evidence_db = excess_db + _PERSISTENT_WEIGHT * max(persistent_db, _PERSISTENT_FLOOR_DB)
        return 1.0 / (1.0 + math.exp(min((_HALF_INDEX_DB - evidence_db) / _WIDTH_DB, 100.0)))


def _level_db(
    batch: SpectrumBatch, edges_hertz: tuple[float, float], total: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Level per octave of a band per frame, in decibels, with a floor relative to the frame."""
    density = batch.power[:, batch.band(*edges_hertz)].mean(axis=1) * math.sqrt(edges_hertz[0] * edges_hertz[1])
    return np.asarray(10 * np.log10(density + _FLOOR * total + 1e-30))
