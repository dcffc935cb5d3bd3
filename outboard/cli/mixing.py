"""The command that mixes stems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard.audio.stems import MAXIMUM_STEMS
from outboard.cli.pipeline import AsJson, Keep, Server, SoundProfile, connect, existing, run_job
from outboard.cli.plans import OutputOrPlan, PlanFile, PlanOnly, checked_output, job_of, run_plan
from outboard.v1 import audio_pb2, job_service_pb2, mixer_service_pb2


def _roles(options: list[str], stems: list[Path]) -> dict[str, audio_pb2.Role.ValueType]:
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


def mix(
    stems: Annotated[list[Path], typer.Argument(help=f"1 to {MAXIMUM_STEMS} files", show_default=False)],
    folder: OutputOrPlan = None,
    role: Annotated[
        list[str] | None, typer.Option(help="FILE=ROLE, for instance bd.wav=kick", show_default=False)
    ] = None,
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
    if len(stems) > MAXIMUM_STEMS:  # the server says the same, once all are uploaded
        raise errors.InvalidInput(f"1 to {MAXIMUM_STEMS} stems, not {len(stems)}", field="stems")
    roles = _roles(role or [], stems)
    names = [path.stem for path in stems]
    if repeated := next((name for name in names if names.count(name) > 1), ""):
        message = f"two stems are called {repeated!r}: a stem's name is its file's, which must be its own"
        raise errors.InvalidInput(message, field="stems")
    for path in stems:
        existing(path, "stems")
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
        for path in stems:
            wanted = roles.get(path.name, audio_pb2.ROLE_UNSPECIFIED)
            job.stems.stems.add(name=path.stem, upload=client.upload(path).name, role=wanted)
        if plan_only:
            run_plan(client, job, folder, as_json=as_json)
        else:
            run_job(client, job, target, as_json=as_json)
