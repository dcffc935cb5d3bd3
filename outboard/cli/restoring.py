"""The command that restores stems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard.cli.pipeline import AsJson, Keep, OutputFolder, Server, connect, run_job, spare_inputs
from outboard.cli.stems import Roles, Stems, checked_stems, upload_stems
from outboard.v1 import job_service_pb2, restorer_service_pb2

Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        metavar="ENGINE[=AMOUNT][,FIELD=NUMBER]",
        help="an engine of a chain of one's own, in order, with an amount from 0 to 1 (none: as much as is found to be "
        "wrong): repair, deepfilternet3, audiosr, audiosr_speech, bandwidth; attenuation_limit_db, diffusion_steps or "
        "guidance_scale where the engine knows them; may be repeated; no step: all that is found",
        show_default=False,
    ),
]
_FIELDS = {"attenuation_limit_db": float, "diffusion_steps": int, "guidance_scale": float}


def _steps(options: Sequence[str]) -> list[restorer_service_pb2.RestorationStep]:
    """Steps of the option's form; what an engine is called and how large its numbers may be, the server knows."""
    steps = []
    for option in options:
        first, *others = option.split(",")
        engine, has_amount, amount = first.partition("=")
        step = restorer_service_pb2.RestorationStep(engine=engine)
        if has_amount:
            _set(step, option, "amount", amount)
        for other in others:
            field, _, text = other.partition("=")
            if field not in _FIELDS:
                message = f"--step {option!r}: {field!r} is no field of a step; known are {', '.join(_FIELDS)}"
                raise errors.InvalidInput(message, field="step")
            _set(step, option, field, text)
        steps.append(step)
    return steps


def _set(step: restorer_service_pb2.RestorationStep, option: str, field: str, text: str) -> None:
    kind = _FIELDS.get(field, float)
    try:
        setattr(step, field, kind(text))
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise errors.InvalidInput(f"--step {option!r}: {field} is {wanted}, not {text!r}", field="step") from None


def restore(
    stems: Stems,
    folder: OutputFolder = Path("out"),
    role: Roles = None,
    step: Steps = None,
    seed: Annotated[int | None, typer.Option(help="of everything random (0)", show_default=False)] = None,
    keep: Keep = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Mends stems where something is wrong with them, and leaves what is clean as it is."""
    roles = checked_stems(stems, role or [])
    settings = restorer_service_pb2.RestorationSettings(steps=_steps(step or []), seed=seed)
    spare_inputs(stems, folder, ("stems/*", "report.*"))
    job = job_service_pb2.Job(
        display_name="restoration",
        keep_intermediates=keep,
        stages=[job_service_pb2.STAGE_RESTORE],
        restoration=settings,
    )
    with connect(server) as client:
        upload_stems(client, job, stems, roles)
        run_job(client, job, folder, as_json=as_json)
