"""A bounded queue between the event loop and one worker thread.

One end is asynchronous, the other blocks its thread. A full queue makes its writer wait, which is how back-pressure
travels through a call: a slow client stops the worker, a slow worker stops reading, and gRPC's flow control stops the
client.
Closing wakes both ends at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from outboard.errors import Cancelled, DeadlineExceeded

T = TypeVar("T")


class Ended(Exception):
    """The writer has ended the queue and nothing is left in it."""


class Pipe(Generic[T]):
    """A queue of at most ``size`` items.

    Args:
        loop: the event loop of the asynchronous end.
        size: items that may wait.
        idle_seconds: how long the thread waits for the other end before it gives up with ``DeadlineExceeded``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int, idle_seconds: float) -> None:
        self._loop = loop
        self._size = size
        self._idle_seconds = idle_seconds
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._wake = asyncio.Event()
        self._loop_waits = False
        self._ended = False
        self._error: Exception | None = None
        self._closed = False

    # The thread's end.

    def put(self, item: T) -> None:
        """Append an item, waiting for room.

        Raises:
            Cancelled: the pipe was closed.
            DeadlineExceeded: the other end took nothing for too long.
        """
        with self._changed:
            self._wait(lambda: len(self._items) < self._size, "nothing was read")
            self._items.append(item)
            self._notify_loop()

    def offer(self, item: T) -> bool:
        """Append an item if there is room at once; whether it was."""
        with self._changed:
            if self._closed or len(self._items) >= self._size:
                return False
            self._items.append(item)
            self._notify_loop()
        return True

    def get(self) -> T:
        """Take the next item, waiting for it.

        Raises:
            Ended: the writer has ended and nothing is left.
            Cancelled: the pipe was closed.
            DeadlineExceeded: the other end sent nothing for too long.
        """
        with self._changed:
            self._wait(lambda: bool(self._items) or self._ended, "nothing was sent")
            if not self._items:
                raise self._error or Ended
            item = self._items.popleft()
            self._notify_loop()
        return item

    def end(self, error: Exception | None = None) -> None:
        """Say that nothing more will come, or why; from either side."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()
            self._notify_loop()

    def _wait(self, ready: Callable[[], bool], complaint: str) -> None:
        if not self._changed.wait_for(lambda: self._closed or ready(), self._idle_seconds):
            raise DeadlineExceeded(f"{complaint} for {self._idle_seconds:.0f} s")
        if self._closed:
            raise Cancelled("the call has ended")

    def _notify_loop(self) -> None:
        """Wakes the loop's end if it waits, and only then: each call is a write to the loop's own socket."""
        if self._loop_waits:
            self._loop_waits = False
            self._loop.call_soon_threadsafe(self._wake.set)

    # The event loop's end.

    async def put_async(self, item: T) -> None:
        """Append an item, waiting for room; an item for a closed pipe is dropped."""
        while True:
            with self._changed:
                if self._closed:
                    return
                if len(self._items) < self._size:
                    self._items.append(item)
                    self._changed.notify_all()
                    return
                self._wait_for_thread()
            await self._wake.wait()

    async def get_async(self) -> T:
        """Take the next item, waiting for it.

        Raises:
            Ended: the writer has ended and nothing is left.
        """
        while True:
            with self._changed:
                if self._items:
                    self._changed.notify_all()
                    return self._items.popleft()
                if self._ended or self._closed:
                    raise Ended
                self._wait_for_thread()
            await self._wake.wait()

    def _wait_for_thread(self) -> None:
        self._wake.clear()
        self._loop_waits = True

    def close(self) -> None:
        """Drop what is in the pipe and wake both ends; from the event loop."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        self._wake.set()
