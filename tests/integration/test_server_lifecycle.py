"""Starting, watching and stopping a server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from outboard import telemetry
from outboard.errors import InvalidInput, NotFound, PermissionDenied, Unavailable
from outboard.rpc.channel import aio_channel, exchange, outboard_errors
from outboard.rpc.server import running, start
from outboard.rpc.streaming import chunk_messages
from outboard.rpc.tenant import current_tenant
from outboard.settings import LimitSettings, ServerSettings, Settings, StoreSettings
from outboard.testing import child, in_process
from outboard.v1 import audio_pb2, separator_service_pb2, separator_service_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
Empty = separator_service_pb2.SeparatorServiceListEnginesRequest
Engines = separator_service_pb2.SeparatorServiceListEnginesResponse


class Toy(separator_service_pb2_grpc.SeparatorServiceServicer):
    """Answers with the caller's tenant, after a wait."""

    seconds = 0.0
    error: Exception | None = None

    async def ListEngines(self, request: Empty, context: Any) -> Engines:  # noqa: N802
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return Engines(engines=[audio_pb2.EngineInfo(name=current_tenant())])

    async def Separate(self, request_iterator: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async for _ in request_iterator:
            yield separator_service_pb2.SeparateResponse()


def _register(toy: Toy) -> Any:
    return lambda server: separator_service_pb2_grpc.add_SeparatorServiceServicer_to_server(toy, server)


def _stub(channel: grpc.aio.Channel) -> Any:
    return separator_service_pb2_grpc.SeparatorServiceStub(channel)


async def test_health_is_serving_only_after_the_warm_up(tmp_path: Path) -> None:
    """Check says NOT_SERVING while the warm-up runs, SERVING afterwards; the service has its own entry."""
    let_go = threading.Event()
    settings = Settings().listening_on(f"unix:{tmp_path}/s")

    def warm_up() -> None:
        let_go.wait(10)

    async def serve() -> None:
        async with running(_register(Toy()), settings, warm_up=warm_up):
            await asyncio.sleep(0.5)

    task = asyncio.create_task(serve())
    async with aio_channel(settings.server.listen) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="outboard.v1.SeparatorService")
        assert (await stub.Check(request, timeout=5, wait_for_ready=True)).status == NOT_SERVING
        let_go.set()
        await asyncio.sleep(0.2)
        assert (await stub.Check(request, timeout=5)).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await task


async def test_watchers_see_every_change_even_when_another_one_leaves(tmp_path: Path) -> None:
    """Two watches; one is cancelled; the other still learns that the server stops."""
    server = await start(_register(Toy()), Settings().listening_on(f"unix:{tmp_path}/s"))
    async with aio_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        first, second = (stub.Watch(health_pb2.HealthCheckRequest(), timeout=10) for _ in range(2))
        assert [(await first.read()).status, (await second.read()).status] == [NOT_SERVING] * 2
        first.cancel()
        server.set_serving()
        assert (await second.read()).status == SERVING
        stopping = asyncio.create_task(server.stop(5.0))
        assert (await second.read()).status == NOT_SERVING
        started = time.monotonic()
        await stopping
        assert time.monotonic() - started < 1.0, "an open watch must not hold the drain"


async def test_reflection_names_the_services(tmp_path: Path) -> None:
    """grpcurl and the like find what is served."""
    async with in_process(_register(Toy())) as server, aio_channel(server.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for response in stub.ServerReflectionInfo(iter([request]), timeout=5):
            names = {service.name for service in response.list_services_response.service}
    assert {"outboard.v1.SeparatorService", "grpc.health.v1.Health"} <= names


async def test_a_drain_finishes_calls_in_progress_and_refuses_new_ones(tmp_path: Path) -> None:
    """The call that was there gets its answer, a later one UNAVAILABLE (which clients retry elsewhere)."""
    toy = Toy()
    toy.seconds = 0.6
    server = await start(_register(toy), Settings().listening_on(f"unix:{tmp_path}/s"))
    server.set_serving()
    async with grpc.aio.insecure_channel(server.address) as channel:
        running_call = asyncio.ensure_future(_stub(channel).ListEngines(Empty(), timeout=5))
        await asyncio.sleep(0.2)
        stopping = asyncio.create_task(server.stop(5.0))
        await asyncio.sleep(0.1)
        with pytest.raises(Unavailable) as caught, outboard_errors():
            await _stub(channel).ListEngines(Empty(), timeout=5)
        assert caught.value.retry_after_seconds
        assert len((await running_call).engines) == 1
        await stopping


async def test_a_call_that_outlives_the_drain_is_cancelled(tmp_path: Path) -> None:
    """The time to drain is kept."""
    toy = Toy()
    toy.seconds = 30.0
    server = await start(_register(toy), Settings().listening_on(f"unix:{tmp_path}/s"))
    async with grpc.aio.insecure_channel(server.address) as channel:
        call = asyncio.ensure_future(_stub(channel).ListEngines(Empty(), timeout=20))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await server.stop(0.3)
        assert time.monotonic() - started < 1.5
        with pytest.raises(grpc.aio.AioRpcError):
            await call


@pytest.mark.parametrize(
    ("tenant", "required", "answer"),
    [
        (None, False, "default"),
        ("studio-7", False, "studio-7"),
        ("studio-7", True, "studio-7"),
        (None, True, PermissionDenied),
        ("../other", False, InvalidInput),
        ("Upper", False, InvalidInput),
        ("", False, InvalidInput),
        ("x" * 64, False, InvalidInput),
    ],
)
async def test_the_tenant_comes_from_the_metadata(tenant: str | None, required: bool, answer: Any) -> None:
    """Missing: "default", or refused where one is required; a name that could mean a path is refused."""
    settings = Settings(server=ServerSettings(require_tenant=required))
    async with in_process(_register(Toy()), settings) as server, grpc.aio.insecure_channel(server.address) as channel:
        metadata = (("outboard-tenant", tenant),) if tenant is not None else ()
        if isinstance(answer, str):
            response = await _stub(channel).ListEngines(Empty(), timeout=5, metadata=metadata)
            assert response.engines[0].name == answer
        else:
            with pytest.raises(answer) as caught, outboard_errors():
                await _stub(channel).ListEngines(Empty(), timeout=5, metadata=metadata)
            assert caught.value.reason in ("TENANT_MISSING", "TENANT_INVALID")
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status == SERVING


async def test_a_quiet_call_outlives_its_clients_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may ping a connection on which nothing else moves for as long as it likes: a watched job that waits in
    the queue is not cut off."""
    monkeypatch.setattr("outboard.rpc.server._LOWEST_PING_PERIOD_MS", 50)
    toy = Toy()
    toy.seconds = 5.5  # a client does not ping more than once a second
    options = [("grpc.keepalive_time_ms", 1000), ("grpc.http2.max_pings_without_data", 0)]
    async with (
        in_process(_register(toy)) as server,
        grpc.aio.insecure_channel(server.address, options=options) as channel,
    ):
        assert (await _stub(channel).ListEngines(Empty(), timeout=10)).engines[0].name == "default"


async def test_channels_carry_the_tenant_and_errors_come_back_whole() -> None:
    """A channel names its tenant, and raises what the service raised."""
    toy = Toy()
    async with in_process(_register(toy)) as server, aio_channel(server.address, tenant="studio") as channel:
        assert (await _stub(channel).ListEngines(Empty())).engines[0].name == "studio"
        toy.error = NotFound("no engine", reason="ENGINE_UNKNOWN", field="engine", metadata={"a": "b"})
        with pytest.raises(NotFound) as caught, outboard_errors():
            await _stub(channel).ListEngines(Empty())
        assert (caught.value.reason, caught.value.metadata) == ("ENGINE_UNKNOWN", {"a": "b"})


async def test_unary_calls_are_retried_while_a_server_is_unavailable() -> None:
    """The service config's policy: three failures, then the answer."""
    toy = Toy()
    failures = iter([Unavailable("not yet")] * 3)

    class Flaky(Toy):
        async def ListEngines(self, request: Empty, context: Any) -> Engines:  # noqa: N802
            for error in failures:
                raise error
            return await toy.ListEngines(request, context)

    async with in_process(_register(Flaky())) as server, aio_channel(server.address) as channel:
        assert (await _stub(channel).ListEngines(Empty(), timeout=10)).engines[0].name == "default"


async def test_every_hop_leaves_two_spans_of_one_trace() -> None:
    """Client and server span, of unary and streaming calls, joined by the metadata; failures are marked."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.use_provider(provider)
    toy = Toy()
    try:
        async with in_process(_register(toy)) as server, aio_channel(server.address) as channel:
            await _stub(channel).ListEngines(Empty())
            async with contextlib.aclosing(
                exchange(_stub(channel).Separate, [separator_service_pb2.SeparateRequest()])
            ) as responses:
                assert len([response async for response in responses]) == 1
            toy.error = NotFound("no")
            with pytest.raises(NotFound), outboard_errors():
                await _stub(channel).ListEngines(Empty())
            await asyncio.sleep(0.1)
    finally:
        telemetry.use_provider(None)
    spans = exporter.get_finished_spans()
    servers = [span for span in spans if span.kind.name == "SERVER"]
    clients = {span.context.span_id: span for span in spans if span.kind.name == "CLIENT"}
    assert len(servers) == len(clients) == 3
    for span in servers:
        assert clients[span.parent.span_id].context.trace_id == span.context.trace_id
    codes = sorted(span.attributes["rpc.grpc.status_code"] for span in spans)
    assert codes == [0, 0, 0, 0, 5, 5]


async def test_sigterm_drains_a_real_service_and_ends_it_with_status_0() -> None:
    """A separator as a child process: SIGTERM in the middle of a song; the song finishes, the process ends with 0."""
    async with child("separator", environment={"NUMBA_NUM_THREADS": "1"}) as (process, address):
        async with aio_channel(address) as channel:
            song = np.zeros((2, 48_000), dtype=np.float32)
            sent = asyncio.Event()

            async def requests() -> AsyncIterator[Any]:
                form = audio_pb2.AudioFormat(sample_rate_hertz=48_000, channels=2)
                settings = separator_service_pb2.SeparationSettings(engine="passthrough")
                config = separator_service_pb2.SeparateConfig(format=form, settings=settings)
                yield separator_service_pb2.SeparateRequest(config=config)
                for chunk in chunk_messages(song):
                    yield separator_service_pb2.SeparateRequest(chunk=chunk)
                sent.set()
                await asyncio.sleep(0.7)

            async def stop() -> None:
                await sent.wait()
                await asyncio.sleep(0.2)
                process.send_signal(signal.SIGTERM)

            stopping = asyncio.create_task(stop())
            async with contextlib.aclosing(exchange(_stub(channel).Separate, requests())) as responses:
                last = [response async for response in responses][-1]
            assert last.report.frames == 48_000
            await stopping
        async with asyncio.timeout(10):
            assert await process.wait() == 0


def test_settings_refuse_what_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable stops the process at its start, with its name in the text; limits come from the environment."""
    monkeypatch.setenv("OUTBOARD_SERVER_LISTEN", "nowhere")
    with pytest.raises(InvalidInput, match=r"OUTBOARD_SERVER_LISTEN: .*host:port or unix:PATH"):
        ServerSettings()
    monkeypatch.setenv("OUTBOARD_LIMIT_CONCURRENT_RENDERS", "3")
    assert LimitSettings().concurrent_renders == 3
    for address in ("", "unix:", "host:99999", "unix:" + "x" * 108, "a b:1"):
        with pytest.raises(ValueError, match=r"address|path"):
            Settings(server=ServerSettings(listen="h:1")).listening_on(address)
    monkeypatch.setenv("OUTBOARD_STORE_JOB_DAYS", "0")
    with pytest.raises(InvalidInput, match="OUTBOARD_STORE_JOB_DAYS"):
        StoreSettings()
