"""Calls to a Triton server's gRPC service, awaited on any event loop.

gRPC's blocking channel with futures, not grpc.aio: its poller serves one event loop per process well, and the servers
of this program have theirs already.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc

from outboard.errors import FailedPrecondition

Arrays = Mapping[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]
DATA_TYPE = "FP32"
INVENTORY = "inventory"
"""The model that tells which weights the server has."""

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that starts again is found at once; gRPC would otherwise wait longer from try to try, up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Channels to one address share a connection otherwise: closing one and opening another would meet its old backoff.
    ("grpc.use_local_subchannel_pool", 1),
]


@dataclass(frozen=True)
class Signature:
    """Shapes of a model's float32 inputs and outputs, without the batch."""

    inputs: Shapes
    outputs: Shapes


class Connection:
    """One channel to a server. Errors of calls are ``grpc.RpcError``."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def infer(self, request: Any) -> Any:
        """One inference; cancelling the await cancels it on the server."""
        return await _finished(self._stub.ModelInfer.future(request))

    async def is_ready(self, model: str) -> bool:
        """Whether the server serves a model; a model whose process has crashed counts as served."""
        reply = await _finished(self._stub.ModelReady.future(messages.ModelReadyRequest(name=model)))
        return bool(reply.ready)

    async def load(self, model: str) -> None:
        """Loads a model; returns when it is ready."""
        request = messages.RepositoryModelLoadRequest(model_name=model)
        await _finished(self._stub.RepositoryModelLoad.future(request))

    async def unload(self, model: str) -> None:
        """Unloads a model once its work in progress is done; may return before that."""
        request = messages.RepositoryModelUnloadRequest(model_name=model)
        await _finished(self._stub.RepositoryModelUnload.future(request))

    async def signature(self, model: str) -> Signature:
        """What a loaded model takes and gives.

        Raises:
            FailedPrecondition: MODEL_INVALID, an input or output is not float32.
        """
        reply = await _finished(self._stub.ModelMetadata.future(messages.ModelMetadataRequest(name=model)))
        for tensor in (*reply.inputs, *reply.outputs):
            if tensor.datatype != DATA_TYPE:
                text = f"{tensor.name!r} of the model {model!r} on the server is {tensor.datatype}, not {DATA_TYPE}"
                raise FailedPrecondition(text, reason="MODEL_INVALID")
        return Signature(
            {tensor.name: tuple(tensor.shape[1:]) for tensor in reply.inputs},
            {tensor.name: tuple(tensor.shape[1:]) for tensor in reply.outputs},
        )

    async def repository(self) -> dict[str, str]:
        """Models in the server's repository; with the reason where one could not be loaded, else empty."""
        reply = await _finished(self._stub.RepositoryIndex.future(messages.RepositoryIndexRequest()))
        return {model.name: "" if model.reason == "unloaded" else model.reason for model in reply.models}

    async def inventory(self, name: str = INVENTORY) -> dict[str, dict[str, str]]:
        """The answer of the loaded model of that name."""
        request = messages.ModelInferRequest(model_name=name, raw_input_contents=[bytes(1)])
        request.inputs.add(name="ask", datatype="UINT8", shape=(1,))
        request.outputs.add(name="answer")
        reply = await _finished(self._stub.ModelInfer.future(request))
        found: dict[str, dict[str, str]] = json.loads(reply.raw_output_contents[0])
        return found

    async def register(self, name: str, byte_size: int) -> None:
        """Makes a file of /dev/shm known to the server; nothing happens when it is known already."""
        request = messages.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", offset=0, byte_size=byte_size)
        try:
            await _finished(self._stub.SystemSharedMemoryRegister.future(request))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise

    async def unregister(self, name: str) -> None:
        """Makes the server forget it."""
        request = messages.SystemSharedMemoryUnregisterRequest(name=name)
        await _finished(self._stub.SystemSharedMemoryUnregister.future(request))

    def close(self) -> None:
        """Closes the channel; calls in progress are cancelled."""
        self._channel.close()


async def _finished(call: Any) -> Any:
    """The reply of a call; when the await is cancelled, so is the call."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def tell(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    call.add_done_callback(tell)
    try:
        await ended.wait()
    finally:
        call.cancel()  # without effect on one that has ended
    return call.result()


def wire_request(model: str, inputs: Arrays, outputs: Shapes) -> Any:
    """A request that carries its arrays."""
    request = _request(model, inputs, outputs)
    request.raw_input_contents.extend(np.ascontiguousarray(array).tobytes() for array in inputs.values())
    return request


def memory_request(model: str, inputs: Arrays, outputs: Shapes, region: str, offset: int) -> Any:
    """A request whose arrays lie one after the other in a registered region, inputs first."""
    request = _request(model, inputs, outputs)
    batch = len(next(iter(inputs.values())))
    sizes = [array.nbytes for array in inputs.values()] + [4 * batch * int(np.prod(s)) for s in outputs.values()]
    for tensor, size in zip((*request.inputs, *request.outputs), sizes, strict=True):
        tensor.parameters["shared_memory_region"].string_param = region
        tensor.parameters["shared_memory_byte_size"].int64_param = size
        tensor.parameters["shared_memory_offset"].int64_param = offset
        offset += size
    return request


def reply_shapes(reply: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs, in the order of their contents."""
    return {tensor.name: tuple(tensor.shape) for tensor in reply.outputs}


def wire_arrays(reply: Any) -> dict[str, NDArray[np.float32]]:
    """The arrays that a reply carries; they cannot be written to."""
    return {
        name: np.frombuffer(content, dtype=np.float32).reshape(shape)
        for (name, shape), content in zip(reply_shapes(reply).items(), reply.raw_output_contents, strict=True)
    }


def _request(model: str, inputs: Arrays, outputs: Shapes) -> Any:
    request = messages.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=DATA_TYPE, shape=array.shape)
    for name in outputs:
        request.outputs.add(name=name)
    return request
