"""Health while a real service is busy: the promise that nothing computes on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.streaming import chunk_messages
from outboard.testing import child
from outboard.v1 import (
    audio_pb2,
    master_service_pb2,
    master_service_pb2_grpc,
    mixer_service_pb2,
    mixer_service_pb2_grpc,
    restorer_service_pb2,
    restorer_service_pb2_grpc,
    separator_service_pb2,
    separator_service_pb2_grpc,
)

pytestmark = pytest.mark.acceptance

RATE = 48_000
MIX_STEMS = [f"stem{number}" for number in range(12)]
_ONE_THREAD = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _song(seconds: float) -> np.ndarray:
    """A beat with rumble: clipped, with DC, so that the restorer has work."""
    frames = int(seconds * RATE)
    beat = np.exp(-((np.arange(frames) / RATE * 2) % 1.0) * 20)
    noise = np.random.default_rng(0).standard_normal((2, frames)) * (0.1 + beat)
    return np.clip(noise + 0.02, -0.9, 0.9).astype(np.float32)


def _call(name: str, channel: Any, song: np.ndarray) -> tuple[Any, list[Any]]:
    form = audio_pb2.AudioFormat(sample_rate_hertz=RATE, channels=2, frames=song.shape[1])
    stems = MIX_STEMS if name == "mixer" else [""]
    chunks = [chunk for stem in stems for chunk in chunk_messages(song, 0, stem)]
    if name == "separator":
        separate = separator_service_pb2.SeparateRequest
        config = separate(config=separator_service_pb2.SeparateConfig(format=form))
        method = separator_service_pb2_grpc.SeparatorServiceStub(channel).Separate
        return method, [config, *(separate(chunk=chunk) for chunk in chunks)]
    if name == "restorer":
        restore = restorer_service_pb2.RestoreRequest
        method = restorer_service_pb2_grpc.RestorerServiceStub(channel).Restore
        config_ = restore(config=restorer_service_pb2.RestoreConfig(format=form))
        return method, [config_, *(restore(chunk=chunk) for chunk in chunks)]
    if name == "mixer":
        mix = mixer_service_pb2.MixRequest
        listed = [mixer_service_pb2.MixStem(name=stem) for stem in MIX_STEMS]
        method = mixer_service_pb2_grpc.MixerServiceStub(channel).Mix
        first = mix(config=mixer_service_pb2.MixConfig(format=form, stems=listed))
        return method, [first, *(mix(chunk=chunk) for chunk in chunks)]
    master = master_service_pb2.MasterRequest
    method = master_service_pb2_grpc.MasterServiceStub(channel).Master
    return method, [
        master(config=master_service_pb2.MasterConfig(format=form)),
        *(master(chunk=chunk) for chunk in chunks),
    ]


@pytest.mark.parametrize("name", ["separator", "restorer", "mixer", "master"])
async def test_health_answers_within_100_ms_while_the_service_is_busy(name: str) -> None:
    """Two renders at once (the mixer's of twelve stems) in a process of their own; every answer is in time."""

    async def render(method: Any, requests: list[Any]) -> None:
        async with contextlib.aclosing(exchange(method, requests, timeout_seconds=100)) as responses:
            async for _ in responses:
                pass

    async with child(name, environment=_ONE_THREAD) as (_, address):  # noqa: SIM117 - the channels need the address
        async with aio_channel(address) as channel, aio_channel(address) as probe:
            # Made before the clock runs: cutting a song into messages would keep this loop from the probe.
            calls = [_call(name, channel, _song(20.0)) for _ in range(2)]
            busy = asyncio.gather(*(render(*call) for call in calls))
            stub, waits = health_pb2_grpc.HealthStub(probe), []
            while not busy.done():
                started = time.perf_counter()
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
                waits.append(time.perf_counter() - started)
                await asyncio.sleep(0.02)
            await busy
    slowest = max(waits) * 1000
    assert slowest < 100.0, f"slowest of {len(waits)} answers: {slowest:.0f} ms"
