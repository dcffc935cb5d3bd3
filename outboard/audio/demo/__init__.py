"""A seeded demo song with its true stems, and the pathologies of generated music."""

from outboard.audio.demo.pathologies import PATHOLOGIES, apply
from outboard.audio.demo.song import (
    SONG_SEVERITIES,
    STEM_NAMES,
    DemoSong,
    stem_pathologies,
    stem_sum,
    synthesise,
)

__all__ = [
    "PATHOLOGIES",
    "SONG_SEVERITIES",
    "STEM_NAMES",
    "DemoSong",
    "apply",
    "stem_pathologies",
    "stem_sum",
    "synthesise",
]
