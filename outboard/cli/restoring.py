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
        metavar="ENGINE[=AMOUNT]",
        help="an engine of a chain of one's own, in order, with an amount from 0 to 1 or as much as is found to be "
        "wrong: repair, deepfilternet3, audiosr, audiosr_speech, bandwidth; may be repeated; none: all that is found",
        show_default=False,
    ),
]


def _steps(options: Sequence[str]) -> list[restorer_service_pb2.RestorationStep]:
    """``ENGINE[=AMOUNT]`` options; what an engine is called, the server knows."""
    steps = []
    for option in options:
        engine, has_amount, text = option.partition("=")
        try:
            amount = float(text) if has_amount else None
        except ValueError:
            message = f"--step {option!r}: the amount is a number from 0 to 1, not {text!r}"
            raise errors.InvalidInput(message, field="step") from None
        steps.append(restorer_service_pb2.RestorationStep(engine=engine, amount=amount))
    return steps


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
