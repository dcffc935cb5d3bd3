"""Blocking calls beside the event loop, and work side by side on it.

Blocking calls run in a pool of their own: the workflow engine replaces the event loop's default pool and shuts it down
with itself, while progress and clean-up still want to be written.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_THREADS = 64
_pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="orchestrator")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs a blocking call in a worker thread. A cancelled caller still waits for the call's end."""
    return await stoppable(functools.partial(function, *args, **kwargs), lambda: None)


async def stoppable(function: Callable[[], R], stop: Callable[[], None]) -> R:
    """Runs a blocking call in a worker thread; when cancelled, tells it to stop and waits until it has."""
    run = contextvars.copy_context().run
    future = asyncio.get_running_loop().run_in_executor(_pool, lambda: run(function))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([future])
        if not future.cancelled():
            future.exception()  # whatever it was concerns nobody any more
        raise


async def together(work: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """Results of work side by side. All of it has ended when the first error is raised: nothing outlives its caller."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
