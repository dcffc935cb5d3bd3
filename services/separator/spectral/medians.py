"""Sliding medians of spectrograms, the work-horse of harmonic/percussive separation."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Plane = NDArray[np.float32]


def median_along_time(plane: Plane, half_width: int) -> Plane:
    """Median over ``2 * half_width + 1`` steps around each step; the edge steps are repeated outwards.

    Args:
        plane: (steps, bins).
    """
    return np.ascontiguousarray(median_along_frequency(np.ascontiguousarray(plane.T), half_width).T)


def median_along_frequency(plane: Plane, half_width: int) -> Plane:
    """Median over ``2 * half_width + 1`` bins around each bin; the edge bins are repeated outwards.

    Args:
        plane: (steps, bins).
    """
    out = np.empty_like(plane)
    _sliding_median_of_rows(np.ascontiguousarray(plane), half_width, out)
    return out


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _sliding_median_of_rows(plane: Plane, half_width: int, out: Plane) -> None:
    """Keeps the window sorted and moves one value per column: about ``half_width`` moves instead of a sort."""
    rows, columns = plane.shape
    width = 2 * half_width + 1
    window = np.empty(width, np.float32)
    for row in range(rows):
        for i in range(width):
            window[i] = plane[row, min(max(i - half_width, 0), columns - 1)]
        window.sort()
        out[row, 0] = window[half_width]
        for column in range(1, columns):
            leaving = plane[row, max(column - 1 - half_width, 0)]
            entering = plane[row, min(column + half_width, columns - 1)]
            place = np.searchsorted(window, leaving)
            while place + 1 < width and window[place + 1] < entering:
                window[place] = window[place + 1]
                place += 1
            while place > 0 and window[place - 1] > entering:
                window[place] = window[place - 1]
                place -= 1
            window[place] = entering
            out[row, column] = window[half_width]
