"""Starts, runs and stops a server.

Every service is served the same way: health (Check and Watch, SERVING only after the warm-up), reflection, keepalive,
limits, one interceptor, and on SIGTERM a drain: health turns to NOT_SERVING, new calls are refused, those in progress
get their time, then the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from outboard import telemetry
from outboard.errors import Unavailable
from outboard.rpc.guard import CallGuard
from outboard.rpc.health import NOT_SERVING, SERVING, HealthServicer
from outboard.rpc.launch import launch
from outboard.rpc.scratch import remove_abandoned
from outboard.settings import ServerSettings, Settings

Register = Callable[[grpc.aio.Server], None]
WarmUp = Callable[[], Awaitable[None] | None]
ShutDown = Callable[[], Awaitable[None]]

_log = logging.getLogger(__name__)
# Calls that outlive the drain, health watches among them, are cancelled; this is the time that they get to clean up.
_CANCEL_SECONDS = 3.0
_KEEPALIVE_TIMEOUT_MS = 10_000
# A client that pings a quiet connection more often is cut off (`too_many_pings`).
_LOWEST_PING_PERIOD_MS = 5_000


class RunningServer:
    """A server that listens.

    Attributes:
        address: where, with the real port.
    """

    def __init__(self, server: grpc.aio.Server, health: HealthServicer, guard: CallGuard, address: str) -> None:
        self.address = address
        self._server = server
        self._health = health
        self._guard = guard

    def set_serving(self) -> None:
        """Tell the world that calls are welcome."""
        self._health.set_all(SERVING)

    async def stop(self, drain_seconds: float) -> None:
        """Drain and stop."""
        self._health.set_all(NOT_SERVING)
        await self._guard.drain(drain_seconds)
        # The guard counts calls; a health watch would hold the server's own grace to its end.
        await self._server.stop(0)
        await self._guard.drain(_CANCEL_SECONDS)


class _Recorder:
    """Passes handlers on to a server and remembers the names of their services, for health and reflection."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.services: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self.services += [item.service_name() for item in handlers if isinstance(item, grpc.ServiceRpcHandler)]
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


def _options(settings: ServerSettings) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_send_message_length", settings.maximum_message_bytes),
        ("grpc.max_receive_message_length", settings.maximum_message_bytes),
        ("grpc.max_concurrent_streams", settings.maximum_concurrent_streams),
        ("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, whose string has no "recv" in it.
        ("grpc.http2.min_ping_interval_without_data_ms", _LOWEST_PING_PERIOD_MS),
        # Two servers on one port would share its calls at random.
        ("grpc.so_reuseport", 0),
    ]


async def start(register: Register, settings: Settings) -> RunningServer:
    """Start a server that listens and whose health is NOT_SERVING yet.

    Args:
        register: adds the servicers (``add_XServicer_to_server``).
        settings: the server's part holds the address.

    Raises:
        Unavailable: the address cannot be had.
    """
    guard = CallGuard(settings.server)
    server = grpc.aio.server(interceptors=[guard], options=_options(settings.server))
    recorder = _Recorder(server)
    register(recorder)  # type: ignore[arg-type]
    health = HealthServicer(recorder.services)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection([*recorder.services, health_name, reflection.SERVICE_NAME], server)
    address = settings.server.listen
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address}: it is taken, or not of this machine") from error
    if not address.startswith("unix:"):
        address = f"{address.rpartition(':')[0]}:{port}"
    await server.start()
    return RunningServer(server, health, guard, address)


@contextlib.asynccontextmanager
async def running(
    register: Register,
    settings: Settings,
    *,
    warm_up: WarmUp | None = None,
    shut_down: ShutDown | None = None,
    drain_seconds: float | None = None,
) -> AsyncIterator[RunningServer]:
    """A server that is SERVING inside, and is drained and stopped on the way out.

    Args:
        register: adds the servicers.
        settings: of the process.
        warm_up: done before SERVING; a plain function runs in a thread, a coroutine function on the event loop.
        shut_down: awaited when the last call has ended.
        drain_seconds: instead of the settings' time.
    """
    server = await start(register, settings)
    try:
        await _warm(warm_up)
        server.set_serving()
        yield server
    finally:
        await server.stop(settings.server.drain_seconds if drain_seconds is None else drain_seconds)
        if shut_down is not None:
            await shut_down()


async def _warm(warm_up: WarmUp | None) -> None:
    if warm_up is None:
        return
    if inspect.iscoroutinefunction(warm_up):
        await warm_up()
    else:
        await asyncio.to_thread(warm_up)


async def serve(
    service_name: str,
    register: Register,
    settings: Settings,
    *,
    warm_up: WarmUp | None = None,
    shut_down: ShutDown | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return. The address goes to standard output and to the log."""
    telemetry.configure(service_name, settings.telemetry)
    remove_abandoned(settings.spool.directory)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with running(register, settings, warm_up=warm_up, shut_down=shut_down) as server:
            print(f"{service_name} listening on {server.address}", flush=True)
            _log.info("serving", extra={"address": server.address})
            await stopping.wait()
            _log.info("draining")
    finally:
        telemetry.shutdown()
    _log.info("stopped")


def run(
    service_name: str,
    build: Callable[[Settings], Register],
    *,
    warm_up: WarmUp | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """The whole of a stage's ``__main__``: ``python -m services.NAME [--listen ADDRESS]``.

    Args:
        service_name: for logs and traces.
        build: makes the servicer and returns the function that registers it; called inside the event loop.
        warm_up: done before SERVING.
        arguments: instead of the command line's.
    """

    async def main(settings: Settings) -> None:
        await serve(service_name, build(settings), settings, warm_up=warm_up)

    launch(service_name, main, arguments)
