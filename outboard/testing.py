"""For tests and benchmarks: real services, in this process or as child processes, and generators run to their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.errors import Unavailable
from outboard.rpc.channel import aio_channel
from outboard.rpc.server import Register, RunningServer, WarmUp, running
from outboard.settings import Settings

Piece = TypeVar("Piece")
Report = TypeVar("Report")

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05


def drained(stream: Generator[Piece, Any, Report]) -> tuple[list[Piece], Report]:
    """All that a generator yields, and what it returns: the report, where it is a stage's domain function."""
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


@contextlib.asynccontextmanager
async def in_process(
    register: Register,
    settings: Settings | None = None,
    *,
    warm_up: WarmUp | None = None,
    drain_seconds: float = 5.0,
) -> AsyncIterator[RunningServer]:
    """A server in this process that is SERVING inside; its address is the ``address`` of what comes out."""
    with tempfile.TemporaryDirectory(prefix="ob-") as folder:
        chosen = (settings or Settings()).listening_on(f"unix:{folder}/socket")
        async with running(register, chosen, warm_up=warm_up, drain_seconds=drain_seconds) as server:
            yield server


@contextlib.asynccontextmanager
async def child(
    service_name: str, *, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """``python -m services.NAME`` as a child process; its process and its address, once it is SERVING.

    On the way out it gets SIGTERM, and SIGKILL if it does not end.
    """
    with tempfile.TemporaryDirectory(prefix="ob-") as folder:
        address = f"unix:{folder}/socket"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"services.{service_name}",
            "--listen",
            address,
            env={**os.environ, **(environment or {})},
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await wait_until_serving(address, process)
            yield process, address
        finally:
            await _end(process)


async def wait_until_serving(
    address: str, process: asyncio.subprocess.Process | None = None, *, seconds: float = _START_SECONDS
) -> None:
    """Wait until a server's health is SERVING.

    Raises:
        Unavailable: it is not in time, or the process ended.
    """
    async with aio_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            if process is not None and process.returncode is not None:
                raise Unavailable(f"the service ended with status {process.returncode} before it served")
            with contextlib.suppress(grpc.RpcError):
                response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                if response.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(_POLL_SECONDS)
    raise Unavailable(f"the service was not SERVING within {seconds:.0f} s")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
