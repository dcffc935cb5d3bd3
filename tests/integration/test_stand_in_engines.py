"""What a job says when the engine that should have separated it could not."""

from __future__ import annotations

from pathlib import Path

import pytest

from outboard.v1 import audio_pb2, separator_service_pb2
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import bench
from tests.integration.toy_stages import ENGINE

Job = messages.Job


def _absent(name: str, error: str, *counts: int) -> audio_pb2.EngineInfo:
    return audio_pb2.EngineInfo(
        name=name, version=1, unavailable_reason=f"why {name} is away", unavailable_error=error, stem_counts=counts
    )


def _with_stems(engine: audio_pb2.EngineInfo, *counts: int) -> audio_pb2.EngineInfo:
    made = audio_pb2.EngineInfo(stem_counts=counts)
    made.MergeFrom(engine)
    return made


@pytest.mark.asyncio
async def test_a_stand_in_is_told_where_the_better_engine_is_broken(tmp_path: Path) -> None:
    """Nobody named an engine: for each better one whose weights are damaged or whose model server is away there is a
    warning with its reason. An engine that was never installed, or that does not make so many stems, is passed over in
    silence; so are all of them where the job names its engine.
    """
    async with bench(tmp_path / "store") as mesh:
        mesh.behaviour.better_engines = [
            _absent("damaged", "MODEL_WEIGHTS_TRUNCATED", 2, 4),
            _absent("served", "MODEL_SERVER_UNAVAILABLE", 4),
            _absent("uninstalled", "MODEL_WEIGHTS_MISSING", 4),
            _absent("bare", "ENGINE_UNAVAILABLE", 4),
            _absent("two", "MODEL_WEIGHTS_TRUNCATED", 2),
            _with_stems(ENGINE, 4),
        ]
        named = separator_service_pb2.SeparationSettings(engine="toy")
        jobs = [await mesh.job(930, stages=[messages.STAGE_SEPARATE], separation=each) for each in (None, named)]
        unnamed, chosen = [await mesh.client.wait(job.name) for job in jobs]
    assert (unnamed.state, chosen.state) == (Job.STATE_SUCCEEDED, Job.STATE_SUCCEEDED)
    assert [(warning.code, warning.message) for warning in unnamed.report.warnings] == [
        ("ENGINE_STAND_IN", "toy separated, as damaged cannot run now: why damaged is away"),
        ("ENGINE_STAND_IN", "toy separated, as served cannot run now: why served is away"),
    ]
    assert not chosen.report.warnings
