"""Inference by a Triton server, over gRPC, with the patience that a job of minutes needs.

    infer ─► own queue ─► permit ─► load and check the model once ─► call ─► arrays
                                               ▲                                │
                                               └── wait longer each time ◄── server gone, queue full
                                               └── unload and load ◄──────── the model's process crashed

All of it runs on an event loop in a thread of its own; callers get futures. Cancelling one takes its batch out of this
queue, or out of the server's.

How long a queue is tells nothing of whether the server works. So no batch is refused or given up for having waited: its
patience begins when it leaves the own queue, and anew with every answer that the model gives to any batch. Who cannot
wait cancels. The own queue is as long as its callers let it be, who send a few windows of a song at a time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from outboard.errors import Internal, OutboardError, Unavailable
from outboard.models.htdemucs.transform import CHANNELS, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import VARIANTS
from outboard.models.inference import Arrays
from outboard.models.triton_carrier import Carrier
from outboard.models.triton_connection import INVENTORY, Connection, Signature
from outboard.models.triton_faults import Fault, fault_of, final_error, too_late
from outboard.models.triton_served import ServedModel
from outboard.models.triton_view import View, look
from outboard.settings import TritonSettings

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_FIRST_WAIT_SECONDS = 0.05
_LONGEST_WAIT_SECONDS = 2.0
# What the server says of its models is believed for so long.
_VIEW_SECONDS = 2.0
# A batch that meets a dead model so often is taken to be what kills it.
_CRASHES = 3
_WORTH_WAITING = (Fault.GONE, Fault.BUSY, Fault.UNLOADED)


SEPARATION = {
    name: Signature({"mix": (CHANNELS, SEGMENT_FRAMES)}, {"stems": (len(variant.kept), CHANNELS, SEGMENT_FRAMES)})
    for name, variant in VARIANTS.items()
}
"""The separation networks, as `outboard.models.inference` lists them."""


@dataclass
class _Story:
    """What one batch has been through."""

    last: Fault | None = None
    gone_since: float | None = None
    crashes: int = 0
    wait_seconds: float = _FIRST_WAIT_SECONDS


class TritonInference:
    """`outboard.models.inference.Inference` by a Triton server.

    Args:
        settings: where it is, and how patient to be.
        signatures: the models that may be asked for, with their shapes; a model of other shapes is refused.
        inventory: the model that tells which weights the server has.
        unload_seconds: time without a batch after which a model is unloaded, for others need the memory; None: never.
            Another client's next batch has it loaded again.

    Raises:
        ResourceExhausted: there is too little shared memory on this machine for what the settings ask.
    """

    def __init__(
        self,
        settings: TritonSettings,
        signatures: Mapping[str, Signature],
        *,
        inventory: str = INVENTORY,
        unload_seconds: float | None = None,
    ) -> None:
        self._settings = settings
        self._inventory = inventory
        self._unload_seconds = unload_seconds
        self._connection = Connection(settings.address)
        self._models = {name: ServedModel(self._connection, name, signature) for name, signature in signatures.items()}
        self._was_reached = False
        self._carrier = Carrier(self._connection, settings, signatures)
        self._permits = asyncio.Semaphore(settings.in_flight)
        self._accepted = 0
        self._accepting = threading.Lock()
        self._closed = False
        self._viewed_at = -math.inf
        self._view = View()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="triton", daemon=True)
        self._thread.start()
        self._watch = asyncio.run_coroutine_threadsafe(self._keep_watch(), self._loop)

    def infer(self, model: str, inputs: Arrays) -> Future[Arrays]:
        """Queues one batch; see the protocol. What came over gRPC cannot be written to.

        The future also fails with MODEL_SERVER_TIMEOUT, MODEL_SERVER_LOST, MODEL_SERVER_BUSY, MODEL_FAILED.
        """
        try:
            state = self._models.get(model)
            if state is None:
                raise Internal(f"no model {model!r} is known here", reason="MODEL_INVALID")
            state.check_inputs(inputs)
            self._accept()
        except OutboardError as error:
            failed: Future[Arrays] = Future()
            failed.set_exception(error)
            return failed
        future = asyncio.run_coroutine_threadsafe(self._infer(state, inputs), self._loop)
        future.add_done_callback(self._leave)
        return future

    def check(self, model: str, timeout_seconds: float = 60.0) -> None:
        """Loads a model, holds its shapes against what is expected, and runs one window of silence.

        Raises:
            FailedPrecondition: MODEL_INVALID for other shapes; the model's own reason when it cannot be loaded.
            Unavailable: MODEL_SERVER_UNAVAILABLE.
            DeadlineExceeded: MODEL_SERVER_TIMEOUT.
        """
        state = self._models[model]
        checked = self._in_time(state, timeout_seconds, state.probe)
        asyncio.run_coroutine_threadsafe(checked, self._loop).result()

    def view(self) -> View:
        """What the server tells of its models and weights without loading a network.

        Answers within seconds, and at once when it was asked a moment ago.
        """
        if time.monotonic() - self._viewed_at > _VIEW_SECONDS:
            self._view = asyncio.run_coroutine_threadsafe(look(self._connection, self._inventory), self._loop).result()
            self._viewed_at = time.monotonic()
        return self._view

    def close(self) -> None:
        """Cancels every batch and ends the connection."""
        with self._accepting:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._connection.close()
        self._carrier.close()

    def _accept(self) -> None:
        with self._accepting:
            if self._closed:
                raise Unavailable("this connection to the model server is closed", reason="MODEL_SERVER_UNAVAILABLE")
            self._accepted += 1

    def _leave(self, _: object) -> None:
        with self._accepting:
            self._accepted -= 1

    async def _infer(self, state: ServedModel, inputs: Arrays) -> Arrays:
        async with self._permits:
            seconds = self._settings.deadline_seconds
            return await self._in_time(state, seconds, lambda: self._carrier.infer(state, inputs))

    async def _in_time(
        self, state: ServedModel, seconds: float, attempt: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        """The result of an attempt that works, or the error that tells why none did.

        Args:
            seconds: time in which the model has given no answer at all.
        """
        story = _Story()
        try:
            async with asyncio.timeout(seconds) as limit:
                with state.renewing(limit, seconds):
                    return await self._with_patience(state, story, attempt)
        except TimeoutError:
            if story.last in _WORTH_WAITING:
                raise final_error(state.name, story.last, "", was_reached=self._was_reached) from None
            raise too_late(state.name, seconds) from None

    async def _with_patience(
        self, state: ServedModel, story: _Story, attempt: Callable[[], Coroutine[Any, Any, Result]]
    ) -> Result:
        """Tries until it works or no longer makes sense."""
        while True:
            generation = state.generation
            try:
                await state.load()
                if story.last is not Fault.BUSY:  # it waits in the same queue again
                    story.last = None
                result = await attempt()
            except grpc.RpcError as error:
                fault = fault_of(error)
                self._remember(state, story, fault)
                if self._is_final(story, fault):
                    details = error.details() or ""
                    raise final_error(state.name, fault, details, was_reached=self._was_reached) from error
            else:
                self._was_reached = True
                state.answered()
                state.used_at = self._loop.time()
                return result
            _log.info("a window is tried again", extra={"model": state.name, "fault": fault.name})
            if fault is Fault.CRASHED:
                with suppress(grpc.RpcError):  # the next attempt meets the same fault, and counts it
                    await state.recover(generation)
            elif fault is not Fault.FORGOTTEN or story.wait_seconds > _FIRST_WAIT_SECONDS:
                await asyncio.sleep(story.wait_seconds * random.uniform(0.5, 1.0))
            story.wait_seconds = min(2.0 * story.wait_seconds, _LONGEST_WAIT_SECONDS)

    def _remember(self, state: ServedModel, story: _Story, fault: Fault) -> None:
        """Draws the conclusions from a fault."""
        story.last = fault
        story.crashes += fault is Fault.CRASHED
        if fault is not Fault.GONE:
            story.gone_since = None
            self._was_reached = True
        elif story.gone_since is None:
            story.gone_since = self._loop.time()
        if fault is Fault.GONE:  # whatever starts again has nothing loaded and knows no memory
            for each in self._models.values():
                each.ready = False
        if fault in (Fault.GONE, Fault.FORGOTTEN):
            self._carrier.forget()
        if fault is Fault.UNLOADED:
            state.ready = False

    def _is_final(self, story: _Story, fault: Fault) -> bool:
        if fault is Fault.CRASHED:
            return story.crashes >= _CRASHES
        if fault is Fault.FORGOTTEN:
            return story.wait_seconds >= _LONGEST_WAIT_SECONDS
        if story.gone_since is not None:
            return self._loop.time() - story.gone_since > self._settings.restart_seconds
        return fault not in _WORTH_WAITING

    async def _keep_watch(self) -> None:
        """Unloads models that are not used any more, and probes loaded ones that have not answered for a while, so that
        a crash is mended before the next job.
        """
        while True:
            await asyncio.sleep(self._settings.probe_seconds)
            for state in self._models.values():
                now = self._loop.time()
                if not state.ready:
                    continue
                if self._unload_seconds is not None and now - state.used_at >= self._unload_seconds:
                    if not self._accepted:
                        await state.unload()
                elif now - state.alive_at >= self._settings.probe_seconds:
                    await state.look_after(self._settings.deadline_seconds)

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._carrier.end()
