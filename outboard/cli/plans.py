"""Plans on the command line: printed instead of rendered, and rendered as a person has edited them."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard.cli import output
from outboard.cli.pipeline import existing, follow, job_with_preset, spare_inputs
from outboard.client import Client
from outboard.report.plan_file import PLAN_NAME, read_plans
from outboard.v1 import job_service_pb2

PlanOnly = Annotated[
    bool, typer.Option("--plan-only", help="decide and render nothing: print the plan, or write it to the file of -o")
]
OutputOrPlan = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="folder that receives the files (out), or the plan's file", show_default=False),
]
PlanFile = Annotated[
    Path | None,
    typer.Option("--plan", help="a plan, as --plan-only gives it, to render as it is", show_default=False),
]


def job_of(preset: str, plan: Path | None) -> job_service_pb2.Job:
    """A job that has nothing yet but its sound profile and the plans of a file.

    Raises:
        NotFound: there is no such file, of either.
        InvalidInput: PRESET_INVALID, or what is wrong in the plans, by its place.
    """
    job = job_with_preset(preset)
    if plan is not None:
        job.MergeFrom(read_plans(existing(plan, "plan").read_bytes(), plan.name))
    return job


def checked_output(
    output: Path | None, inputs: Sequence[Path], plan: Path | None, written: Sequence[str], *, plan_only: bool
) -> Path:
    """The folder that receives a job's files; of a plan alone the output is a file, or nothing: then it is printed.

    Args:
        output: as the command was given it.
        inputs: audio that the command reads.
        plan: the plan that it reads.
        written: patterns of the files that it leaves in the folder.

    Raises:
        InvalidInput: a plan's file is a folder; OPTIONS_CONFLICT: a result would take the place of an input.
    """
    folder = output or Path("out")
    inputs = [*inputs, plan] if plan else inputs
    if not plan_only:
        spare_inputs(inputs, folder, written)
    elif output is not None and output.is_dir():
        message = f"{output.name!r} is a folder: with --plan-only, -o names the file that receives the plan"
        raise errors.InvalidInput(message, field="output")
    elif output is not None:
        spare_inputs(inputs, output.parent, (escape(output.name),))
    return folder


def run_plan(client: Client, job: job_service_pb2.Job, target: Path | None, *, as_json: bool) -> None:
    """Lets a job decide, and prints its plans or writes them to a file. Interrupting the command cancels the job."""
    job.plan_only = True
    created = client.create_job(job)
    try:
        done = follow(client, created, as_json=as_json)
    except KeyboardInterrupt:
        client.cancel_job(created.name)
        raise
    found = next((artifact for artifact in done.artifacts if artifact.name.endswith(f"/{PLAN_NAME}")), None)
    if found is None:
        raise errors.Internal(f"the job left no {PLAN_NAME}")
    text = client.read(found).decode()
    if not as_json:
        output.print_warnings(done.report)
    if target is None:
        print(text, end="")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
