"""Fields that a stage complains of, told by their place in the job."""

from __future__ import annotations

import pytest

from outboard.errors import InvalidInput, Violation
from services.orchestrator.field_paths import name_job_fields


@pytest.mark.parametrize(
    ("block", "told", "expected"),
    [
        ("mastering", "target_lufs", "job.mastering.target_lufs"),
        ("mastering", "settings.deliverables[2].name", "job.mastering.deliverables[2].name"),
        ("mastering", "config.settings.intent", "job.mastering.intent"),
        ("mastering", "job.mastering.engine", "job.mastering.engine"),
        ("mastering", "references", "references"),
        ("mastering", "plan.limiter.hold_ms", "job.master_plan.limiter.hold_ms"),
        ("mix", "config.plan.strips[3].gain_db", "job.mix_plan.strips[3].gain_db"),
        ("mix", "plan.strips", "job.mix_plan.strips"),
        ("restoration", "plan.strips", "plan.strips"),
        ("mix", "settings.bypass", "job.mix.bypass"),
        ("separation", "settings.stem_count", "job.separation.stem_count"),
        ("restoration", "settings.steps[0].amount", "job.restoration.steps[0].amount"),
        ("restoration", "chunk.samples", "chunk.samples"),
    ],
)
def test_field_of_a_stage_is_told_by_its_place_in_the_job(block: str, told: str, expected: str) -> None:
    """A stage's setting gets its whole path in the job; what is no setting keeps the stage's name."""
    error = name_job_fields(InvalidInput("wrong", field=told), block)
    assert [(violation.field, violation.description) for violation in error.violations] == [(expected, "wrong")]
    quoting = name_job_fields(InvalidInput(f"{told}: wrong", violations=[Violation(told, "wrong")]), block)
    assert quoting.message == f"{expected}: wrong"
