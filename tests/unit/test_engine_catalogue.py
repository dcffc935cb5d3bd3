"""Which engine a job gets that names none, from what a stage lists."""

from __future__ import annotations

import pytest

from outboard.errors import FailedPrecondition
from outboard.v1 import audio_pb2, separator_service_pb2
from services.orchestrator.engines import EngineCatalogue

FIELD = "job.separation.engine"


def catalogue(*, are_weights_here: bool) -> EngineCatalogue:
    """As a separator lists its engines: the models first, then what needs nothing."""
    listed = separator_service_pb2.SeparatorServiceListEnginesResponse()
    for name, counts in (("htdemucs_ft", (2, 4)), ("htdemucs_6s", (2, 4, 5, 6))):
        hint = "" if are_weights_here else f"`outboard models pull {name}` fetches them"
        error = "" if are_weights_here else "MODEL_WEIGHTS_MISSING"
        listed.engines.append(
            audio_pb2.EngineInfo(
                name=name, stem_counts=counts, available=not error, unavailable_reason=hint, unavailable_error=error
            )
        )
    listed.engines.append(audio_pb2.EngineInfo(name="spectral", stem_counts=(2, 4), available=True))
    listed.engines.append(audio_pb2.EngineInfo(name="passthrough", stem_counts=(2, 4), available=True))

    async def ask() -> separator_service_pb2.SeparatorServiceListEnginesResponse:
        return listed

    return EngineCatalogue("separator", ask)


@pytest.mark.parametrize(
    ("stem_count", "are_weights_here", "expected"),
    [(4, True, "htdemucs_ft"), (6, True, "htdemucs_6s"), (4, False, "spectral"), (2, False, "spectral")],
)
async def test_the_preferred_engine_offers_the_number_of_stems(
    stem_count: int, are_weights_here: bool, expected: str
) -> None:
    """The first that is available and separates into so many stems."""
    engine = await catalogue(are_weights_here=are_weights_here).resolve("", FIELD, stem_count)
    assert engine.name == expected


@pytest.mark.parametrize("stem_count", [5, 6])
async def test_more_stems_than_the_weights_here_give_name_the_command(stem_count: int) -> None:
    """`--stems 6` without weights is refused before anything is computed, with what to do about it."""
    with pytest.raises(FailedPrecondition, match="outboard models pull htdemucs_6s") as error:
        await catalogue(are_weights_here=False).resolve("", FIELD, stem_count)
    assert (error.value.reason, error.value.violations[0].field) == ("MODEL_WEIGHTS_MISSING", FIELD)
