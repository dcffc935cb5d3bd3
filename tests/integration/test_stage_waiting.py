"""Calls of a stage that wait, hold others up or would: for a turn, for a client that does not read, for an answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.errors import ResourceExhausted
from tests.integration.stream_toy import (
    TWO_FRAMES,
    Request,
    chunk_message,
    config_message,
    noise,
    requests_of,
    serving_toy,
    until,
    workers,
)

BOTH = pytest.mark.parametrize("spooled", [False, True], ids=["streaming", "spooling"])


@BOTH
async def test_a_call_too_many_is_refused_and_told_when_to_come_back(tmp_path: Path, spooled: bool) -> None:
    """Beyond the calls that compute and those that may wait, RESOURCE_EXHAUSTED with RetryInfo."""
    async with serving_toy(tmp_path, spooled=spooled, concurrent_renders=1, waiting_calls=1) as mesh:
        calls = [mesh.stub.Restore(timeout=20.0) for _ in range(2)]
        for call in calls:
            await call.write(config_message())
        await until(lambda: mesh.toy.bridge.calls == 2)
        with pytest.raises(ResourceExhausted) as caught:
            await mesh.send(requests_of(noise(100)))
        assert caught.value.retry_after_seconds
        for call in calls:
            call.cancel()
        await mesh.assert_unharmed()


@BOTH
async def test_calls_beyond_the_renders_wait_their_turn_and_all_finish(tmp_path: Path, spooled: bool) -> None:
    """Six calls on one render slot: every one gets its own audio back."""
    async with serving_toy(tmp_path, spooled=spooled, concurrent_renders=1, waiting_calls=8) as mesh:
        songs = [noise(40_000, seed) for seed in range(6)]
        results = await asyncio.gather(*(mesh.send(requests_of(song)) for song in songs))
        for song, (audio, _) in zip(songs, results, strict=True):
            np.testing.assert_array_equal(audio, song)
        await mesh.assert_unharmed()


async def test_idle_clients_do_not_keep_others_from_computing(tmp_path: Path) -> None:
    """Two slots, two clients that sent a config and nothing else, one that sent half a block, one that reads nothing:
    a fifth is served at once.
    """
    async with serving_toy(tmp_path, spooled=False, concurrent_renders=2) as mesh:
        idle = [mesh.stub.Restore(timeout=20.0) for _ in range(4)]
        for call in idle:
            await call.write(config_message())
        await idle[2].write(chunk_message(TWO_FRAMES))
        deaf = asyncio.create_task(_write_all(idle[3], requests_of(noise(3_000_000), 131_072)[1:]))
        await until(lambda: mesh.toy.bridge.calls == 4)
        await asyncio.sleep(0.3)
        song = noise(100_000)
        audio, _ = await mesh.send(requests_of(song), timeout=5.0)
        np.testing.assert_array_equal(audio, song)
        for call in idle:
            call.cancel()
        await asyncio.gather(deaf, return_exceptions=True)
        await mesh.assert_unharmed()


async def _write_all(call: Any, requests: list[Request]) -> None:
    for request in requests:
        await call.write(request)


async def test_a_client_that_does_not_read_holds_back_its_own_writing_only(tmp_path: Path) -> None:
    """Back-pressure: of 64 MiB the service takes a bounded part, and cancelling frees a worker that waits to send."""
    async with serving_toy(tmp_path, spooled=False) as mesh:
        call = mesh.stub.Restore(timeout=20.0)
        await call.write(config_message())
        chunk = np.zeros((131_072, 2), "<f4").tobytes()
        written = 0
        with contextlib.suppress(TimeoutError):
            for index in range(21):
                async with asyncio.timeout(0.5):
                    await call.write(chunk_message(chunk, index * 131_072))
                written += 1
        assert written < 21, f"the service took {written} MiB though nobody read"
        call.cancel()
        await mesh.assert_unharmed()


@BOTH
async def test_health_answers_within_100_ms_while_every_render_is_busy(tmp_path: Path, spooled: bool) -> None:
    """No computing on the event loop: 20 health checks beside four busy renders."""
    async with serving_toy(tmp_path, spooled=spooled, seconds_per_block=0.3, concurrent_renders=4) as mesh:
        busy = [asyncio.create_task(mesh.send(requests_of(noise(120_000, seed)))) for seed in range(4)]
        await until(lambda: len(workers()) == 4)
        await asyncio.sleep(0.3)
        stub = health_pb2_grpc.HealthStub(mesh.channel)
        waits = []
        for _ in range(20):
            started = time.monotonic()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
            waits.append(time.monotonic() - started)
            await asyncio.sleep(0.02)
        assert max(waits) < 0.1, f"slowest health answer {max(waits) * 1000:.0f} ms"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        mesh.toy._seconds_per_block = 0.0
        await mesh.assert_unharmed()
