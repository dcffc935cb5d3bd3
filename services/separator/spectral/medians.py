"""Sliding medians of spectrograms, the work-horse of harmonic/percussive separation.

An exact sliding median of a few dozen values is most of the cost of such a separator. The remedian (Rousseeuw &
Bassett 1990), a median of three of medians of three of medians of three, costs twelve minima and maxima whatever its
reach, works on whole arrays, and keeps what
matters here: it never yields a value that was not there, it keeps ridges as long as its reach and removes those of
up to a third of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def median_along_time(plane: Plane, half_width: int) -> Plane:
    """Remedian over ``half_width`` steps on either side of each step; the edge steps are repeated outwards.

    Args:
        plane: (steps, bins).
        half_width: at least 3.
    """
    padded = np.pad(plane, ((half_width, half_width), (0, 0)), mode="edge")
    for spacing in _spacings(half_width):
        padded = _median_of_three(padded[: -2 * spacing], padded[spacing:-spacing], padded[2 * spacing :])
    return padded


def median_along_frequency(plane: Plane, half_width: int) -> Plane:
    """Remedian over ``half_width`` bins on either side of each bin; the edge bins are repeated outwards.

    Args:
        plane: (steps, bins).
        half_width: at least 3.
    """
    padded = np.pad(plane, ((0, 0), (half_width, half_width)), mode="edge")
    for spacing in _spacings(half_width):
        padded = _median_of_three(padded[:, : -2 * spacing], padded[:, spacing:-spacing], padded[:, 2 * spacing :])
    return padded


def median_of_five(a: Plane, b: Plane, c: Plane, d: Plane, e: Plane) -> Plane:
    """Elementwise median of five arrays."""
    low = np.maximum(np.minimum(a, b), np.minimum(c, d))
    high = np.minimum(np.maximum(a, b), np.maximum(c, d))
    return _median_of_three(low, high, e)


def _median_of_three(a: Plane, b: Plane, c: Plane) -> Plane:
    return np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c))


def _spacings(half_width: int) -> tuple[int, int, int]:
    """Spacings of the three stages, about 1 : 3 : 9, that add up to the half width."""
    if half_width < 3:
        raise ValueError(f"half_width must be at least 3, not {half_width}")
    fine = max(1, round(half_width / 13))
    middle = max(1, round(half_width * 3 / 13))
    return fine, middle, half_width - fine - middle
