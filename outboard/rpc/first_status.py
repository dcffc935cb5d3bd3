"""Keeps the status that a service ended a stream with.

grpc.aio overwrites it with INTERNAL, "Internal error from Core", when a message that was being written as the status
arrived cannot be sent any more (https://github.com/grpc/grpc/issues/36066), so a service that refuses a stream half-way
would lose its reason about every other time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import grpc

T = TypeVar("T")

_OVERWRITTEN = "Internal error from Core"
# The real status is on its way when the overwriting one is seen first.
_PATIENCE_SECONDS = 0.5


async def with_first_status(call: Any) -> AsyncIterator[Any]:
    """The responses of an aio call; where it fails, with the status that the service sent."""
    status = _FirstStatus(call)
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise await status.instead_of(error) from None


async def answered_with_first_status(call: Any) -> Any:
    """Wait for the answer of an aio call that streams requests; where it fails, with the status that the service sent.

    Returns:
        The call, done.
    """
    status = _FirstStatus(call)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        raise await status.instead_of(error) from None
    return call


class _FirstStatus:
    def __init__(self, call: Any) -> None:
        self._call = call
        self._known = asyncio.Event()
        self._error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._done)

    async def instead_of(self, error: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        if error.details() != _OVERWRITTEN:
            return error
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._known.wait()
        except TimeoutError:
            return error
        return self._error or error

    def _done(self, _: Any) -> None:
        # Called whenever a status is set, in its very moment: only then is it surely the one that arrived.
        details = _now(self._call.details())
        if details == _OVERWRITTEN or self._known.is_set():
            return
        code = _now(self._call.code())
        trailing = grpc.aio.Metadata.from_tuple(tuple(_now(self._call.trailing_metadata()) or ()))
        self._error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details, None)
        self._known.set()


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError("the call has no status yet")
