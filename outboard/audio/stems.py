"""The stems of a song: their names when they are separated, and how many there may be."""

from __future__ import annotations

from collections.abc import Mapping

VOCALS = "vocals"
INSTRUMENTAL = "instrumental"
TWO_STEMS = (VOCALS, INSTRUMENTAL)
FOUR_STEMS = (VOCALS, "drums", "bass", "other")
FIVE_STEMS = (*FOUR_STEMS, "piano")
SIX_STEMS = (*FIVE_STEMS, "guitar")
STEMS_BY_COUNT: Mapping[int, tuple[str, ...]] = {2: TWO_STEMS, 4: FOUR_STEMS, 5: FIVE_STEMS, 6: SIX_STEMS}
"""Separated stems by how many are asked for, as the contract names them."""
DEFAULT_STEM_COUNT = 4
MAXIMUM_STEMS = 12
"""Of one mix and of one job."""
