"""What a stage's stream costs: audio through the bridge and back, against a bare grpc.aio echo of the same messages.

``python -m benchmarks.stream_echo [--quick] [--json]``
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import grpc
import numpy as np

from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.stage import first_config, single_stream
from outboard.rpc.streaming import ChunkWriter, checked_format, chunk_messages
from outboard.settings import Settings
from outboard.testing import in_process
from outboard.v1 import audio_pb2, restorer_service_pb2, restorer_service_pb2_grpc

RATE_HERTZ = 48_000
Request = restorer_service_pb2.RestoreRequest
Response = restorer_service_pb2.RestoreResponse


class Stage(restorer_service_pb2_grpc.RestorerServiceServicer):
    """Audio in and out through everything that a stage has: guard, bridge, checks, arrays."""

    def __init__(self, settings: Settings) -> None:
        self._bridge = Bridge("echo", settings.limits)

    def Restore(self, request_iterator: AsyncIterator[Request], context: Any) -> AsyncIterator[Response]:  # noqa: N802
        return self._bridge.run(self._echo, request_iterator, lambda _: Response())

    def _echo(self, call: StageCall[Request, Response]) -> Generator[Response, None, None]:
        requests = call.requests()
        config = first_config(requests)
        form = checked_format(config.format, field="config.format", maximum_seconds=7200)
        writer = ChunkWriter(form.channels)
        for block in single_stream(requests, form, 7200):
            yield from (Response(chunk=chunk) for chunk in writer.write(block))
        yield from (Response(chunk=chunk) for chunk in writer.finish())


class Bare(restorer_service_pb2_grpc.RestorerServiceServicer):
    """The messages and nothing else."""

    async def Restore(  # noqa: N802
        self, request_iterator: AsyncIterator[Request], context: Any
    ) -> AsyncIterator[Response]:
        async for request in request_iterator:
            yield Response(chunk=request.chunk)


def _requests(song: np.ndarray) -> Iterator[Request]:
    form = audio_pb2.AudioFormat(sample_rate_hertz=RATE_HERTZ, channels=2, frames=song.shape[1])
    yield Request(config=restorer_service_pb2.RestoreConfig(format=form))
    for chunk in chunk_messages(song):
        yield Request(chunk=chunk)


async def _stage_seconds(song: np.ndarray) -> float:
    settings = Settings()
    register = functools.partial(restorer_service_pb2_grpc.add_RestorerServiceServicer_to_server, Stage(settings))
    async with in_process(register, settings) as server, aio_channel(server.address) as channel:
        stub = restorer_service_pb2_grpc.RestorerServiceStub(channel)
        started = time.perf_counter()
        async with contextlib.aclosing(exchange(stub.Restore, _requests(song))) as responses:
            async for _ in responses:
                pass
        return time.perf_counter() - started


async def _bare_seconds(song: np.ndarray) -> float:
    with tempfile.TemporaryDirectory(prefix="ob-") as folder:
        server = grpc.aio.server()
        restorer_service_pb2_grpc.add_RestorerServiceServicer_to_server(Bare(), server)
        server.add_insecure_port(f"unix:{folder}/socket")
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{folder}/socket") as channel:
            stub = restorer_service_pb2_grpc.RestorerServiceStub(channel)
            started = time.perf_counter()
            async for _ in stub.Restore(_requests(song)):
                pass
            seconds = time.perf_counter() - started
        await server.stop(0)
        return seconds


async def measure(seconds: float) -> dict[str, object]:
    """One row: MiB/s each way, best of three."""
    song = np.random.default_rng(0).standard_normal((2, int(seconds * RATE_HERTZ))).astype(np.float32)
    mebibytes = song.nbytes / 2**20
    ours = mebibytes / min([await _stage_seconds(song) for _ in range(3)])
    theirs = mebibytes / min([await _bare_seconds(song) for _ in range(3)])
    return {
        "name": "stream_echo",
        "ours": round(ours, 1),
        "theirs": round(theirs, 1),
        "ratio": round(ours / theirs, 3),
        "unit": "MiB/s each way",
        "goal": 0.5,
        "holds": ours >= 0.5 * theirs,
    }


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="30 s of audio instead of 240 s")
    parser.add_argument("--json", action="store_true", help="JSON only")
    options = parser.parse_args()
    row = asyncio.run(measure(30 if options.quick else 240))
    if options.json:
        print(json.dumps(row))
    else:
        print(f"{row['name']}: {row['ours']} against {row['theirs']} {row['unit']}, ratio {row['ratio']}")


if __name__ == "__main__":
    main()
