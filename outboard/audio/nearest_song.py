"""Finds in a folder the song that sounds most like a given one, by the distance of `song_profile.embedding`.

At most 90 s from the middle of each song are measured: beginnings and endings are unlike the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from outboard.audio.files import decode
from outboard.audio.song_profile import SongProfile, embedding_distance, measure_profile
from outboard.errors import InvalidInput

AUDIO_SUFFIXES = frozenset({".wav", ".aif", ".aiff", ".flac", ".mp3", ".m4a", ".ogg", ".opus"})
"""Files that are looked at in a folder."""
MOST_SONGS = 500
"""More than this is a music collection, not a choice of references."""

_EXCERPT_SECONDS = 90.0
_SHORTEST_SECONDS = 5.0
_SAME_DISTANCE = 0.05


@dataclass(frozen=True)
class Candidate:
    """A song and its distance of sound to the wanted one: 0 the same, about 1 where all plainly differs."""

    path: Path
    distance: float


def songs_in(folder: Path) -> list[Path]:
    """Audio files directly in a folder, by name.

    Raises:
        InvalidInput: REFERENCE_UNSUITABLE: none, or more than `MOST_SONGS`.
    """
    found = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES)
    if not 1 <= len(found) <= MOST_SONGS:
        message = f"a folder of references holds 1 to {MOST_SONGS} songs, {folder.name!r} holds {len(found)}"
        raise InvalidInput(message, field="reference", reason="REFERENCE_UNSUITABLE")
    return found


def ranked_by_sound(
    song: Path, candidates: Iterable[Path], progress: Callable[[Path], None] | None = None
) -> list[Candidate]:
    """Candidates that can serve as a reference, the nearest first; equal distances by name.

    Left out are files that cannot be read, are silent, speech or shorter than 5 s, and the song itself.

    Raises:
        InvalidInput: the song itself cannot be read; AUDIO_SILENT where it has no loudness.
    """
    wanted = _profile(song)
    if wanted.lufs is None:
        raise InvalidInput(f"{song.name!r} is silent: nothing sounds like it", field="song", reason="AUDIO_SILENT")
    ranked = []
    for path in candidates:
        if progress is not None:
            progress(path)
        try:
            profile = _profile(path)
        except InvalidInput:
            continue
        if profile.lufs is None or profile.is_speech or profile.seconds < _SHORTEST_SECONDS:
            continue
        distance = embedding_distance(wanted, profile)
        if distance > _SAME_DISTANCE:
            ranked.append(Candidate(path, distance))
    return sorted(ranked, key=lambda candidate: (candidate.distance, candidate.path.name))


def _profile(path: Path) -> SongProfile:
    with decode(path, sample_rate_hertz=None) as file:
        frames = min(file.frames, round(_EXCERPT_SECONDS * file.sample_rate_hertz))
        start = (file.frames - frames) // 2
        return measure_profile(file.array[:, start : start + frames], file.sample_rate_hertz)
