"""Carries batches to a Triton server and back: over the wire, or through shared memory on one machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import grpc
import numpy as np

from outboard.models.inference import Arrays
from outboard.models.triton_connection import (
    Connection,
    Signature,
    memory_request,
    reply_shapes,
    wire_arrays,
    wire_request,
)
from outboard.models.triton_faults import Fault, fault_of
from outboard.models.triton_memory import SharedMemory, arrays_bytes
from outboard.models.triton_served import ServedModel
from outboard.settings import TritonSettings


class Carrier:
    """Single inferences, on one event loop.

    Args:
        connection: to the server.
        settings: whether there is shared memory, and how much.
        signatures: of all models; the largest decides how much memory a window gets.

    Raises:
        ResourceExhausted: there is too little shared memory on this machine.
    """

    def __init__(self, connection: Connection, settings: TritonSettings, signatures: Mapping[str, Signature]) -> None:
        self._connection = connection
        self._deadline_seconds = settings.deadline_seconds
        self._memory: SharedMemory | None = None
        if settings.shared_memory:
            largest = max(_signature_bytes(signature) for signature in signatures.values())
            self._memory = SharedMemory(settings.in_flight, largest)
        self._registered = False
        self._registering = asyncio.Lock()

    async def infer(self, model: ServedModel, inputs: Arrays) -> Arrays:
        """One call. A batch that finds no memory goes over the wire.

        Raises:
            grpc.RpcError: the call failed.
            Internal: MODEL_INVALID, the answer has other shapes.
        """
        batch = len(next(iter(inputs.values())))
        memory = self._memory
        if memory and batch * _signature_bytes(model.signature) <= memory.slot_bytes:
            offset = memory.take()
            if offset is not None:
                return await self._through_memory(memory, offset, model, inputs)
        reply = await self._connection.infer(wire_request(model.name, inputs, model.signature.outputs))
        model.check_reply(reply, batch)
        return wire_arrays(reply)

    def forget(self) -> None:
        """The server may have started again: it has to be told of the memory once more."""
        self._registered = False

    async def end(self) -> None:
        """Makes the server forget the memory, if it can be reached."""
        if self._memory and self._registered:
            with suppress(grpc.RpcError):
                await self._connection.unregister(self._memory.name)

    def close(self) -> None:
        """Frees the memory."""
        if self._memory:
            self._memory.close()

    async def _through_memory(self, memory: SharedMemory, offset: int, model: ServedModel, inputs: Arrays) -> Arrays:
        is_answered = False
        try:
            await self._register(memory)
            place = offset
            for array in inputs.values():
                memory.write(place, array)
                place += array.nbytes
            request = memory_request(model.name, inputs, model.signature.outputs, memory.name, offset)
            reply = await self._connection.infer(request)
            is_answered = True
            model.check_reply(reply, len(next(iter(inputs.values()))))
            outputs = {}
            for name, shape in reply_shapes(reply).items():
                outputs[name] = memory.read(place, shape, np.dtype(np.float32))
                place += outputs[name].nbytes
            return outputs
        except grpc.RpcError as error:
            is_answered = fault_of(error) is not Fault.GONE
            raise
        finally:
            if is_answered:
                memory.give_back(offset)
            else:
                # The server may write to it until it notices that nobody waits; by then at the latest it has.
                asyncio.get_running_loop().call_later(self._deadline_seconds, memory.give_back, offset)

    async def _register(self, memory: SharedMemory) -> None:
        async with self._registering:
            if not self._registered:
                await self._connection.register(memory.name, memory.byte_size)
                self._registered = True


def _signature_bytes(signature: Signature) -> int:
    return arrays_bytes(signature.inputs) + arrays_bytes(signature.outputs)
