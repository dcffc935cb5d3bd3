"""Kick or bass: below 300 Hz both are central and hardly parted by the medians, so evidence counts by its own
weights there.

A kick comes suddenly, with a click above it, and is gone; a bass line stays.
"""

from __future__ import annotations

import numpy as np

from services.separator.spectral.bands import POWER_FLOOR, contrast
from services.separator.spectral.grid import Grid
from services.separator.spectral.medians import Plane, median_along_time

# Weight 1 below the first, 0 above the second frequency.
LOW_HERTZ = (100.0, 300.0)
# The band whose level tells kicks, and the half width of the median that is its usual level.
KICK_HERTZ = (30.0, 150.0)
USUAL_HALF_SECONDS = 0.25


def low_weight(grid: Grid) -> Plane:
    """How far a bin belongs to the low end, 0..1, (bins,)."""
    return np.interp(grid.hertz, LOW_HERTZ, (1.0, 0.0)).astype(np.float32)


def low_level(power: Plane, grid: Grid) -> Plane:
    """Power of the kick's band, (steps, 1)."""
    within = (grid.hertz >= KICK_HERTZ[0]) & (grid.hertz <= KICK_HERTZ[1])
    return np.asarray(np.sum(power[:, within], axis=1, keepdims=True) + POWER_FLOOR, dtype=np.float32)


def attack(level: Plane, grid: Grid) -> Plane:
    """Contrast of the low end's level to its median over half a second, -1..1, (steps, 1): positive while a kick
    sounds.
    """
    return contrast(level, median_along_time(level, max(3, grid.steps(USUAL_HALF_SECONDS))))
