"""Reading a stem at any place, past its ends too."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]


def padded_part(array: Audio, start: int, frames: int) -> Audio:
    """float32 (channels, frames) from `start`, which may be negative; silence past the ends."""
    part = array[:, max(0, start) : max(0, start + frames)]
    if part.shape[1] == frames:
        return np.array(part, dtype=np.float32)
    padded = np.zeros((array.shape[0], frames), dtype=np.float32)
    first = max(0, -start)
    padded[:, first : first + part.shape[1]] = part
    return padded
