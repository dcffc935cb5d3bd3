"""A span for both ends of every call, and for work that goes on after the call that asked for it.

The W3C trace context travels in the call's metadata; spans are named and attributed after OpenTelemetry's conventions
for RPC. The published aio interceptors are not used: the server's breaks handlers that write through their context,
and both keep their spans in generators, which a cancelled call abandons.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
from opentelemetry import propagate, trace

from outboard import telemetry

_CODE = "rpc.grpc.status_code"


def _attributes(method: str) -> dict[str, str]:
    service, _, name = method.lstrip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def traceparent() -> str | None:
    """The current span as a W3C ``traceparent``, to be kept with queued work; None where nothing is traced."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


@contextlib.contextmanager
def span(name: str, *, below: str | None = None, **attributes: str) -> Iterator[None]:
    """A span of work that is no call, below the current one.

    Args:
        name: of the work.
        below: instead, a kept ``traceparent``: the work belongs to the trace of whoever asked for it.
        attributes: strings, under ``outboard.``.
    """
    context = propagate.extract({"traceparent": below}) if below else None
    named = {f"outboard.{key}": value for key, value in attributes.items()}
    with telemetry.tracer(__name__).start_as_current_span(name, context=context, attributes=named):
        yield


@contextlib.contextmanager
def server_span(method: str, metadata: Mapping[str, str]) -> Iterator[trace.Span]:
    """The span of a call that is being served, below the caller's."""
    with telemetry.tracer(__name__).start_as_current_span(
        method.lstrip("/"),
        context=propagate.extract(metadata),
        kind=trace.SpanKind.SERVER,
        attributes=_attributes(method),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        yield span


def client_span(method: str) -> tuple[trace.Span, list[tuple[str, str]]]:
    """Begin the span of a call that is made from here; also the metadata that carries it to the peer."""
    span = telemetry.tracer(__name__).start_span(
        method.lstrip("/"), kind=trace.SpanKind.CLIENT, attributes=_attributes(method)
    )
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=trace.set_span_in_context(span))
    return span, list(carrier.items())


def set_code(span: trace.Span, code: grpc.StatusCode) -> None:
    """Note how a call ended."""
    span.set_attribute(_CODE, code.value[0])
    if code is not grpc.StatusCode.OK:
        span.set_status(trace.StatusCode.ERROR, code.name)


def end(span: trace.Span, code: grpc.StatusCode) -> None:
    """End a client's span."""
    set_code(span, code)
    span.end()


def end_with_call(span: trace.Span, call: Any) -> None:
    """End a client's span when its aio call ends."""
    if not span.is_recording():
        return

    async def finish() -> None:
        end(span, await call.code())

    pending: set[asyncio.Task[None]] = set()

    def done(_: Any) -> None:
        # The set keeps the task from being collected before it has run.
        task = asyncio.ensure_future(finish())
        pending.add(task)
        task.add_done_callback(pending.discard)

    call.add_done_callback(done)
