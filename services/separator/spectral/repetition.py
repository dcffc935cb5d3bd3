"""What was there before and comes again: accompaniment stays or repeats, a lead voice seldom does.

Soft evidence only. Taken as a mask by itself, repetition (REPET-SIM; Rafii & Pardo 2012) does more harm than good.
"""

from __future__ import annotations

import numpy as np

from services.separator.spectral.bands import POWER_FLOOR, contrast
from services.separator.spectral.grid import Grid
from services.separator.spectral.medians import Plane, median_of_five

# Share of the surrounding seconds in which a bin is quieter than its background level.
BACKGROUND_QUANTILE = 0.3
BACKGROUND_STRIDE = 4
# Bands of the fingerprint by which moments are compared, and how many like moments are taken.
FINGERPRINT_BANDS = 72
LIKE_MOMENTS = 5
# Moments closer than this are alike for trivial reasons.
APART_SECONDS = 0.25
# Bands further below the mean of all do not count in a fingerprint.
FINGERPRINT_FLOOR = 1e-7


def novelty(power: Plane, surroundings: Plane) -> Plane:
    """Contrast of each bin to its background, the level that it seldom falls below in the surrounding seconds, -1..1.

    Args:
        power: (steps, bins).
        surroundings: (more steps, bins), the seconds around and including them.
    """
    sparse = surroundings[::BACKGROUND_STRIDE]
    rank = int(len(sparse) * BACKGROUND_QUANTILE)
    return contrast(power, np.partition(sparse, rank, axis=0)[rank][None])


def fingerprint(power: Plane) -> Plane:
    """Band powers of each step on a roughly logarithmic scale, (steps, bands)."""
    edges = np.unique(np.round(np.geomspace(3, power.shape[1] - 1, FINGERPRINT_BANDS)).astype(np.intp))
    return np.asarray(np.add.reduceat(power, edges, axis=1), dtype=np.float32)


def recurrence(surroundings: Plane, fingerprints: Plane, first: int, count: int, grid: Grid) -> Plane:
    """Contrast of each bin to the median over the most similar other moments of the surrounding seconds, -1..1.

    Args:
        surroundings: (steps, bins).
        fingerprints: (steps, bands), of the same steps.
        first, count: the steps of interest.
    """
    shape = np.log(fingerprints + FINGERPRINT_FLOOR * np.mean(fingerprints) + POWER_FLOOR)
    shape -= np.mean(shape, axis=0)
    shape /= np.linalg.norm(shape, axis=1, keepdims=True) + 1e-9
    likeness = shape[first : first + count] @ shape.T
    distance = np.abs(np.arange(first, first + count)[:, None] - np.arange(len(shape))[None])
    apart = grid.steps(APART_SECONDS)
    likeness[distance < apart] = -2.0
    here = surroundings[first : first + count]
    if len(shape) < LIKE_MOMENTS + 2 * apart:
        return np.zeros_like(here)
    alike = np.argpartition(-likeness, LIKE_MOMENTS, axis=1)[:, :LIKE_MOMENTS]
    return contrast(here, median_of_five(*(surroundings[alike[:, i]] for i in range(LIKE_MOMENTS))))
