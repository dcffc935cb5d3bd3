"""A stage's stream over a real socket: what goes well, and every way in which it can go wrong.

Two toy services stand for the four stages: one streams through (as the separator does), one spools and then renders (as
the others do). They use the same bridge, readers and guard as the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.audio.spool import Spool, blocks
from outboard.errors import DeadlineExceeded, InvalidInput, OutboardError, ResourceExhausted
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.errors import from_rpc_error
from outboard.rpc.scratch import scratch_folder
from outboard.rpc.stage import first_config, single_stream, spool_streams
from outboard.rpc.streaming import ChunkWriter, checked_format, chunk_messages
from outboard.settings import LimitSettings, ServerSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import audio_pb2, restorer_service_pb2, restorer_service_pb2_grpc

RATE = 48_000
Request = restorer_service_pb2.RestoreRequest
Response = restorer_service_pb2.RestoreResponse
Audio = np.ndarray


def _response(chunk: audio_pb2.AudioChunk) -> Response:
    return Response(chunk=chunk)


def _progress(fraction: float) -> Response:
    return Response(progress=audio_pb2.Progress(fraction=fraction))


class Toy(restorer_service_pb2_grpc.RestorerServiceServicer):
    """Returns what it gets. ``seconds_per_block`` of computing make it busy; ``spooled``: it waits for the end."""

    def __init__(self, settings: Settings, *, spooled: bool, seconds_per_block: float = 0.0) -> None:
        self.bridge = Bridge("toy", settings.limits)
        self._settings = settings
        self._spooled = spooled
        self._seconds_per_block = seconds_per_block
        self.failure: Exception | None = None

    def Restore(self, request_iterator: AsyncIterator[Request], context: Any) -> AsyncIterator[Response]:  # noqa: N802
        return self.bridge.run(self._restore, request_iterator, _progress)

    def _restore(self, call: StageCall[Request, Response]) -> Iterator[Response]:
        requests = call.requests()
        config = first_config(requests)
        longest = self._settings.limits.maximum_audio_seconds
        form = checked_format(config.format, field="config.format", maximum_seconds=longest)
        writer = ChunkWriter(form.channels)
        with scratch_folder(self._settings.spool.directory) as folder, Spool(form.channels, folder) as spool:
            (folder / "rendered").write_bytes(b"x" * 1000)
            source = single_stream(requests, form, longest)
            if self._spooled:
                spool_streams(requests, {"": form}, {"": spool}, longest)
                source = blocks(spool.array, 16_384)
            with call.turn() as turn:
                for block in turn.awaited(source):
                    self._compute(call)
                    yield from map(_response, writer.write(block))
        yield from map(_response, writer.finish())
        yield Response(report=restorer_service_pb2.RestorationReport(frames=writer.frames))

    def _compute(self, call: StageCall[Request, Response]) -> None:
        if self.failure is not None:
            raise self.failure
        end = time.monotonic() + self._seconds_per_block
        while time.monotonic() < end:
            call.progress(0.5)
            np.fft.rfft(np.ones(8192))


class Mesh:
    """A running toy service, its spool folder and a channel to it."""

    def __init__(self, toy: Toy, channel: grpc.aio.Channel, folder: Path, address: str) -> None:
        self.toy = toy
        self.channel = channel
        self.folder = folder
        self.address = address
        self.stub = restorer_service_pb2_grpc.RestorerServiceStub(channel)

    async def send(self, requests: Any, timeout: float = 20.0) -> tuple[Audio, Response]:
        """All audio that comes back, and the last message."""
        parts, last = [], Response()
        async with contextlib.aclosing(exchange(self.stub.Restore, requests, timeout_seconds=timeout)) as responses:
            async for response in responses:
                last = response
                if response.WhichOneof("response") == "chunk":
                    parts.append(np.frombuffer(response.chunk.samples, "<f4").reshape(-1, 2).T)
        return np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32), last

    async def assert_unharmed(self) -> None:
        """Health is SERVING, no worker and no file is left within 2 s, and an ordinary call succeeds."""
        end = time.monotonic() + 2.0
        while (_workers() or any(self.folder.iterdir()) or self.toy.bridge.calls) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert _workers() == [], "a worker thread is left 2 s after the call"
        assert list(self.folder.iterdir()) == [], "a file is left after the call"
        assert _open_spools() == 0, "an unlinked spool file is still held"
        self.toy.failure = None
        song = _song(3_000)
        audio, last = await self.send(_requests(song))
        np.testing.assert_array_equal(audio, song)
        assert last.report.frames == 3_000
        response = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def _workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("outboard-toy")]


def _open_spools() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += "outboard-spool-" in os.readlink(entry)
    return found


def _song(frames: int, seed: int = 1) -> Audio:
    return (np.random.default_rng(seed).standard_normal((2, frames)) * 0.1).astype(np.float32)


def _config(frames: int | None = None, rate: int = RATE, channels: int = 2) -> Request:
    form = audio_pb2.AudioFormat(sample_rate_hertz=rate, channels=channels, frames=frames)
    return Request(config=restorer_service_pb2.RestoreConfig(format=form))


def _chunk(samples: bytes, start_frame: int = 0, stem: str = "") -> Request:
    return Request(chunk=audio_pb2.AudioChunk(samples=samples, start_frame=start_frame, stem=stem))


def _requests(song: Audio, piece: int = 8_192) -> list[Request]:
    chunks = (
        chunk
        for start in range(0, song.shape[1], piece)
        for chunk in chunk_messages(song[:, start : start + piece], start)
    )
    return [_config(song.shape[1]), *(Request(chunk=chunk) for chunk in chunks)]


@pytest.fixture(params=[False, True], ids=["streaming", "spooling"])
def spooled(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@contextlib.asynccontextmanager
async def _mesh(folder: Path, *, spooled: bool, seconds_per_block: float = 0.0, **limits: Any) -> AsyncIterator[Mesh]:
    settings = Settings(
        limits=LimitSettings(**{"concurrent_renders": 2, "maximum_audio_seconds": 60.0, **limits}),
        spool=SpoolSettings(directory=folder),
        server=ServerSettings(maximum_deadline_seconds=30.0),
    )
    toy = Toy(settings, spooled=spooled, seconds_per_block=seconds_per_block)
    register: Callable[[Any], None] = functools.partial(
        restorer_service_pb2_grpc.add_RestorerServiceServicer_to_server, toy
    )
    async with in_process(register, settings) as server, aio_channel(server.address) as channel:
        yield Mesh(toy, channel, folder, server.address)


@pytest.fixture
async def mesh(tmp_path: Path, spooled: bool) -> AsyncIterator[Mesh]:
    async with _mesh(tmp_path, spooled=spooled) as mesh:
        yield mesh


@pytest.mark.parametrize("piece", [1, 777, 8_192, 131_072])
async def test_audio_is_the_same_however_the_stream_is_cut(mesh: Mesh, piece: int) -> None:
    """Chunks of 8 bytes to 1 MiB carry the same bytes to the stage and back."""
    song = _song(2_000 if piece == 1 else 150_000)
    audio, last = await mesh.send(_requests(song, piece))
    np.testing.assert_array_equal(audio, song)
    assert last.report.frames == song.shape[1]


async def test_a_whole_mebibyte_in_one_chunk_is_accepted(mesh: Mesh) -> None:
    """The largest chunk of the contract passes all message limits."""
    song = _song(131_072)
    audio, _ = await mesh.send([_config(131_072), _chunk(song.T.tobytes())])
    np.testing.assert_array_equal(audio, song)


_TWO_FRAMES = b"\0" * 16
_BAD_STREAMS: dict[str, tuple[list[Request], str]] = {
    "gap": ([_config(), _chunk(_TWO_FRAMES), _chunk(_TWO_FRAMES, 3)], "STREAM_GAP"),
    "overlap": ([_config(), _chunk(_TWO_FRAMES), _chunk(_TWO_FRAMES, 1)], "STREAM_OVERLAP"),
    "no config": ([_chunk(_TWO_FRAMES)], "STREAM_CONFIG_MISSING"),
    "nothing at all": ([], "STREAM_CONFIG_MISSING"),
    "two configs": ([_config(), _config()], "STREAM_CONFIG_REPEATED"),
    "a config after audio": ([_config(), _chunk(_TWO_FRAMES), _config()], "STREAM_CONFIG_REPEATED"),
    "an empty request": ([_config(), Request()], "INVALID_ARGUMENT"),
    "an unknown stem": ([_config(), _chunk(_TWO_FRAMES, stem="../drums")], "STREAM_STEM_UNKNOWN"),
    "a wrong byte count": ([_config(), _chunk(b"\0" * 15)], "STREAM_CHUNK_SIZE"),
    "half a frame": ([_config(), _chunk(b"\0" * 12)], "STREAM_CHUNK_SIZE"),
    "more than 1 MiB": ([_config(), _chunk(b"\0" * (1024 * 1024 + 8))], "STREAM_CHUNK_SIZE"),
    "fewer frames than announced": ([_config(3), _chunk(_TWO_FRAMES)], "STREAM_LENGTH_MISMATCH"),
    "more frames than announced": ([_config(1), _chunk(_TWO_FRAMES)], "STREAM_LENGTH_MISMATCH"),
    "no frames": ([_config()], "AUDIO_EMPTY"),
    "0 announced frames": ([_config(0)], "AUDIO_EMPTY"),
    "NaN": ([_config(), _chunk(np.full(4, np.nan, "<f4").tobytes())], "AUDIO_NOT_FINITE"),
    "infinity": ([_config(), _chunk(np.full(4, -np.inf, "<f4").tobytes())], "AUDIO_NOT_FINITE"),
    "9 channels": ([_config(channels=9)], "AUDIO_TOO_MANY_CHANNELS"),
    "0 channels": ([_config(channels=0)], "INVALID_ARGUMENT"),
    "4 kHz": ([_config(rate=4_000)], "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "384 kHz": ([_config(rate=384_000)], "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "10 h": ([_config(36_000 * RATE)], "AUDIO_TOO_LONG"),
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
    async with _mesh(tmp_path, spooled=False) as mesh:
        song = _song(400_000)
        requests = _requests(song, 2_048)
        requests.insert(20, _config())
        for _ in range(30):
            with pytest.raises(InvalidInput) as caught:
                await mesh.send(requests)
            assert caught.value.reason == "STREAM_CONFIG_REPEATED"
        await mesh.assert_unharmed()


async def test_audio_longer_than_the_limit_is_refused_while_it_arrives(tmp_path: Path, spooled: bool) -> None:
    """A stream that announces no length is cut off at the limit, not spooled to the end."""
    async with _mesh(tmp_path, spooled=spooled, maximum_audio_seconds=1.0) as mesh:
        song = _song(RATE * 2)
        with pytest.raises(InvalidInput) as caught:
            await mesh.send([_config(), *_requests(song)[1:]])
        assert caught.value.reason == "AUDIO_TOO_LONG"
        await mesh.assert_unharmed()


@pytest.mark.parametrize("how", ["cancels", "closes its channel", "is cancelled while the stage computes"])
async def test_a_client_that_vanishes_leaves_nothing_behind(tmp_path: Path, spooled: bool, how: str) -> None:
    """The worker stops within 2 s, wherever it was, and takes its files along."""
    busy = 0.05 if how.startswith("is") else 0.0
    async with _mesh(tmp_path, spooled=spooled, seconds_per_block=busy) as mesh:
        async with aio_channel(mesh.address) as channel:
            stub = restorer_service_pb2_grpc.RestorerServiceStub(channel)
            call = stub.Restore(timeout=20.0)
            for request in _requests(_song(200_000)):
                await call.write(request)
            if busy:
                await call.done_writing()
            await _until(lambda: bool(_workers()))
            await asyncio.sleep(0.2)
            if how != "closes its channel":
                call.cancel()
        await mesh.assert_unharmed()


async def test_a_deadline_that_passes_stops_the_work(tmp_path: Path, spooled: bool) -> None:
    """DEADLINE_EXCEEDED at the deadline; the worker stops."""
    async with _mesh(tmp_path, spooled=spooled, seconds_per_block=0.3) as mesh:
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded) as caught:
            await mesh.send(_requests(_song(200_000)), timeout=0.8)
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
        await call.write(_config())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        error = from_rpc_error(caught.value)
        assert isinstance(error, DeadlineExceeded)
        await Mesh(toy, channel, tmp_path, server.address).assert_unharmed()


async def test_an_unexpected_error_tells_the_client_nothing(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    """INTERNAL without a detail for the client; the traceback is in the log."""
    mesh.toy.failure = ValueError("a secret in /srv/key")
    with pytest.raises(OutboardError) as caught:
        await mesh.send(_requests(_song(3_000)))
    assert caught.value.reason == "INTERNAL"
    assert "secret" not in caught.value.message
    assert "a secret in /srv/key" in caplog.text
    await mesh.assert_unharmed()


async def test_a_full_disk_is_resource_exhausted(mesh: Mesh) -> None:
    """ENOSPC anywhere in the work is RESOURCE_EXHAUSTED with STORAGE_FULL and a time to try again."""
    mesh.toy.failure = OSError(28, "No space left on device")
    with pytest.raises(ResourceExhausted) as caught:
        await mesh.send(_requests(_song(3_000)))
    assert caught.value.reason == "STORAGE_FULL"
    assert caught.value.retry_after_seconds
    await mesh.assert_unharmed()


async def test_a_call_too_many_is_refused_and_told_when_to_come_back(tmp_path: Path, spooled: bool) -> None:
    """Beyond the calls that compute and those that may wait, RESOURCE_EXHAUSTED with RetryInfo."""
    async with _mesh(tmp_path, spooled=spooled, concurrent_renders=1, waiting_calls=1) as mesh:
        calls = [mesh.stub.Restore(timeout=20.0) for _ in range(2)]
        for call in calls:
            await call.write(_config())
        await _until(lambda: mesh.toy.bridge.calls == 2)
        with pytest.raises(ResourceExhausted) as caught:
            await mesh.send(_requests(_song(100)))
        assert caught.value.retry_after_seconds
        for call in calls:
            call.cancel()
        await mesh.assert_unharmed()


async def test_calls_beyond_the_renders_wait_their_turn_and_all_finish(tmp_path: Path, spooled: bool) -> None:
    """Six calls on one render slot: every one gets its own audio back."""
    async with _mesh(tmp_path, spooled=spooled, concurrent_renders=1, waiting_calls=8) as mesh:
        songs = [_song(40_000, seed) for seed in range(6)]
        results = await asyncio.gather(*(mesh.send(_requests(song)) for song in songs))
        for song, (audio, _) in zip(songs, results, strict=True):
            np.testing.assert_array_equal(audio, song)
        await mesh.assert_unharmed()


async def test_idle_clients_do_not_keep_others_from_computing(tmp_path: Path) -> None:
    """Two slots, two clients that sent a config and nothing else, one that sent half a block, one that reads nothing:
    a fifth is served at once.
    """
    async with _mesh(tmp_path, spooled=False, concurrent_renders=2) as mesh:
        idle = [mesh.stub.Restore(timeout=20.0) for _ in range(4)]
        for call in idle:
            await call.write(_config())
        await idle[2].write(_chunk(_TWO_FRAMES))
        deaf = asyncio.create_task(_write_all(idle[3], _requests(_song(3_000_000), 131_072)[1:]))
        await _until(lambda: mesh.toy.bridge.calls == 4)
        await asyncio.sleep(0.3)
        song = _song(100_000)
        audio, _ = await mesh.send(_requests(song), timeout=5.0)
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
    async with _mesh(tmp_path, spooled=False) as mesh:
        call = mesh.stub.Restore(timeout=20.0)
        await call.write(_config())
        chunk = np.zeros((131_072, 2), "<f4").tobytes()
        written = 0
        with contextlib.suppress(TimeoutError):
            for index in range(21):
                async with asyncio.timeout(0.5):
                    await call.write(_chunk(chunk, index * 131_072))
                written += 1
        assert written < 21, f"the service took {written} MiB though nobody read"
        call.cancel()
        await mesh.assert_unharmed()


async def test_health_answers_within_100_ms_while_every_render_is_busy(tmp_path: Path, spooled: bool) -> None:
    """No computing on the event loop: 20 health checks beside four busy renders."""
    async with _mesh(tmp_path, spooled=spooled, seconds_per_block=0.3, concurrent_renders=4) as mesh:
        busy = [asyncio.create_task(mesh.send(_requests(_song(120_000, seed)))) for seed in range(4)]
        await _until(lambda: len(_workers()) == 4)
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


async def test_progress_comes_at_most_twice_a_second(tmp_path: Path) -> None:
    """However often the work reports, the stream carries two messages a second, never falling."""
    async with _mesh(tmp_path, spooled=True, seconds_per_block=0.25) as mesh:
        started = time.monotonic()
        requests = _requests(_song(100_000))
        async with contextlib.aclosing(exchange(mesh.stub.Restore, requests, timeout_seconds=20)) as responses:
            kinds = [(response.WhichOneof("response"), response.progress.fraction) async for response in responses]
        seen = [fraction for kind, fraction in kinds if kind == "progress"]
        seconds = time.monotonic() - started
        assert 1 <= len(seen) <= 2 * seconds + 1, f"{len(seen)} messages in {seconds:.1f} s"
        assert seen == sorted(seen)


async def test_an_error_in_the_client_s_own_source_comes_out_of_the_exchange(mesh: Mesh) -> None:
    """What breaks while sending is what the caller sees, and the service drops the call."""

    def broken() -> Iterator[Request]:
        yield _config()
        raise KeyError("the store failed")

    with pytest.raises(KeyError, match="the store failed"):
        await mesh.send(broken())
    await mesh.assert_unharmed()


async def _until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.01)
