"""Channels to services, and calls on them that raise Outboard's own exceptions.

Unary calls are retried by gRPC itself on UNAVAILABLE; a broken stream is for its caller to restart. Every call
carries a deadline and the tenant in whose name it is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

from outboard.rpc import tracing
from outboard.rpc.errors import from_rpc_error
from outboard.rpc.first_status import answered_with_first_status, with_first_status
from outboard.rpc.tenant import METADATA_KEY, current_tenant
from outboard.settings import ServerSettings, checked_address
from outboard.v1 import (
    job_service_pb2,
    master_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)

Request = TypeVar("Request")
Response = TypeVar("Response")

UNARY_SECONDS = 60.0
_ATTEMPTS = 4
_KEEPALIVE_MS = 30_000
_KEEPALIVE_TIMEOUT_MS = 10_000
_CONTRACT = (
    job_service_pb2,
    master_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)


@functools.cache
def service_config() -> str:
    """The JSON that makes gRPC retry unary calls on UNAVAILABLE, with a growing pause."""
    unary = [
        {"service": service.full_name, "method": method.name}
        for module in _CONTRACT
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if not (method.client_streaming or method.server_streaming)
    ]
    policy = {
        "maxAttempts": _ATTEMPTS,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    return json.dumps({"methodConfig": [{"name": unary, "retryPolicy": policy}]})


def channel_options(maximum_message_bytes: int) -> list[tuple[str, Any]]:
    """Options of every channel: retries, message size, keepalive, reconnection."""
    return [
        ("grpc.service_config", service_config()),
        ("grpc.max_send_message_length", maximum_message_bytes),
        ("grpc.max_receive_message_length", maximum_message_bytes),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Channels of one process would otherwise share a connection, and its limit of concurrent streams.
        ("grpc.use_local_subchannel_pool", 1),
    ]


class _Caller:
    """Adds to a call what all of them carry: tenant, deadline, trace."""

    def __init__(self, tenant: str | None, stream_seconds: float) -> None:
        self._tenant = tenant
        self._stream_seconds = stream_seconds

    def prepare(self, details: Any, *, streaming: bool) -> tuple[grpc.aio.ClientCallDetails, Any]:
        method = details.method.decode() if isinstance(details.method, bytes) else details.method
        span, trace_metadata = tracing.client_span(method)
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if METADATA_KEY not in metadata:
            metadata.add(METADATA_KEY, self._tenant or current_tenant())
        for key, value in trace_metadata:
            metadata.add(key, value)
        timeout = details.timeout
        if timeout is None:
            timeout = self._stream_seconds if streaming else UNARY_SECONDS
        prepared = grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )
        return prepared, span


class _UnaryUnary(_Caller, grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details, span = self.prepare(client_call_details, streaming=False)
        call = await continuation(details, request)
        tracing.end_with_call(span, call)
        return call


class _UnaryStream(_Caller, grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        details, span = self.prepare(client_call_details, streaming=True)
        call = await continuation(details, request)
        tracing.end_with_call(span, call)
        return call


class _StreamUnary(_Caller, grpc.aio.StreamUnaryClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details, span = self.prepare(client_call_details, streaming=True)
        call = await continuation(details, request_iterator)
        tracing.end_with_call(span, call)
        return await answered_with_first_status(call)


class _StreamStream(_Caller, grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        details, span = self.prepare(client_call_details, streaming=True)
        call = await continuation(details, request_iterator)
        tracing.end_with_call(span, call)
        return with_first_status(call)


def aio_channel(
    address: str,
    *,
    tenant: str | None = None,
    stream_seconds: float | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.aio.Channel:
    """A channel to a service, for the event loop that runs now.

    Args:
        address: ``host:port`` or ``unix:PATH``.
        tenant: in whose name its calls are made; unless given, that of the call that is being served.
        stream_seconds: deadline of streams that set none.
        credentials: for TLS; none: plain.
    """
    settings = ServerSettings()
    caller = (tenant, stream_seconds or settings.maximum_deadline_seconds)
    interceptors: list[Any] = [
        _UnaryUnary(*caller),
        _UnaryStream(*caller),
        _StreamUnary(*caller),
        _StreamStream(*caller),
    ]
    target, options = checked_address(address), channel_options(settings.maximum_message_bytes)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


@contextlib.contextmanager
def outboard_errors() -> Iterator[None]:
    """Inside, a failed call raises the ``OutboardError`` that the service raised."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from None


async def exchange(
    method: Callable[..., grpc.aio.StreamStreamCall[Any, Any]],
    requests: AsyncIterable[Request] | Iterable[Request],
    *,
    timeout_seconds: float | None = None,
) -> AsyncGenerator[Any, None]:
    """Call a bidirectional stream: send the requests while the responses are read.

    The call is cancelled when the generator is closed, so close it (``contextlib.aclosing``).

    Args:
        method: of a stub, for instance ``stub.Separate``.
        requests: what to send; an exception in it cancels the call and comes out here.
        timeout_seconds: deadline; unset: the channel's.

    Raises:
        OutboardError: what the service raised.
    """
    failure: list[Exception] = []
    call = method(_sent(requests, failure), timeout=timeout_seconds)
    try:
        async for response in call:
            yield response
    except grpc.RpcError as error:
        raise (failure[0] if failure else from_rpc_error(error)) from None
    except asyncio.CancelledError:
        # grpc.aio cancels the call of a broken request iterator and does not say why.
        if failure:
            raise failure[0] from None
        raise
    finally:
        call.cancel()


async def _sent(
    requests: AsyncIterable[Request] | Iterable[Request], failure: list[Exception]
) -> AsyncIterator[Request]:
    try:
        if isinstance(requests, AsyncIterable):
            async for request in requests:
                yield request
        else:
            for request in requests:
                yield request
    except Exception as error:
        failure.append(error)
        raise
