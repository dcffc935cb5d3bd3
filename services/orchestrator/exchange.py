"""One call of a stage service: sends stored audio while it reads the answer, and stores that as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Protocol, TypeVar

import grpc

from outboard.audio.wave_header import HEADER_BYTES, float_wave_header
from outboard.errors import Internal
from outboard.rpc.errors import from_rpc_error
from outboard.storage import ObjectStore
from outboard.v1 import audio_pb2
from services.orchestrator.audio_refs import AudioRef
from services.orchestrator.results import Draft, ObjectDraft, in_thread

Request = TypeVar("Request")
Response = TypeVar("Response")

FROM_STAGE = "stage_call"
"""Metadata key of errors that a stage answered with, as against errors of the orchestrator's own store."""


class StreamCall(Protocol):
    """A bidirectional stub method."""

    def __call__(self, requests: AsyncIterator[Any], *, timeout: float, metadata: Any) -> Any: ...


async def exchange(
    method: StreamCall, requests: AsyncIterator[Request], *, tenant: str, timeout_seconds: float
) -> AsyncIterator[Any]:
    """Responses of a stage while the requests are sent.

    Raises:
        OutboardError: what the stage answered (with `FROM_STAGE` in its metadata), or what the request iterator raised.
    """
    source = _Watched(requests)
    call = method(source, timeout=timeout_seconds, metadata=(("outboard-tenant", tenant),))
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        if source.error:
            raise source.error from error
        translated = from_rpc_error(error)
        translated.metadata[FROM_STAGE] = "1"
        raise translated from error
    except asyncio.CancelledError:
        # grpc cancels the call itself when the request iterator raises: that is no cancellation of ours.
        if source.error:
            raise source.error from None
        raise
    finally:
        call.cancel()
        await source.aclose()


class _Watched(AsyncIterator[Any]):
    """Remembers what the iterator raised, which grpc only logs."""

    def __init__(self, inner: AsyncIterator[Any]) -> None:
        self._inner = inner
        self.error: BaseException | None = None

    async def __anext__(self) -> Any:
        try:
            return await anext(self._inner)
        except (StopAsyncIteration, asyncio.CancelledError):
            raise
        except Exception as error:
            self.error = error
            raise

    async def aclose(self) -> None:
        close: Callable[[], Any] | None = getattr(self._inner, "aclose", None)
        if close is not None:
            try:
                await close()
            except RuntimeError:
                # Still inside a read of the store in grpc's own task: that one ends by itself.
                return


async def audio_chunks(store: ObjectStore, source: AudioRef, stem: str = "") -> AsyncIterator[audio_pb2.AudioChunk]:
    """A stored audio file as chunks, one read ahead of the wire at most."""
    pieces = await in_thread(store.read, source.key, HEADER_BYTES)
    frame_bytes = 4 * source.channels
    start_frame = 0
    while piece := await in_thread(next, pieces, b""):
        yield audio_pb2.AudioChunk(stem=stem, start_frame=start_frame, samples=piece)
        start_frame += len(piece) // frame_bytes


class AudioSink:
    """Stores the audio that a stage answers with as float WAV files; holds each stem to its announced length."""

    def __init__(
        self, draft: Draft, frames: int, channels: int, sample_rate_hertz: int, *, allowed: Collection[str]
    ) -> None:
        self._draft = draft
        self._allowed = allowed
        self._frames = frames
        self._channels = channels
        self._sample_rate_hertz = sample_rate_hertz
        self._objects: dict[str, ObjectDraft] = {}

    async def _open(self, name: str) -> ObjectDraft:
        if name not in self._allowed:
            raise Internal(f"the stage answered with the unknown stem {name!r}", reason="STREAM_STEM_UNKNOWN")
        target = await self._draft.open(name, "audio/wav")
        await target.write(float_wave_header(self._frames, self._channels, self._sample_rate_hertz))
        self._objects[name] = target
        return target

    async def write(self, chunk: audio_pb2.AudioChunk, name: str) -> None:
        """Appends a chunk to a stem's file.

        Raises:
            Internal: the stage broke its contract (unknown stem, a gap, too many frames).
        """
        target = self._objects.get(name) or await self._open(name)
        expected = (target.size - HEADER_BYTES) // (4 * self._channels)
        if chunk.start_frame != expected:
            raise Internal(f"the stage answered with frame {chunk.start_frame} after {expected}", reason="STREAM_GAP")
        await target.write(chunk.samples)

    def check(self) -> None:
        """Refuses an answer that is shorter or longer than the input, or empty."""
        if not self._objects:
            raise Internal("the stage answered without audio", reason="STREAM_LENGTH_MISMATCH")
        for name, target in self._objects.items():
            frames = (target.size - HEADER_BYTES) // (4 * self._channels)
            if frames != self._frames:
                raise Internal(
                    f"the stage answered with {frames} frames of {name or 'audio'} for {self._frames}",
                    reason="STREAM_LENGTH_MISMATCH",
                )

