"""Where a field that a stage complains of stands in the job: stages know nothing of jobs."""

from __future__ import annotations

import re

from outboard.errors import OutboardError, Violation
from outboard.v1 import job_service_pb2

_STAGE_PREFIX = re.compile(r"^(config\.)?(settings\.)?")
_PLAN_PREFIX = re.compile(r"^(config\.)?plan(\.|$)")
_PLANS = {"mix": "mix_plan", "mastering": "master_plan"}
_FIRST_PART = re.compile(r"[A-Za-z0-9_]+")


def name_job_fields(error: OutboardError, block: str) -> OutboardError:
    """The same error, its violations renamed from a stage's fields to the job's.

    Args:
        error: what a stage answered; changed in place.
        block: the field of `Job` whose message the stage was given as its settings, for instance "mastering".
            "config.settings.intensity", "settings.intensity" and "intensity" all become "job.mastering.intensity",
            "config.plan.drive_db" becomes "job.master_plan.drive_db"; a field that is none of these keeps the stage's
            name.
    """
    for entry in error.violations:
        if error.message.startswith(f"{entry.field}: "):
            error.message = f"{_job_field(entry.field, block)}{error.message.removeprefix(entry.field)}"
            break
    error.violations = tuple(Violation(_job_field(entry.field, block), entry.description) for entry in error.violations)
    return error


def _job_field(field: str, block: str) -> str:
    if field.startswith("job."):
        return field
    if block in _PLANS and _PLAN_PREFIX.match(field):
        return _PLAN_PREFIX.sub(rf"job.{_PLANS[block]}\2", field)
    setting = _STAGE_PREFIX.sub("", field)
    first = _FIRST_PART.match(setting)
    settings = job_service_pb2.Job.DESCRIPTOR.fields_by_name[block].message_type
    if first and settings is not None and first.group() in settings.fields_by_name:
        return f"job.{block}.{setting}"
    return field
