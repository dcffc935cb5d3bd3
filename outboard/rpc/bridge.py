"""Runs a streaming call's work in a thread of its own, so that the event loop never computes.

A stage's work is an ordinary synchronous generator: it takes requests from an iterator, computes, and yields
responses. The bridge feeds it from the call and sends what it yields, through a bounded pipe each way. When the
client goes away, cancels or runs out of time, both pipes close: the generator stops at its next request, response or
report of progress, is closed (its ``with`` blocks remove what they hold), and the thread ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from typing import Generic, Self, TypeVar

from outboard.errors import Cancelled, ResourceExhausted
from outboard.rpc.pipe import Ended, Pipe
from outboard.settings import LimitSettings

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")

_log = logging.getLogger(__name__)
_PROGRESS_PERIOD_SECONDS = 0.5
_TURN_POLL_SECONDS = 0.1
_RETRY_BUSY_SECONDS = 5.0


class Turns:
    """Lets a fixed number of threads compute at once; the others wait in the order in which they came."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, check: Callable[[], None]) -> None:
        """Wait for a turn; ``check`` is called while waiting and may raise."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                while self._free == 0 or self._waiting[0] is not ticket:
                    self._changed.wait(_TURN_POLL_SECONDS)
                    check()
                self._free -= 1
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def give(self) -> None:
        """Let the next one have it."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()


class Turn:
    """The right to compute, held inside a ``with``, and free for others whenever its call waits for its client."""

    def __init__(self, turns: Turns, check: Callable[[], None]) -> None:
        self._turns = turns
        self._check = check
        self._held = False

    def __enter__(self) -> Self:
        self._turns.take(self._check)
        self._held = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._held:
            self._held = False
            self._turns.give()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Let others compute meanwhile. What raises inside needs no turn any more, and does not wait for one."""
        if not self._held:
            yield
            return
        self.__exit__()
        yield
        self.__enter__()

    def awaited(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, each waited for aside."""
        iterator = iter(items)
        while True:
            with self.aside():
                item = next(iterator, None)
            if item is None:
                return
            yield item


class StageCall(Generic[Request, Response]):
    """What the work of one call sees of it. Its methods are for the worker's thread."""

    def __init__(
        self,
        inbox: Pipe[Request],
        outbox: Pipe[Response],
        turns: Turns,
        progress_message: Callable[[float], Response],
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._progress_message = progress_message
        self._turn = Turn(turns, self.check)
        self._cancelled = threading.Event()
        self._furthest = 0.0
        self._last_sent = time.monotonic()

    def requests(self) -> Iterator[Request]:
        """The call's requests, in order, until the client has sent its last."""
        while True:
            try:
                yield self._inbox.get()
            except Ended:
                return

    def check(self) -> None:
        """Raise ``Cancelled`` if the call is over."""
        if self._cancelled.is_set():
            raise Cancelled("the call has ended")

    def progress(self, fraction: float) -> None:
        """Note how far the work is (0 to 1); raise ``Cancelled`` if the call is over. Two messages a second go out."""
        self.check()
        self._furthest = min(1.0, max(self._furthest, fraction))
        now = time.monotonic()
        # A full pipe means that the client is behind; the next report serves as well.
        if now - self._last_sent >= _PROGRESS_PERIOD_SECONDS and self._outbox.offer(
            self._progress_message(self._furthest)
        ):
            self._last_sent = now

    def turn(self) -> Turn:
        """Wait for, and hold, the right to compute."""
        return self._turn

    def respond(self, response: Response) -> None:
        """Send a response; a client that is slow to read does not keep others from computing."""
        if not self._outbox.offer(response):
            with self._turn.aside():
                self._outbox.put(response)

    def cancel(self) -> None:
        """End the call; from the event loop."""
        self._cancelled.set()
        self._inbox.close()
        self._outbox.close()


Work = Callable[[StageCall[Request, Response]], Generator[Response, None, None]]


class Bridge:
    """The workers of one service.

    Args:
        name: of the service; part of the threads' names.
        limits: how many calls compute, and how many more may wait.
    """

    def __init__(self, name: str, limits: LimitSettings) -> None:
        self._name = name
        self._limits = limits
        self._turns = Turns(limits.concurrent_renders)
        self._calls = 0
        self._numbers = itertools.count(1)

    @property
    def calls(self) -> int:
        """Calls whose worker has not ended."""
        return self._calls

    async def run(
        self,
        work: Work[Request, Response],
        request_iterator: AsyncIterator[Request],
        progress_message: Callable[[float], Response],
    ) -> AsyncGenerator[Response, None]:
        """Serve one call: do ``work`` on its requests and yield its responses. Close it, and the worker stops.

        Raises:
            ResourceExhausted: more calls than may wait are there already; it says when to try again.
            Exception: whatever the work raised.
        """
        self._admit()
        loop = asyncio.get_running_loop()
        size, idle = self._limits.queued_messages, self._limits.idle_seconds
        inbox: Pipe[Request] = Pipe(loop, size, idle)
        outbox: Pipe[Response] = Pipe(loop, size, idle)
        call = StageCall(inbox, outbox, self._turns, progress_message)
        outcome: asyncio.Future[None] = loop.create_future()
        # Looked at in any case, also when this call is cancelled while it waits for its worker's end.
        outcome.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._start(work, call, outbox, outcome)
        feeder = asyncio.create_task(_feed(request_iterator, inbox))
        try:
            with contextlib.suppress(Ended):
                while True:
                    yield await outbox.get_async()
            await asyncio.shield(outcome)
        finally:
            call.cancel()
            feeder.cancel()
            await self._settle(outcome)

    def _admit(self) -> None:
        limit = self._limits.concurrent_renders + self._limits.waiting_calls
        if self._calls >= limit:
            raise ResourceExhausted(
                f"the {self._name} has {self._calls} calls, {limit} are allowed at once",
                retry_after_seconds=_RETRY_BUSY_SECONDS,
            )
        self._calls += 1

    def _start(
        self,
        work: Work[Request, Response],
        call: StageCall[Request, Response],
        outbox: Pipe[Response],
        outcome: asyncio.Future[None],
    ) -> None:
        loop = asyncio.get_running_loop()

        def ended(error: BaseException | None) -> None:
            self._calls -= 1
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(error)

        def body() -> None:
            error: BaseException | None = None
            try:
                with contextlib.closing(work(call)) as responses:
                    for response in responses:
                        call.respond(response)
            except BaseException as raised:
                error = raised
            # In this order: whoever sees the end of the responses finds the outcome there.
            loop.call_soon_threadsafe(ended, error)
            outbox.end()
            # The traceback refers to this frame; without the cycle its buffers go as soon as the call is over.
            error = None

        run_in_context = contextvars.copy_context().run
        name = f"outboard-{self._name}-{next(self._numbers)}"
        threading.Thread(target=run_in_context, args=(body,), name=name, daemon=True).start()

    async def _settle(self, outcome: asyncio.Future[None]) -> None:
        """Wait for the worker's end. What it raised on the way out of a call that is over concerns nobody."""
        grace = self._limits.cancel_grace_seconds
        done, _ = await asyncio.wait({outcome}, timeout=grace)
        if not done:
            _log.error("a worker did not stop in time", extra={"service_name": self._name, "grace_seconds": grace})


async def _feed(requests: AsyncIterator[Request], inbox: Pipe[Request]) -> None:
    try:
        async for request in requests:
            await inbox.put_async(request)
    except Exception as error:
        inbox.end(error)
    else:
        inbox.end()
