"""What the master does with plans from outside: each number is finite and in its range, or refused by its field."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from outboard.audio.processors import Compressor, Equalizer, FilterBand, Processor
from outboard.errors import InvalidInput
from services.master.settings import (
    DynamicsBand,
    GuardRails,
    LevelPoint,
    Limiter,
    MasterPlan,
    MatchBand,
    ReferenceMatch,
    check_plan,
)

PLAIN = MasterPlan("streaming", "chain", -1.0, -14.0)


def matched(**fields: object) -> MasterPlan:
    return replace(PLAIN, intent="reference", engine="match", match=ReferenceMatch(**fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        (replace(PLAIN, drive_db=math.nan), "drive_db"),
        (replace(PLAIN, target_lufs=-math.inf), "target_lufs"),
        (replace(PLAIN, ceiling_dbtp=math.nan), "ceiling_dbtp"),
        (replace(PLAIN, limiter=Limiter(lookahead_ms=1e9)), "limiter.lookahead_ms"),
        (replace(PLAIN, limiter=Limiter(release_ms=math.nan)), "limiter.release_ms"),
        (replace(PLAIN, guard_rails=GuardRails(average_limiting_db=math.nan)), "guard_rails.average_limiting_db"),
        (replace(PLAIN, guard_rails=GuardRails(side_gain=9.0)), "guard_rails.side_gain"),
        (replace(PLAIN, chain=(Processor("eq", Equalizer((FilterBand("peak", 1_000.0, q=0.0),))),)),
         "chain[0].equalizer.bands[0].q"),
        (replace(PLAIN, chain=(Processor("glue", Compressor(math.nan, 2.0)),)), "chain[0].compressor.threshold_db"),
        (replace(PLAIN, chain=(Processor("glue", Compressor(-20.0, 2.0, sidechain="kick")),)),
         "chain[0].compressor.sidechain"),
        (matched(intensity=math.nan), "match.intensity"),
        (matched(bands=(MatchBand(100.0, -math.inf, 0.0),)), "match.bands[0].mid_gain_db"),
        (matched(bands=(MatchBand(100.0, 0.0, math.nan),)), "match.bands[0].side_gain_db"),
        (matched(dynamics=(DynamicsBand(0.0, 100.0, -30.0, (LevelPoint(0.0, 4_000.0),)),)),
         "match.dynamics[0].points[0].gain_db"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused_by_its_field(plan: MasterPlan, field: str) -> None:
    """INVALID_ARGUMENT, and the first violation is the field that is wrong."""
    with pytest.raises(InvalidInput) as caught:
        check_plan(plan)
    assert caught.value.reason == "INVALID_ARGUMENT"
    assert caught.value.violations[0].field == field


def test_an_engine_that_is_not_there_has_its_own_reason() -> None:
    """As in every other stage."""
    with pytest.raises(InvalidInput) as caught:
        check_plan(replace(PLAIN, engine="magic"))
    assert (caught.value.reason, caught.value.violations[0].field) == ("ENGINE_UNKNOWN", "engine")
