"""The checks of a master: each fails for what it is there for, and for nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from services.master.chain_rules import Treatment
from services.master.checks import quality_checks
from services.master.levelling import Levelled
from services.master.loudness_loop import Drive
from services.master.settings import GuardRails, MasterPlan, QualityCheck

PLAN = MasterPlan("loud", "chain", -1.0, guard_rails=GuardRails(crest_factor_db=6.0))
DRIVE = Drive(5.0, np.zeros((1, 4), np.float32), -10.0, 2.0)
TREATMENT = Treatment(2.0, 1.2)
LEVELLED = Levelled(np.zeros((2, 8), np.float32), DRIVE, -10.0, 1, 9.0)


def checked(
    levelled: Levelled = LEVELLED, treatment: Treatment = TREATMENT, plan: MasterPlan = PLAN
) -> dict[str, QualityCheck]:
    """The checks of the rails by name."""
    return {check.name: check for check in quality_checks(plan, 8, 48000, None, levelled, treatment, ())}


def test_rails_that_hold_pass() -> None:
    """Every guard-rail has a check with what was measured and what is allowed."""
    found = checked()
    assert {name: (check.value, check.limit) for name, check in found.items()} == {
        "LIMITING": (2.0, 3.0), "CREST_FACTOR": (9.0, 6.0), "SIDE_GAIN": (1.2, 1.4), "EQUALIZER": (2.0, 4.0),
    }  # fmt: skip
    assert all(check.passed for check in found.values())


@pytest.mark.parametrize(
    ("name", "levelled", "treatment"),
    [
        ("LIMITING", replace(LEVELLED, drive=replace(DRIVE, average_limiting_db=3.2)), TREATMENT),
        ("CREST_FACTOR", replace(LEVELLED, crest_factor_db=5.5), TREATMENT),
        ("SIDE_GAIN", LEVELLED, Treatment(2.0, 1.6)),
        ("EQUALIZER", LEVELLED, Treatment(4.5, 1.2)),
    ],
)
def test_each_rail_fails_alone(name: str, levelled: Levelled, treatment: Treatment) -> None:
    """What breaks one rail fails its check and no other."""
    assert [check.name for check in checked(levelled, treatment).values() if not check.passed] == [name]


def test_what_was_not_done_is_not_checked() -> None:
    """No limiter, no crest rail, no sides: no such checks; a pass-through has none at all."""
    quiet = replace(LEVELLED, drive=None, crest_factor_db=None)
    assert list(checked(quiet, Treatment(0.0, None))) == ["EQUALIZER"]
    assert checked(plan=replace(PLAN, engine="passthrough")) == {}
