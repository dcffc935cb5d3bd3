"""What a stem plays, when nobody said so: read off its name. Listening comes on top of this, names stay a hint."""

from __future__ import annotations

import itertools
import re

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
OTHER = "other"
# Roles that share how a strip is treated.
VOICES = frozenset({"lead_vocal", "backing_vocal"})
DRUMS = frozenset({"kick", "snare", "hats", "drums"})
LOW = frozenset({"kick", "bass"})


def role_from_name(name: str) -> str:
    """The role that a stem's name suggests; ``other`` where it suggests none."""
    parts = _WORD.findall(name.lower())
    joined = [*parts, *("".join(pair) for pair in itertools.pairwise(parts))]
    for role, words in _WORDS:
        if any(re.fullmatch(words, part) for part in joined):
            return role
    return OTHER
