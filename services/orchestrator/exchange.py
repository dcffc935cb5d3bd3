"""One call of a stage service: sends stored audio while it reads the answer, and stores that as it comes."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from outboard.audio.wave_header import HEADER_BYTES, float_wave_header
from outboard.errors import Internal, OutboardError
from outboard.rpc.channel import exchange
from outboard.rpc.tenant import METADATA_KEY
from outboard.storage import ObjectStore
from outboard.v1 import audio_pb2
from services.orchestrator.audio_refs import AudioRef
from services.orchestrator.field_paths import name_job_fields
from services.orchestrator.results import Draft, ObjectDraft
from services.orchestrator.threads import in_thread

_MEDIA_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".mp3": "audio/mpeg"}
_PIECES_AT_ONCE = 4  # a visit to a worker thread costs about as much as a piece
FROM_STAGE = "stage_call"
"""Metadata key of errors that a stage answered with, as against errors of the orchestrator's own store."""


async def call_stage(
    method: Any, requests: AsyncIterator[Any], *, block: str, tenant: str, timeout_seconds: float
) -> AsyncGenerator[Any, None]:
    """Responses of a stage, in the name of a tenant, while the requests are sent.

    Args:
        method: of the stage's stub.
        requests: the config, then chunks.
        block: the job's field that holds the stage's settings; violations are told by their place in it.
        tenant: in whose name.
        timeout_seconds: deadline.

    Raises:
        OutboardError: what the stage answered (with `FROM_STAGE` in its metadata), or what the request iterator raised.
    """
    own: list[OutboardError] = []

    async def watched() -> AsyncIterator[Any]:
        try:
            async for request in requests:
                yield request
        except OutboardError as error:
            own.append(error)
            raise

    method = functools.partial(method, metadata=((METADATA_KEY, tenant),))
    try:
        async with aclosing(exchange(method, watched(), timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                yield response
    except OutboardError as error:
        if error not in own:
            error.metadata[FROM_STAGE] = "1"
            name_job_fields(error, block)
        raise


async def audio_chunks(store: ObjectStore, source: AudioRef, stem: str = "") -> AsyncIterator[audio_pb2.AudioChunk]:
    """A stored audio file as chunks."""
    frame_bytes = 4 * source.channels
    start_frame = 0
    async with aclosing(stored_pieces(store, source.key, HEADER_BYTES)) as pieces:
        async for piece in pieces:
            yield audio_pb2.AudioChunk(stem=stem, start_frame=start_frame, samples=piece)
            start_frame += len(piece) // frame_bytes


async def stored_pieces(store: ObjectStore, key: str, offset: int) -> AsyncGenerator[bytes, None]:
    """A stored object from an offset, in pieces of `storage.CHUNK_BYTES`; a batch of them is read ahead.

    Raises:
        NotFound: there is no such object.
    """
    pieces = await in_thread(store.read, key, offset)
    ahead = asyncio.create_task(in_thread(_batch, pieces))
    try:
        while batch := await ahead:
            ahead = asyncio.create_task(in_thread(_batch, pieces))
            for piece in batch:
                yield piece
    finally:
        await asyncio.wait([ahead])
        if not ahead.cancelled():
            ahead.exception()  # it concerns nobody any more


def _batch(pieces: Iterator[bytes]) -> list[bytes]:
    return list(itertools.islice(pieces, _PIECES_AT_ONCE))


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


class FileSink:
    """Stores the deliverables that the master answers with."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._files: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """Deliverables in the order in which they began."""
        return list(self._files)

    async def write(self, chunk: audio_pb2.FileChunk, _name: str) -> None:
        """Appends to a file; pieces must follow each other."""
        name = chunk.deliverable
        if name not in self._files:
            media_type = _MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream")
            self._files[name] = await self._draft.open(name, media_type)
        if chunk.offset != self._files[name].size:
            raise Internal(f"the master sent byte {chunk.offset} of {name!r} out of order", reason="STREAM_GAP")
        await self._files[name].write(chunk.data)

    def check(self) -> None:
        """Refuses an answer without files."""
        if not self._files:
            raise Internal("the master answered without a file")


class NoSink:
    """Takes the answer of a stage that was asked for a plan alone."""

    async def write(self, chunk: object, _name: str) -> None:
        """Refuses what was not asked for."""
        raise Internal("the stage rendered although a plan alone was asked for")

    def check(self) -> None:
        """Nothing is missing."""
