"""Ranges that the contract gives for separation and restoration, checked before a job begins.

Mixer and master judge their settings themselves (see `preflight`); separator and restorer have no such call, and a
restorer that refuses its settings would only cost the restoration.
"""

from __future__ import annotations

from collections.abc import Sequence

from outboard.errors import InvalidInput, Violation
from outboard.presets.separation import SeparationChoice, separation_faults
from outboard.rpc.convert import from_message
from outboard.v1 import job_service_pb2, restorer_service_pb2, separator_service_pb2
from services.orchestrator.engines import PASSTHROUGH
from services.orchestrator.progress import Stage

_STEP_RANGES = (
    ("amount", 0.0, 1.0),
    ("attenuation_limit_db", 0.0, 100.0),
    ("diffusion_steps", 10, 200),
    ("guidance_scale", 1.0, 10.0),
)
_ABOVE = ("attenuation_limit_db",)  # more than the least: a limit of 0 dB would leave nothing to do


def check_setting_ranges(job: job_service_pb2.Job, stages: Sequence[int]) -> list[Violation]:
    """What is out of range in the settings of the stages that a job goes through."""
    violations = []
    if Stage.STAGE_SEPARATE in stages:
        violations += _check_separation(job.separation)
    if Stage.STAGE_RESTORE in stages:
        violations += _check_restoration(job.restoration)
    return violations


def _check_separation(settings: separator_service_pb2.SeparationSettings) -> list[Violation]:
    try:
        choice = from_message(settings, SeparationChoice, "job.separation.")
    except InvalidInput as error:  # a word that the contract does not have, a number that is none
        return list(error.violations)
    return separation_faults(choice.said, "job.separation")


def _check_restoration(settings: restorer_service_pb2.RestorationSettings) -> list[Violation]:
    violations = []
    names = [step.engine for step in settings.steps]
    for index, step in enumerate(settings.steps):
        field = f"job.restoration.steps[{index}]"
        violations += _out_of_range(step, _STEP_RANGES, field)
        if not step.engine:
            violations.append(Violation(f"{field}.engine", "a step names its engine"))
        elif step.engine in names[:index]:
            violations.append(Violation(f"{field}.engine", f"the engine {step.engine!r} stands in the chain twice"))
        elif step.engine == PASSTHROUGH and len(names) > 1:
            violations.append(Violation(f"{field}.engine", f"{PASSTHROUGH} stands alone"))
    return violations


def _out_of_range(
    message: restorer_service_pb2.RestorationStep,
    ranges: Sequence[tuple[str, float, float]],
    path: str,
) -> list[Violation]:
    violations = []
    for name, low, high in ranges:
        value, is_above = getattr(message, name), name in _ABOVE
        is_allowed = low <= value <= high and not (is_above and value == low)  # a NaN is not in range either
        if message.HasField(name) and not is_allowed:  # type: ignore[arg-type]
            allowed = f"{'above ' if is_above else ''}{low:g} to {high:g}"
            violations.append(Violation(f"{path}.{name}", f"{name} is {value:g}, must be {allowed}"))
    return violations
