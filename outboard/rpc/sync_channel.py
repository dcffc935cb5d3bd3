"""Channels for programs without an event loop; otherwise the same as ``channel``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from outboard.rpc import tracing
from outboard.rpc.channel import UNARY_SECONDS, channel_options
from outboard.rpc.tenant import METADATA_KEY, current_tenant
from outboard.settings import ServerSettings, checked_address


class _Details(NamedTuple):
    """What grpc.ClientCallDetails describes; grpc reads the attributes only."""

    method: str
    timeout: float | None
    metadata: list[tuple[str, str]]
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Caller(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    """Adds to a call what all of them carry: tenant, deadline, trace."""

    def __init__(self, tenant: str | None, stream_seconds: float) -> None:
        self._tenant = tenant
        self._stream_seconds = stream_seconds

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any, seconds: float) -> Any:
        span, metadata = tracing.client_span(details.method)
        metadata += list(details.metadata or ())
        if not any(key == METADATA_KEY for key, _ in metadata):
            metadata.append((METADATA_KEY, self._tenant or current_tenant()))
        prepared = _Details(
            details.method,
            seconds if details.timeout is None else details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        call = continuation(prepared, request)
        call.add_done_callback(lambda ended: tracing.end(span, ended.code()))
        return call

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request, UNARY_SECONDS)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return self._call(continuation, client_call_details, request, self._stream_seconds)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator, self._stream_seconds)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return self._call(continuation, client_call_details, request_iterator, self._stream_seconds)


def sync_channel(
    address: str,
    *,
    tenant: str | None = None,
    stream_seconds: float | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> grpc.Channel:
    """A blocking channel to a service.

    Args:
        address: ``host:port`` or ``unix:PATH``.
        tenant: in whose name its calls are made; unless given, "default".
        stream_seconds: deadline of streams that set none.
        credentials: for TLS; none: plain.
    """
    settings = ServerSettings()
    target, options = checked_address(address), channel_options(settings.maximum_message_bytes)
    plain = (
        grpc.insecure_channel(target, options=options)
        if credentials is None
        else grpc.secure_channel(target, credentials, options=options)
    )
    return grpc.intercept_channel(plain, _Caller(tenant, stream_seconds or settings.maximum_deadline_seconds))
