"""From any number of channels to the one or two that the pipeline works with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from outboard.errors import InvalidInput

MAX_CHANNELS = 8
MINUS_3_DB = float(np.sqrt(0.5))

# ITU-R BS.775-3, table 2: centre and surrounds at -3 dB, the low-frequency channel left out; a single rear channel goes
# to both sides at -6 dB, which is -3 dB for each of the two surrounds it stands for.
_GAINS: dict[str, tuple[float, float]] = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (MINUS_3_DB, MINUS_3_DB),
    "LFE": (0.0, 0.0),
    "BL": (MINUS_3_DB, 0.0),
    "BR": (0.0, MINUS_3_DB),
    "SL": (MINUS_3_DB, 0.0),
    "SR": (0.0, MINUS_3_DB),
    "FLC": (1.0, 0.0),
    "FRC": (0.0, 1.0),
    "BC": (0.5, 0.5),
    "DL": (1.0, 0.0),
    "DR": (0.0, 1.0),
}
_USUAL_ORDER: dict[int, tuple[str, ...]] = {
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    7: ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""Positions that a file without a channel mask means (SMPTE order, as FLAC and WAVE use it)."""


def downmix_matrix(positions: Sequence[str]) -> NDArray[np.float32] | None:
    """Gains of shape (2, channels) from 3 to 8 channels to stereo; None for 1 or 2 channels, which stay as they are.

    Args:
        positions: libavutil's short names in channel order; names that say nothing ("NONE") mean the usual order.

    Raises:
        InvalidInput: AUDIO_TOO_MANY_CHANNELS, for more than 8 channels.
    """
    count = len(positions)
    if count <= 2:
        return None
    if count > MAX_CHANNELS:
        raise InvalidInput(
            f"the file has {count} channels; 1 to {MAX_CHANNELS} are allowed", reason="AUDIO_TOO_MANY_CHANNELS"
        )
    known = positions if all(position in _GAINS for position in positions) else _USUAL_ORDER[count]
    return np.array([_GAINS[position] for position in known], dtype=np.float32).T.copy()


def to_stereo(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two channels from one or two: mono stands in both at unity gain (not at -3 dB).

    Args:
        block: (1 or 2, frames).

    Returns:
        (2, frames): a view without a copy, read-only for mono, so it also serves mapped songs.
    """
    if block.shape[0] not in (1, 2):
        raise ValueError(f"expected 1 or 2 channels, got {block.shape[0]}")
    return block if block.shape[0] == 2 else np.broadcast_to(block, (2, block.shape[1]))
