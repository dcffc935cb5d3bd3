"""The stems of a song: their names when they are separated, how many there may be, and what a name says of a role."""

from __future__ import annotations

import itertools
import re
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
OTHER = "other"
"""The role of what plays none of the others."""
# In this order: the first that is found in the name counts ("kick_drum" is a kick, "backing vox" no lead).
_WORDS: tuple[tuple[str, str], ...] = (
    ("kick", r"kick|bassdrum|bd\d*"),
    ("snare", r"snare|clap|sd\d*"),
    ("hats", r"hats?|hihats?|hh\d*|cymbals?|ride|crash|shaker|tambourine"),
    ("drums", r"drums?|drum(?:kit|loop)|beats?|\w*beat|percussion|perc|loop|toms?"),
    ("backing_vocal", r"(?:bg|bgv|back|backing|background|harmony|harmonies|choir|double|doubles)\w*"),
    ("lead_vocal", r"vocals?|vox|voice|singer|lead(?:vocal|vox)|acapella|rap"),
    ("bass", r"bass|sub|808"),
    ("keys", r"keys|piano|organ|rhodes|wurli\w*|epiano|clav\w*"),
    ("guitar", r"guitars?|gtrs?|acoustic"),
    ("pad", r"pads?|strings|ambience|ambient"),
    ("synth", r"synth\w*|lead|pluck\w*|arp\w*"),
    ("fx", r"fx|sfx|effects?|riser|impact|sweep|noise"),
)
_WORD = re.compile(r"[a-z]+|\d+")


def role_from_name(name: str) -> str:
    """The role that a stem's name suggests; ``other`` where it suggests none."""
    parts = _WORD.findall(name.lower())
    joined = [*parts, *("".join(pair) for pair in itertools.pairwise(parts))]
    for role, words in _WORDS:
        if any(re.fullmatch(words, part) for part in joined):
            return role
    return OTHER
