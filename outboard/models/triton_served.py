"""One model on a Triton server: loaded, held to its shapes, probed, and replaced when its process has crashed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from outboard.errors import FailedPrecondition, Internal, InvalidInput, OutboardError
from outboard.models.inference import Arrays
from outboard.models.triton_connection import Connection, Signature, reply_shapes, wire_request
from outboard.models.triton_faults import Fault, fault_of, load_error

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.02


class ServedModel:
    """What is known of a model, on one event loop.

    Args:
        connection: to the server.
        name: on the server.
        signature: what it has to take and give.

    Attributes:
        ready: it is loaded and has the right shapes, as far as is known.
        generation: how often it had to be replaced.
        alive_at: the event loop's time of its last answer.
        used_at: that of the last batch, or of its loading.
    """

    def __init__(self, connection: Connection, name: str, signature: Signature) -> None:
        self.name = name
        self.signature = signature
        self.ready = False
        self.generation = 0
        self.alive_at = 0.0
        self.used_at = 0.0
        self._connection = connection
        self._lock = asyncio.Lock()
        self._limits: dict[asyncio.Timeout, float] = {}

    async def load(self) -> None:
        """Has the server load the model, and holds its shapes against the signature; nothing once that is done.

        Raises:
            FailedPrecondition: MODEL_INVALID for other shapes; the model's own reason when it cannot be loaded.
            grpc.RpcError: the server cannot be reached.
        """
        if self.ready:
            return
        async with self._lock:
            if self.ready:
                return
            if not await self._connection.is_ready(self.name):
                await self._load()
            found = await self._connection.signature(self.name)
            if found != self.signature:
                text = f"the model {self.name!r} on the server has {found}, not {self.signature}"
                raise FailedPrecondition(text, reason="MODEL_INVALID")
            self.used_at = asyncio.get_running_loop().time()
            self.ready = True

    async def unload(self) -> None:
        """Has the server give the model's memory back; another fault than that it is gone already is logged."""
        async with self._lock:
            self.ready = False
            _log.info("unloading a model that is not used", extra={"model": self.name})
            try:
                await self._connection.unload(self.name)
            except grpc.RpcError as error:
                _log.warning("the model could not be unloaded", extra={"model": self.name, "error": str(error)})

    async def probe(self) -> None:
        """One real inference, of silence: Triton calls a model ready whose process is dead.

        Raises:
            grpc.RpcError: it gave no answer.
        """
        silence = {name: np.zeros((1, *shape), dtype=np.float32) for name, shape in self.signature.inputs.items()}
        self.check_reply(await self._connection.infer(wire_request(self.name, silence, self.signature.outputs)), 1)
        self.answered()

    async def recover(self, generation: int) -> None:
        """Replaces the model if its process has crashed, unless somebody has done so since ``generation``.

        Raises:
            FailedPrecondition, grpc.RpcError: as in `load`.
        """
        async with self._lock:
            if self.generation != generation or await self._is_alive():
                return
            _log.warning("the model's process crashed: it is loaded again", extra={"model": self.name})
            await self._connection.unload(self.name)
            while await self._connection.is_ready(self.name):
                await asyncio.sleep(_POLL_SECONDS)
            await self._load()
            self.generation += 1
            await self.probe()

    async def look_after(self, timeout_seconds: float) -> None:
        """Probes the model and replaces it if its process has crashed; another fault is logged."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.recover(self.generation)
        except (grpc.RpcError, OutboardError, TimeoutError) as error:
            _log.warning("a probe of the model failed", extra={"model": self.name, "error": str(error)})
            self.ready = False

    @contextmanager
    def renewing(self, limit: asyncio.Timeout, seconds: float) -> Iterator[None]:
        """Moves a time limit so many seconds ahead at each answer of the model, as long as the ``with`` lasts."""
        self._limits[limit] = seconds
        try:
            yield
        finally:
            del self._limits[limit]

    def answered(self) -> None:
        """Remembers that the model computes: whoever waits for it may go on waiting."""
        self.alive_at = asyncio.get_running_loop().time()
        for limit, seconds in self._limits.items():
            if not limit.expired():
                limit.reschedule(self.alive_at + seconds)

    def check_inputs(self, inputs: Arrays) -> None:
        """The arrays are those that the model takes.

        Raises:
            InvalidInput: MODEL_INVALID.
        """
        found = {name: (str(array.dtype), array.shape[1:]) for name, array in inputs.items()}
        expected = {name: ("float32", shape) for name, shape in self.signature.inputs.items()}
        batches = {len(array) for array in inputs.values()}
        if found != expected or len(batches) != 1 or 0 in batches:
            raise InvalidInput(f"{self.name!r} takes {expected} in equal batches, not {found}", reason="MODEL_INVALID")

    def check_reply(self, reply: Any, batch: int) -> None:
        """The server's arrays are those that were asked for.

        Raises:
            Internal: MODEL_INVALID.
        """
        expected = {name: (batch, *shape) for name, shape in self.signature.outputs.items()}
        if (found := reply_shapes(reply)) != expected:
            raise Internal(f"the model {self.name!r} gave {found}, not {expected}", reason="MODEL_INVALID")

    async def _load(self) -> None:
        _log.info("loading a model", extra={"model": self.name})
        try:
            await self._connection.load(self.name)
        except grpc.RpcError as error:
            if fault_of(error) in (Fault.FAILED, Fault.REFUSED, Fault.UNLOADED):
                raise load_error(self.name, error.details() or "") from error
            raise

    async def _is_alive(self) -> bool:
        """Whether the model computes. Another process may have recovered it."""
        try:
            await self.probe()
        except grpc.RpcError as error:
            if fault_of(error) is Fault.CRASHED:
                return False
            raise
        return True
