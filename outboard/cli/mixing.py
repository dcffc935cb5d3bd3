"""The command that mixes stems."""

from __future__ import annotations

from typing import Annotated

import typer

from outboard.cli.pipeline import AsJson, Keep, Server, SoundProfile, connect, run_job
from outboard.cli.plans import OutputOrPlan, PlanFile, PlanOnly, checked_output, job_of, run_plan
from outboard.cli.stems import Roles, Stems, checked_stems, upload_stems
from outboard.v1 import job_service_pb2, mixer_service_pb2


def mix(
    stems: Stems,
    folder: OutputOrPlan = None,
    role: Roles = None,
    preset: SoundProfile = "",
    intensity: Annotated[float | None, typer.Option(help="how much of the whole treatment, 0 to 100 (100)")] = None,
    width_cap: Annotated[float | None, typer.Option(help="highest factor on any side signal, 0 to 1.4 (1.4)")] = None,
    respect_user_gains: Annotated[
        bool | None, typer.Option(help="whether the stems' levels are kept as they are (no)", show_default=False)
    ] = None,
    peak_target_dbfs: Annotated[
        float | None, typer.Option(help="highest sample of the mix, -40 to 0 dBFS (-6)")
    ] = None,
    bypass: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL",
            help="a processor to leave out, by its label in the plan (compressor, masking, reverb); may be repeated",
            show_default=False,
        ),
    ] = None,
    bypass_all: Annotated[bool, typer.Option("--bypass-all", help="sum the stems as they are")] = False,
    plan: PlanFile = None,
    plan_only: PlanOnly = False,
    keep: Keep = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Mixes stems on the console."""
    roles = checked_stems(stems, role or [])
    target = checked_output(folder, stems, plan, ("mix.wav", "report.*"), plan_only=plan_only)
    job = job_of(preset, plan)
    job.display_name = "mix"
    job.keep_intermediates = keep
    job.stages.append(job_service_pb2.STAGE_MIX)
    job.mix.CopyFrom(
        mixer_service_pb2.MixSettings(
            respect_user_gains=respect_user_gains,
            bypass=bypass,
            bypass_all=bypass_all,
            width_cap=width_cap,
            peak_target_dbfs=peak_target_dbfs,
            intensity=intensity,
        )
    )
    with connect(server) as client:
        upload_stems(client, job, stems, roles)
        if plan_only:
            run_plan(client, job, folder, as_json=as_json)
        else:
            run_job(client, job, target, as_json=as_json)
