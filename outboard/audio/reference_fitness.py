"""Whether a recording can serve as the song that a master follows.

One rule for all who ask: the orchestrator before anything is separated, the master before it measures a mix against it.
"""

from __future__ import annotations

from outboard.audio.song_profile import SongProfile

SHORTEST_SECONDS = 5.0
"""Less than this of a recording tells nothing of a song."""


def unfit(profile: SongProfile) -> str:
    """What keeps a recording from being followed, to be said after "the reference is"; empty where nothing does."""
    if profile.seconds < SHORTEST_SECONDS:
        return f"shorter than {SHORTEST_SECONDS:.0f} s"
    if profile.lufs is None:
        return "silent"
    return "speech, not a song" if profile.is_speech else ""
