"""What happens around every call that a server takes.

In this order: its span begins, its tenant is checked, its deadline is set, it is served, whatever it raised becomes a
status, and one line goes to the log. Health and reflection belong to the machinery: they have no tenant and no
deadline, and are not logged.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from opentelemetry import trace

from outboard import telemetry
from outboard.errors import DeadlineExceeded, Internal, OutboardError, Unavailable
from outboard.rpc import tracing
from outboard.rpc.errors import STATUS_KEY, status_code, to_status, translate
from outboard.rpc.tenant import METADATA_KEY, acting_for, checked_tenant
from outboard.settings import ServerSettings

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]

_log = logging.getLogger("outboard.access")
_MACHINERY = ("/grpc.health.", "/grpc.reflection.")


class CallGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The one interceptor of a server. It also counts calls in progress, and refuses new ones while draining."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False

    async def drain(self, seconds: float) -> bool:
        """Refuse new calls and wait for those in progress; whether all of them ended in time."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("calls are still running after the time to drain", extra={"calls": self._calls})
            return False
        return True

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Wrap the handler of a call; from grpc.aio."""
        handler = await continuation(handler_call_details)
        method: str = handler_call_details.method
        if handler is None or method.startswith(_MACHINERY):
            return handler
        kinds = {
            (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
            (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
            (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
            (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
        }
        behaviour, make = kinds[handler.request_streaming, handler.response_streaming]

        async def guarded(request: Any, context: Context) -> Any:
            return await self._serve(method, behaviour, request, context)

        return make(guarded, handler.request_deserializer, handler.response_serializer)

    async def _serve(self, method: str, behaviour: Behaviour, request: Any, context: Context) -> Any:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self._calls += 1
        self._idle.clear()
        try:
            with tracing.server_span(method, metadata) as span:
                return await self._answer(method, behaviour, request, context, metadata.get(METADATA_KEY), span)
        finally:
            self._calls -= 1
            if self._calls == 0:
                self._idle.set()

    async def _answer(
        self, method: str, behaviour: Behaviour, request: Any, context: Context, tenant: str | None, span: trace.Span
    ) -> Any:
        started = time.monotonic()
        code, reason = grpc.StatusCode.CANCELLED, "CANCELLED"
        try:
            response = await self._bounded(behaviour, request, context, tenant)
            code, reason = grpc.StatusCode.OK, ""
            return response
        except grpc.aio.AbortError:
            code, reason = grpc.StatusCode.UNKNOWN, "ABORTED"
            raise
        except Exception as raised:
            error = translate(raised)
            code, reason = status_code(error), error.reason
            if isinstance(error, Internal):
                _log.exception("an unexpected error in %s", method)
            await _abort(context, error)
        finally:
            tracing.set_code(span, code)
            with telemetry.bind(**({"tenant": tenant} if tenant else {})):
                facts = {"method": method, "code": code.name, "reason": reason}
                _log.info("%s %s", method, code.name, extra={**facts, "seconds": round(time.monotonic() - started, 4)})

    async def _bounded(self, behaviour: Behaviour, request: Any, context: Context, named: str | None) -> Any:
        if self._draining:
            raise Unavailable("the server is stopping", retry_after_seconds=1.0)
        tenant = checked_tenant(named, required=self._settings.require_tenant)
        remaining = context.time_remaining()
        longest = self._settings.maximum_deadline_seconds
        seconds = longest if remaining is None else min(remaining, longest)
        with acting_for(tenant), telemetry.bind(tenant=tenant):
            bound = asyncio.timeout(seconds)
            try:
                async with bound:
                    return await _call(behaviour, request, context)
            except TimeoutError as error:
                if not bound.expired():
                    raise
                raise DeadlineExceeded(f"the call took longer than its {seconds:.1f} s") from error


async def _call(behaviour: Behaviour, request: Any, context: Context) -> Any:
    """Await a handler; one that is an asynchronous generator is written out, and closed whatever happens."""
    outcome = behaviour(request, context)
    if not inspect.isasyncgen(outcome):
        return await outcome
    async with aclosing(outcome) as responses:
        async for response in responses:
            await context.write(response)
    return None


async def _abort(context: Context, error: OutboardError) -> None:
    details = to_status(error).SerializeToString()
    metadata = ((STATUS_KEY, details),)
    await context.abort(status_code(error), error.message, metadata)
