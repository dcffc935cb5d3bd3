"""Cancelling: the job is cancelled at once, the stage is idle within two seconds, and nothing partial is left."""

from __future__ import annotations

import asyncio
import time

import pytest

from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
STATES = {
    "separate": Job.STATE_SEPARATING,
    "restore": Job.STATE_RESTORING,
    "mix": Job.STATE_MIXING,
    "master": Job.STATE_MASTERING,
}


@pytest.mark.parametrize("stage", list(STATES))
async def test_stage_is_idle_within_two_seconds(mesh: Bench, stage: str) -> None:
    """Whatever stage is at work when its job is cancelled ends its call within 2 s, and later stages are not called."""
    mesh.behaviour.seconds_per_chunk[stage] = 0.5
    job = await mesh.job(list(STATES).index(stage), seconds=8.0)
    while not mesh.behaviour.running[stage]:
        await asyncio.sleep(0.02)
    mesh.behaviour.calls.clear()
    began = time.monotonic()
    cancelled = await mesh.client.cancel_job(job.name)
    assert cancelled.state == Job.STATE_CANCELLED
    assert cancelled.HasField("end_time")
    while mesh.behaviour.running[stage]:
        await asyncio.sleep(0.02)
        assert time.monotonic() - began < 2.0, f"{stage} was still busy 2 s after the cancel"
    assert (await mesh.client.wait(job.name)).state == Job.STATE_CANCELLED
    await asyncio.sleep(0.5)
    assert not set(mesh.behaviour.calls) - {stage}
    assert not list((mesh.folder / "partial").iterdir())


async def test_cancelling_twice_or_late_changes_nothing(mesh: Bench) -> None:
    """A job that has ended is returned as it is."""
    job = await mesh.client.wait((await mesh.job(50)).name)
    assert (await mesh.client.cancel_job(job.name)).state == Job.STATE_SUCCEEDED


async def test_cancelled_job_can_be_done_again(mesh: Bench) -> None:
    """What a cancelled job had finished serves the next one; what it had not is computed."""
    mesh.behaviour.seconds_per_chunk["mix"] = 0.5
    job = await mesh.job(51, seconds=3.0)
    while not mesh.behaviour.running["mix"]:
        await asyncio.sleep(0.02)
    await mesh.client.cancel_job(job.name)
    mesh.behaviour.seconds_per_chunk.clear()
    mesh.behaviour.calls.clear()
    again = await mesh.client.wait((await mesh.job(51, seconds=3.0)).name)
    assert again.state == Job.STATE_SUCCEEDED
    # The mix that was at work when the cancel came may have ended first: then it serves as well.
    assert set(mesh.behaviour.calls) <= {"mix", "master"}
