"""Albums: several songs in one job, mastered as one. Files are called after place and name: `01-intro.wav`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from outboard.errors import Violation
from outboard.v1 import job_service_pb2, master_service_pb2
from services.orchestrator.progress import Stage

MAXIMUM_SONGS = 50
STAGES = (Stage.STAGE_MASTER,)
"""An album's songs are finished mixes: they go through the master only."""

_LONGEST_TITLE = 60
_NOT_IN_A_TITLE = re.compile(r"[^\w.-]+")


def check_album(job: job_service_pb2.Job) -> list[Violation]:
    """What is wrong with an album."""
    songs = job.album.songs
    if not 1 <= len(songs) <= MAXIMUM_SONGS:
        return [Violation("job.album.songs", f"1 to {MAXIMUM_SONGS} songs, not {len(songs)}")]
    if job.stages and tuple(job.stages) != STAGES:
        return [Violation("job.stages", "an album goes through the master only: its songs are finished mixes")]
    return []


def album_conflicts(job: job_service_pb2.Job) -> list[Violation]:
    """Settings that contradict an album."""
    if job.mastering.intent == master_service_pb2.MASTER_INTENT_REFERENCE:
        text = "an album is mastered as one: a reference would move every song to the same sound"
        return [Violation("job.mastering.intent", text)]
    return []


def titles(songs: Sequence[job_service_pb2.SongInput]) -> list[str]:
    """What each song's files begin with: its place, and its file name without anything that a file system minds."""
    width = max(2, len(str(len(songs))))
    made = []
    for place, song in enumerate(songs, start=1):
        stem = PurePosixPath(song.file_name.replace("\\", "/")).stem
        name = _NOT_IN_A_TITLE.sub("-", stem).strip("-._")[:_LONGEST_TITLE]
        made.append(f"{place:0{width}d}-{name}" if name else f"{place:0{width}d}")
    return made


def file_name(title: str, delivered: str) -> str:
    """An artifact's name: the song's title, and the deliverable's name where it is not the usual one."""
    path = PurePosixPath(delivered)
    return f"{title}{path.suffix}" if path.stem == "master" else f"{title}-{path.name}"
