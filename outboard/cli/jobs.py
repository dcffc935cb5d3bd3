"""`outboard jobs`: the job API of a running server."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from outboard import errors
from outboard.cli import output, pipeline
from outboard.cli.pipeline import AsJson
from outboard.rpc.json_text import read_json
from outboard.v1 import job_service_pb2

app = typer.Typer(help="Jobs of a running server.", no_args_is_help=True)

Server = Annotated[str, typer.Option(help="host:port or unix:path", envvar="OUTBOARD_SERVER", show_default=False)]
Name = Annotated[str, typer.Argument(help="jobs/ID, or the ID alone", show_default=False)]


def _full_name(name: str) -> str:
    return name if name.startswith("jobs/") else f"jobs/{name}"


def _show(job: job_service_pb2.Job, *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
        return
    state = job_service_pb2.Job.State.Name(job.state).removeprefix("STATE_")
    output.console.print(f"{job.name}  {state}  {job.display_name}", highlight=False, markup=False)
    if job.HasField("error"):
        output.console.print(f"  {job.error.message}", highlight=False, markup=False)
    output.print_files(artifact.name for artifact in job.artifacts)


def _read_job(path: Path) -> job_service_pb2.Job:
    """A job from a JSON file.

    Raises:
        InvalidInput: it is no JSON, or has a field that a job has not.
    """
    job = job_service_pb2.Job()
    read_json(pipeline.existing(path, "job").read_bytes(), job, name=path.name, field="job")
    return job


@app.command()
def create(
    song: pipeline.Song,
    server: Server,
    preset: pipeline.SoundProfile = "",
    job_file: Annotated[
        Path | None,
        typer.Option("--job", help="the job as JSON, with the contract's field names: stages, settings, plans, tags"),
    ] = None,
    request_id: Annotated[str, typer.Option(help="the same id again returns the same job")] = "",
    as_json: AsJson = False,
) -> None:
    """Uploads a song and starts a job; does not wait for it."""
    job = _read_job(job_file) if job_file else job_service_pb2.Job()
    if preset:
        job.MergeFrom(pipeline.job_with_preset(preset))
    job.display_name = job.display_name or song.stem[:200]
    with pipeline.connect(server) as client:
        job.song.CopyFrom(pipeline.upload_song(client, song))
        _show(client.create_job(job, request_id=request_id), as_json=as_json)


@app.command()
def get(name: Name, server: Server, as_json: AsJson = False) -> None:
    """Shows one job."""
    with pipeline.connect(server) as client:
        _show(client.get_job(_full_name(name)), as_json=as_json)


@app.command("list")
def list_jobs(
    server: Server,
    state: Annotated[list[str] | None, typer.Option(help="only jobs in this state, for instance mixing")] = None,
    most: Annotated[int, typer.Option(help="at most so many")] = 50,
    as_json: AsJson = False,
) -> None:
    """Lists jobs, the newest first."""
    known = {key.removeprefix("STATE_").lower(): value for key, value in job_service_pb2.Job.State.items()}
    for wanted in state or ():
        if wanted not in known:
            raise errors.InvalidInput(f"--state {wanted!r} is no state; one of {', '.join(known)}", field="state")
    with pipeline.connect(server) as client:
        pages = client.list_jobs(states=[known[wanted] for wanted in state or ()], page_size=min(most, 1000))
        found = list(islice(pages, most))
        if as_json:
            output.print_json(job_service_pb2.ListJobsResponse(jobs=found))
            return
        # A name that is cut off could not be used.
        width = max((len(job.name) for job in found), default=0)
        table = Table(Column("name", no_wrap=True, min_width=width), "state", "created", "title")
        for job in found:
            name = job_service_pb2.Job.State.Name(job.state).removeprefix("STATE_")
            table.add_row(job.name, name, job.create_time.ToJsonString(), escape(job.display_name))
        output.console.print(table)


@app.command()
def watch(name: Name, server: Server, as_json: AsJson = False) -> None:
    """Shows progress until the job ends."""
    with pipeline.connect(server) as client:
        done = pipeline.follow(client, client.get_job(_full_name(name)), as_json=as_json)
        _show(done, as_json=as_json)


@app.command()
def cancel(name: Name, server: Server, as_json: AsJson = False) -> None:
    """Stops a job."""
    with pipeline.connect(server) as client:
        _show(client.cancel_job(_full_name(name)), as_json=as_json)


@app.command()
def delete(name: Name, server: Server, as_json: AsJson = False) -> None:
    """Removes a job that has ended, and what no other job needs."""
    with pipeline.connect(server) as client:
        client.delete_job(_full_name(name))
    if as_json:
        output.print_json({"deleted": _full_name(name)})


@app.command()
def download(name: Name, server: Server, folder: pipeline.OutputFolder = Path("out"), as_json: AsJson = False) -> None:
    """Brings all files of a job."""
    with pipeline.connect(server) as client:
        files = client.download_all(client.get_job(_full_name(name)), folder)
    if as_json:
        output.print_json({"files": [str(file) for file in files]})
    else:
        output.print_files(files)
