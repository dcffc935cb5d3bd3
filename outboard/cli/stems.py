"""Stems on the command line, and what they play: shared by restoring and mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard.audio.stems import MAXIMUM_STEMS
from outboard.cli.pipeline import existing
from outboard.client import Client
from outboard.v1 import audio_pb2, job_service_pb2

Stems = Annotated[list[Path], typer.Argument(help=f"1 to {MAXIMUM_STEMS} files", show_default=False)]
Roles = Annotated[
    list[str] | None, typer.Option("--role", help="FILE=ROLE, for instance bd.wav=kick", show_default=False)
]


def checked_stems(stems: Sequence[Path], options: Sequence[str]) -> dict[str, audio_pb2.Role.ValueType]:
    """The roles of ``FILE=ROLE`` options by file name.

    Raises:
        NotFound: a file is not there.
        InvalidInput: too many stems, two of one name, or a role that is none.
    """
    if len(stems) > MAXIMUM_STEMS:  # the server says the same: here no mesh is started for it
        raise errors.InvalidInput(f"1 to {MAXIMUM_STEMS} stems, not {len(stems)}", field="stems")
    roles = _roles(options, stems)
    names = [path.stem for path in stems]
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        message = f"two stems are called {repeated!r}: a stem's name is its file's, which must be its own"
        raise errors.InvalidInput(message, field="stems")
    for path in stems:
        existing(path, "stems")
    return roles


def upload_stems(
    client: Client,
    job: job_service_pb2.Job,
    stems: Sequence[Path],
    roles: Mapping[str, audio_pb2.Role.ValueType],
) -> None:
    """Names the files as the job's input and sends them; what cannot be done is refused before the first is sent."""
    for path in stems:
        job.stems.stems.add(name=path.stem, role=roles.get(path.name, audio_pb2.ROLE_UNSPECIFIED))
    client.check_job(job)
    for path, stem in zip(stems, job.stems.stems, strict=True):
        stem.upload = client.upload(path).name


def _roles(options: Sequence[str], stems: Sequence[Path]) -> dict[str, audio_pb2.Role.ValueType]:
    """``FILE=ROLE`` options by file name."""
    names = {path.name for path in stems} | {str(path) for path in stems}
    allowed = [name.removeprefix("ROLE_").lower() for name in audio_pb2.Role.keys() if not name.endswith("UNSPECIFIED")]  # noqa: SIM118
    roles = {}
    for option in options:
        file, _, role = option.rpartition("=")
        if file not in names:
            raise errors.InvalidInput(f"--role {option!r}: {file!r} is none of the stems", field="role")
        if role not in allowed:
            raise errors.InvalidInput(
                f"--role {option!r}: {role!r} is no role; one of {', '.join(allowed)}", field="role"
            )
        if Path(file).name in roles:
            message = f"--role {option!r}: {file!r} has a role already"
            raise errors.InvalidInput(message, field="role", reason="OPTIONS_CONFLICT")
        roles[Path(file).name] = audio_pb2.Role.Value(f"ROLE_{role.upper()}")
    return roles
