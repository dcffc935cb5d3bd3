"""A stage that returns what it gets, over a real socket, on the bridge, readers and guard of the real ones."""

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
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.audio.spool import Spool, blocks
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.scratch import scratch_folder
from outboard.rpc.stage import first_config, single_stream, spool_streams
from outboard.rpc.streaming import ChunkWriter, checked_format, chunk_messages
from outboard.settings import LimitSettings, ServerSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import audio_pb2, restorer_service_pb2, restorer_service_pb2_grpc

RATE = 48_000
TWO_FRAMES = b"\0" * 16
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
        while (workers() or any(self.folder.iterdir()) or self.toy.bridge.calls) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert workers() == [], "a worker thread is left 2 s after the call"
        assert list(self.folder.iterdir()) == [], "a file is left after the call"
        assert _open_spools() == 0, "an unlinked spool file is still held"
        self.toy.failure = None
        song = noise(3_000)
        audio, last = await self.send(requests_of(song))
        np.testing.assert_array_equal(audio, song)
        assert last.report.frames == 3_000
        response = await health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(), timeout=1.0)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("outboard-toy")]


def _open_spools() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += "outboard-spool-" in os.readlink(entry)
    return found


def noise(frames: int, seed: int = 1) -> Audio:
    return (np.random.default_rng(seed).standard_normal((2, frames)) * 0.1).astype(np.float32)


def config_message(frames: int | None = None, rate: int = RATE, channels: int = 2) -> Request:
    form = audio_pb2.AudioFormat(sample_rate_hertz=rate, channels=channels, frames=frames)
    return Request(config=restorer_service_pb2.RestoreConfig(format=form))


def chunk_message(samples: bytes, start_frame: int = 0, stem: str = "") -> Request:
    return Request(chunk=audio_pb2.AudioChunk(samples=samples, start_frame=start_frame, stem=stem))


def requests_of(song: Audio, piece: int = 8_192) -> list[Request]:
    chunks = (
        chunk
        for start in range(0, song.shape[1], piece)
        for chunk in chunk_messages(song[:, start : start + piece], start)
    )
    return [config_message(song.shape[1]), *(Request(chunk=chunk) for chunk in chunks)]


@contextlib.asynccontextmanager
async def serving_toy(
    folder: Path, *, spooled: bool, seconds_per_block: float = 0.0, **limits: Any
) -> AsyncIterator[Mesh]:
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


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        await asyncio.sleep(0.01)
