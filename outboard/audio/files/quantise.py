"""Floats to the integers that a file holds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def to_integers(block: NDArray[np.float32], bits: int) -> tuple[NDArray[np.int32], int]:
    """Rounds to the nearest integer of that many bits, full scale ±1.0 being ±2^(bits-1).

    A block that a ditherer has already put on that grid comes through exactly. What lies beyond the largest integer is
    clipped there, and so is +1.0 itself, which is one step more than the largest.

    Args:
        block: float32, any shape, finite.
        bits: 16 or 24.

    Returns:
        int32 of the same shape, and how many samples were clipped by more than that one step.
    """
    scale = 1 << (bits - 1)
    rounded = np.rint(block.astype(np.float64) * scale)
    clipped = int(np.count_nonzero((rounded > scale) | (rounded < -scale)))
    return np.clip(rounded, -scale, scale - 1).astype(np.int32), clipped
