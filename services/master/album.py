"""Several songs mastered as one: what an album is, as loudness and tone from song to song, stays.

After AES TD1008 (2021), which has albums normalised by their loudest song, so that the level between songs is the
artist's: the loudest song is brought to the target and every other one stays as far below it as it came. Tonal balance
is kept in the same way: one chain, decided from the mean of all songs' measurements, goes over every song.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from outboard.audio.analysis import Analysis
from outboard.errors import InvalidInput
from services.master.limits import guard_rails, rails_note
from services.master.plan import plan
from services.master.settings import LOWEST_TARGET_LUFS, MasterPlan, MasterSettings

MOST_SONGS = 50
_NOTES_ON_LOUDNESS = 2  # a plan's first: of its target and of the rails on the way there


def plan_in_album(
    analysis: Analysis,
    album: Sequence[Analysis],
    settings: MasterSettings,
    preset: Mapping[str, float] | None = None,
) -> MasterPlan:
    """All numbers of one song's master.

    Args:
        analysis: of the song.
        album: of all songs, this one among them.
        settings: the same for every song; the target is that of the loudest.
        preset: numbers of a sound profile.

    Raises:
        InvalidInput: what `plan` raises; OPTIONS_CONFLICT for the reference intent: a match to a reference would move
            every song to the same sound.
    """
    if settings.intent == "reference":
        message = "an album is mastered as one: a reference would move every song to the same sound"
        raise InvalidInput(message, field="intent", reason="OPTIONS_CONFLICT")
    if len(album) > MOST_SONGS:
        message = f"an album has at most {MOST_SONGS} songs, not {len(album)}"
        raise InvalidInput(message, field="album")
    own = plan(analysis, settings, preset)
    loudest = max((song.integrated_lufs for song in album if song.integrated_lufs is not None), default=None)
    if loudest is None or own.target_lufs is None or analysis.integrated_lufs is None:
        return own
    shared = plan(_as_long_as(shared_analysis(album), analysis), settings, preset)
    below = max(loudest - analysis.integrated_lufs, 0.0)
    target = max(own.target_lufs - below, LOWEST_TARGET_LUFS)
    if below:
        told = f"This song came {below:.1f} LU under the album's loudest and stays so: {target:.1f} LUFS."
    else:
        told = f"This is the album's loudest song: it is brought to {target:.1f} LUFS, and the others keep below it."
    rails = guard_rails(analysis, target, matched=False)
    together = f"One chain for all {len(album)} songs keeps the tone between them."
    notes = (told, rails_note(target, rails), together, *shared.notes[_NOTES_ON_LOUDNESS:])
    drive = target - analysis.integrated_lufs
    return dataclasses.replace(
        own,
        chain=shared.chain,
        limiter=shared.limiter,
        guard_rails=rails,
        target_lufs=target,
        drive_db=drive,
        notes=notes,
    )


def shared_analysis(album: Sequence[Analysis]) -> Analysis:
    """One analysis that stands for all songs: means of what was measured, band by band; the loudest's loudness."""
    fields = {
        field.name: _mean([getattr(song, field.name) for song in album]) for field in dataclasses.fields(Analysis)
    }
    levels = [song.integrated_lufs for song in album if song.integrated_lufs is not None]
    return Analysis(**fields | {"integrated_lufs": max(levels, default=None)})


def _as_long_as(shared: Analysis, song: Analysis) -> Analysis:
    """The shared measurements in the layout of a song."""
    return dataclasses.replace(
        shared, frames=song.frames, sample_rate_hertz=song.sample_rate_hertz, channels=song.channels
    )


def _mean(values: Sequence[Any]) -> Any:
    """Mean of numbers (None left out), of tuples and dataclasses part by part; the first of anything else."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    first = known[0]
    if isinstance(first, tuple):
        longest = max(known, key=len)
        alike = [value for value in known if len(value) == len(longest)]
        return tuple(_mean(parts) for parts in zip(*alike, strict=True))
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        parts = {
            field.name: _mean([getattr(value, field.name) for value in known]) for field in dataclasses.fields(first)
        }
        return type(first)(**parts)
    if isinstance(first, int) and not isinstance(first, bool):
        return round(sum(known) / len(known))
    if isinstance(first, float):
        return math.fsum(known) / len(known)
    return first
