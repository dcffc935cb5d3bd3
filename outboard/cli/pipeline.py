"""The command that separates, and what it shares with mixing and mastering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard import presets as sound_profiles
from outboard.cli import output
from outboard.client import Client, failure
from outboard.local import local_mesh
from outboard.rpc.presets import preset_message
from outboard.settings import checked_address
from outboard.v1 import job_service_pb2, separator_service_pb2

Song = Annotated[Path, typer.Argument(help="wav, aiff, flac, mp3, m4a, ogg or opus", show_default=False)]
OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", help="folder that receives the files", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on standard output, no progress")]
SoundProfile = Annotated[
    str,
    typer.Option(
        help="a sound profile's name (`outboard presets list`; none: balanced), or a .toml file of one's own",
        show_default=False,
    ),
]
StemCount = Annotated[
    int | None,
    typer.Option(
        help="2 (vocals, instrumental), 4 (vocals, drums, bass, other), 5 (and piano), 6 (and guitar); 4 where not said"
    ),
]
Keep = Annotated[bool, typer.Option("--keep", help="keep intermediate results beyond their time-to-live")]
Server = Annotated[
    str | None,
    typer.Option(help="a running server (host:port or unix:path) instead of this machine", envvar="OUTBOARD_SERVER"),
]


def checked_server(address: str, option: str) -> str:
    """An address that an option names.

    Raises:
        InvalidInput: it is none.
    """
    try:
        return checked_address(address)
    except ValueError as error:
        raise errors.InvalidInput(f"--{option}: {error}", field=option) from None


@contextmanager
def connect(server: str | None) -> Iterator[Client]:
    """A client of the given server, or of the mesh of this machine, started when nobody serves it yet."""
    if server:
        with Client(checked_server(server, "server")) as client:
            yield client
        return
    with local_mesh() as mesh, Client(mesh.address) as client:
        yield client


def existing(path: Path, field: str) -> Path:
    """A file that a command was given.

    Raises:
        NotFound: there is nothing.
        InvalidInput: it is something else, a folder say.
    """
    if not path.exists():
        raise errors.NotFound(f"there is no file {path.name!r}", field=field)
    if not path.is_file():
        raise errors.InvalidInput(f"{path.name!r} is not a file", field=field)
    return path


def upload_song(client: Client, path: Path, field: str = "song") -> job_service_pb2.SongInput:
    """Sends a file and names it as a job's input."""
    return job_service_pb2.SongInput(upload=client.upload(existing(path, field)).name, file_name=path.name)


def follow(client: Client, job: job_service_pb2.Job, *, as_json: bool) -> job_service_pb2.Job:
    """Shows a job's progress until it ends; a failed or cancelled one is raised as its error."""
    with output.stage_bars(enabled=not as_json) as bars:
        for state in client.watch(job.name):
            job = state
            if bars:
                bars.update(job)
    if job.state == job_service_pb2.Job.STATE_CANCELLED:
        raise errors.Cancelled("the job was cancelled")
    if error := failure(job):
        raise error
    return job


def job_with_preset(preset: str) -> job_service_pb2.Job:
    """A job that has nothing yet but its sound profile: a name goes as it is, for the server to find; a file's numbers
    go with the job, as the server has no such file.

    Raises:
        NotFound: PRESET_UNKNOWN, there is no such file.
        InvalidInput: PRESET_INVALID, what is wrong in it.
    """
    if not preset.endswith(".toml"):
        return job_service_pb2.Job(preset=preset)
    own = sound_profiles.load(preset)
    return job_service_pb2.Job(custom_preset=preset_message(own))


def spare_inputs(inputs: Iterable[Path], folder: Path, written: Sequence[str]) -> None:
    """Refuses a folder where a result would take the place of an input.

    Args:
        written: patterns of the files that the command leaves in the folder.

    Raises:
        InvalidInput: OPTIONS_CONFLICT.
    """
    for path in inputs:
        for pattern in written:
            if any(target.resolve() == path.resolve() for target in folder.glob(pattern)):
                raise errors.InvalidInput(
                    f"{path.name!r} would be overwritten by the result: choose another folder than {folder.name!r}",
                    field="output",
                    reason="OPTIONS_CONFLICT",
                )


def run_job(client: Client, job: job_service_pb2.Job, folder: Path, *, as_json: bool) -> None:
    """Creates the job, follows it and brings its files. Interrupting the command cancels the job."""
    created = client.create_job(job)
    try:
        folder.mkdir(parents=True, exist_ok=True)  # first: a folder that cannot be is no reason to compute
        done = follow(client, created, as_json=as_json)
    except (KeyboardInterrupt, OSError):
        client.cancel_job(created.name)
        raise
    files = client.download_all(done, folder)
    if as_json:
        output.print_json(done)
        return
    output.print_warnings(done.report)
    output.print_separation(done.report)
    output.print_restorations(done.report.restorations)
    output.print_before_after(done.report.before, done.report.after)
    output.print_album(done.report.album)
    output.print_files(files)


def separate(
    song: Song,
    folder: OutputFolder = Path("out"),
    stems: StemCount = None,
    engine: Annotated[str, typer.Option(help="engine name; none: the best that can run here")] = "",
    preset: Annotated[
        str,
        typer.Option(
            help="a .toml file with a table [separation]; the other options count over it", show_default=False
        ),
    ] = "",
    keep: Keep = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Splits a song into stems that sum to it."""
    existing(song, "song")
    spare_inputs([song], folder, ("stems/*", "report.*"))
    job = job_with_preset(preset)
    job.display_name = song.stem[:200]
    job.keep_intermediates = keep
    job.stages.append(job_service_pb2.STAGE_SEPARATE)
    job.separation.CopyFrom(separator_service_pb2.SeparationSettings(engine=engine, stem_count=stems))
    with connect(server) as client:
        job.song.file_name = song.name
        client.check_job(job)  # before anything is uploaded
        job.song.CopyFrom(upload_song(client, song))
        run_job(client, job, folder, as_json=as_json)
