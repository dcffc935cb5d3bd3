"""A stage's stream over a real socket: what goes well, and every way in which it can go wrong.

Two toy services stand for the four stages: one streams through (as the separator does), one spools and then renders (as
the others do). They use the same bridge, readers and guard as the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from outboard.errors import DeadlineExceeded, InvalidInput, OutboardError, ResourceExhausted
from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.errors import from_rpc_error
from outboard.settings import ServerSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import restorer_service_pb2_grpc
from tests.integration.stream_toy import (
    RATE,
    TWO_FRAMES,
    Mesh,
    Request,
    Toy,
    chunk_message,
    config_message,
    noise,
    requests_of,
    serving_toy,
    until,
    workers,
)


@pytest.fixture(params=[False, True], ids=["streaming", "spooling"])
def spooled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def mesh(tmp_path: Path, spooled: bool) -> AsyncIterator[Mesh]:
    async with serving_toy(tmp_path, spooled=spooled) as mesh:
        yield mesh


@pytest.mark.parametrize("piece", [1, 777, 8_192, 131_072])
async def test_audio_is_the_same_however_the_stream_is_cut(mesh: Mesh, piece: int) -> None:
    """Chunks of 8 bytes to 1 MiB carry the same bytes to the stage and back."""
    song = noise(2_000 if piece == 1 else 150_000)
    audio, last = await mesh.send(requests_of(song, piece))
    np.testing.assert_array_equal(audio, song)
    assert last.report.frames == song.shape[1]


async def test_a_whole_mebibyte_in_one_chunk_is_accepted(mesh: Mesh) -> None:
    """The largest chunk of the contract passes all message limits."""
    song = noise(131_072)
    audio, _ = await mesh.send([config_message(131_072), chunk_message(song.T.tobytes())])
    np.testing.assert_array_equal(audio, song)


_BAD_STREAMS: dict[str, tuple[list[Request], str]] = {
    "gap": ([config_message(), chunk_message(TWO_FRAMES), chunk_message(TWO_FRAMES, 3)], "STREAM_GAP"),
    "overlap": ([config_message(), chunk_message(TWO_FRAMES), chunk_message(TWO_FRAMES, 1)], "STREAM_OVERLAP"),
    "no config": ([chunk_message(TWO_FRAMES)], "STREAM_CONFIG_MISSING"),
    "nothing at all": ([], "STREAM_CONFIG_MISSING"),
    "two configs": ([config_message(), config_message()], "STREAM_CONFIG_REPEATED"),
    "a config after audio": ([config_message(), chunk_message(TWO_FRAMES), config_message()], "STREAM_CONFIG_REPEATED"),
    "an empty request": ([config_message(), Request()], "INVALID_ARGUMENT"),
    "an unknown stem": ([config_message(), chunk_message(TWO_FRAMES, stem="../drums")], "STREAM_STEM_UNKNOWN"),
    "a wrong byte count": ([config_message(), chunk_message(b"\0" * 15)], "STREAM_CHUNK_SIZE"),
    "half a frame": ([config_message(), chunk_message(b"\0" * 12)], "STREAM_CHUNK_SIZE"),
    "more than 1 MiB": ([config_message(), chunk_message(b"\0" * (1024 * 1024 + 8))], "STREAM_CHUNK_SIZE"),
    "fewer frames than announced": ([config_message(3), chunk_message(TWO_FRAMES)], "STREAM_LENGTH_MISMATCH"),
    "more frames than announced": ([config_message(1), chunk_message(TWO_FRAMES)], "STREAM_LENGTH_MISMATCH"),
    "no frames": ([config_message()], "AUDIO_EMPTY"),
    "0 announced frames": ([config_message(0)], "AUDIO_EMPTY"),
    "NaN": ([config_message(), chunk_message(np.full(4, np.nan, "<f4").tobytes())], "AUDIO_NOT_FINITE"),
    "infinity": ([config_message(), chunk_message(np.full(4, -np.inf, "<f4").tobytes())], "AUDIO_NOT_FINITE"),
    "9 channels": ([config_message(channels=9)], "AUDIO_TOO_MANY_CHANNELS"),
    "0 channels": ([config_message(channels=0)], "INVALID_ARGUMENT"),
    "4 kHz": ([config_message(rate=4_000)], "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "384 kHz": ([config_message(rate=384_000)], "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "10 h": ([config_message(36_000 * RATE)], "AUDIO_TOO_LONG"),
}


@pytest.mark.parametrize("name", _BAD_STREAMS)
async def test_a_bad_stream_is_refused_with_its_reason(mesh: Mesh, name: str) -> None:
    """INVALID_ARGUMENT with the documented reason and the field; the service goes on as if nothing had been."""
    requests, reason = _BAD_STREAMS[name]
    with pytest.raises(InvalidInput) as caught:
        await mesh.send(requests)
    assert caught.value.reason == reason
    assert caught.value.violations, "the violation must name the field"
    await mesh.assert_unharmed()


async def test_a_refusal_in_the_middle_of_a_busy_stream_keeps_its_reason(tmp_path: Path) -> None:
    """The client is writing at full speed when the refusal comes: still the reason arrives, thirty times of thirty."""
    async with serving_toy(tmp_path, spooled=False) as mesh:
        song = noise(400_000)
        requests = requests_of(song, 2_048)
        requests.insert(20, config_message())
        for _ in range(30):
            with pytest.raises(InvalidInput) as caught:
                await mesh.send(requests)
            assert caught.value.reason == "STREAM_CONFIG_REPEATED"
        await mesh.assert_unharmed()


async def test_audio_longer_than_the_limit_is_refused_while_it_arrives(tmp_path: Path, spooled: bool) -> None:
    """A stream that announces no length is cut off at the limit, not spooled to the end."""
    async with serving_toy(tmp_path, spooled=spooled, maximum_audio_seconds=1.0) as mesh:
        song = noise(RATE * 2)
        with pytest.raises(InvalidInput) as caught:
            await mesh.send([config_message(), *requests_of(song)[1:]])
        assert caught.value.reason == "AUDIO_TOO_LONG"
        await mesh.assert_unharmed()


@pytest.mark.parametrize("how", ["cancels", "closes its channel", "is cancelled while the stage computes"])
async def test_a_client_that_vanishes_leaves_nothing_behind(tmp_path: Path, spooled: bool, how: str) -> None:
    """The worker stops within 2 s, wherever it was, and takes its files along."""
    busy = 0.05 if how.startswith("is") else 0.0
    async with serving_toy(tmp_path, spooled=spooled, seconds_per_block=busy) as mesh:
        async with aio_channel(mesh.address) as channel:
            stub = restorer_service_pb2_grpc.RestorerServiceStub(channel)
            call = stub.Restore(timeout=20.0)
            for request in requests_of(noise(200_000)):
                await call.write(request)
            if busy:
                await call.done_writing()
            await until(lambda: bool(workers()))
            await asyncio.sleep(0.2)
            if how != "closes its channel":
                call.cancel()
        await mesh.assert_unharmed()


async def test_a_deadline_that_passes_stops_the_work(tmp_path: Path, spooled: bool) -> None:
    """DEADLINE_EXCEEDED at the deadline; the worker stops."""
    async with serving_toy(tmp_path, spooled=spooled, seconds_per_block=0.3) as mesh:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await mesh.send(requests_of(noise(200_000)), timeout=0.8)
        waited = time.monotonic() - started
        assert caught.value.reason == "DEADLINE_EXCEEDED"
        assert waited < 2.0, f"the deadline of 0.8 s took {waited:.2f} s"
        mesh.toy._seconds_per_block = 0.0
        await mesh.assert_unharmed()


async def test_the_server_sets_a_deadline_where_the_client_gives_none(tmp_path: Path, spooled: bool) -> None:
    """No call lives longer than the server's maximum, and it ends with DEADLINE_EXCEEDED and its reason."""
    settings = Settings(
        server=ServerSettings(maximum_deadline_seconds=0.5),
        spool=SpoolSettings(directory=tmp_path),
    )
    toy = Toy(settings, spooled=spooled)
    register = functools.partial(restorer_service_pb2_grpc.add_RestorerServiceServicer_to_server, toy)
    async with in_process(register, settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        call = restorer_service_pb2_grpc.RestorerServiceStub(channel).Restore()
        await call.write(config_message())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        error = from_rpc_error(caught.value)
        assert isinstance(error, DeadlineExceeded)
        await Mesh(toy, channel, tmp_path, server.address).assert_unharmed()


async def test_an_unexpected_error_tells_the_client_nothing(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL without a detail for the client; the traceback is in the log."""
    mesh.toy.failure = ValueError("a secret in /srv/key")
    with pytest.raises(OutboardError) as caught:
        await mesh.send(requests_of(noise(3_000)))
    assert caught.value.reason == "INTERNAL"
    assert "secret" not in caught.value.message
    assert "a secret in /srv/key" in caplog.text
    await mesh.assert_unharmed()


async def test_a_full_disk_is_resource_exhausted(mesh: Mesh) -> None:
    """ENOSPC anywhere in the work is RESOURCE_EXHAUSTED with STORAGE_FULL and a time to try again."""
    mesh.toy.failure = OSError(28, "No space left on device")
    with pytest.raises(ResourceExhausted) as caught:
        await mesh.send(requests_of(noise(3_000)))
    assert caught.value.reason == "STORAGE_FULL"
    assert caught.value.retry_after_seconds
    await mesh.assert_unharmed()


async def test_progress_comes_at_most_twice_a_second(tmp_path: Path) -> None:
    """However often the work reports, the stream carries two messages a second, never falling."""
    async with serving_toy(tmp_path, spooled=True, seconds_per_block=0.25) as mesh:
        started = time.monotonic()
        requests = requests_of(noise(100_000))
        async with contextlib.aclosing(exchange(mesh.stub.Restore, requests, timeout_seconds=20)) as responses:
            kinds = [(response.WhichOneof("response"), response.progress.fraction) async for response in responses]
        seen = [fraction for kind, fraction in kinds if kind == "progress"]
        seconds = time.monotonic() - started
        assert 1 <= len(seen) <= 2 * seconds + 1, f"{len(seen)} messages in {seconds:.1f} s"
        assert seen == sorted(seen)


async def test_an_error_in_the_client_s_own_source_comes_out_of_the_exchange(mesh: Mesh) -> None:
    """What breaks while sending is what the caller sees, and the service drops the call."""

    def broken() -> Iterator[Request]:
        yield config_message()
        raise KeyError("the store failed")

    with pytest.raises(KeyError, match="the store failed"):
        await mesh.send(broken())
    await mesh.assert_unharmed()
