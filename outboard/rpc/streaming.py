"""AudioChunk messages to arrays and back.

In memory audio is float32 of shape (channels, frames); on the wire it is little-endian float32, interleaved, in
pieces of about 256 KiB, each with the position of its first frame. Receiving is strict: a stream that is not exactly
what its config announced is an error with a reason of its own, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from outboard.errors import InvalidInput
from outboard.v1 import audio_pb2

Audio = npt.NDArray[np.float32]

PIECE_BYTES = 256 * 1024
MAXIMUM_CHUNK_BYTES = 1024 * 1024
BYTES_PER_SAMPLE = 4
LOWEST_RATE_HERTZ = 8_000
HIGHEST_RATE_HERTZ = 192_000
MAXIMUM_CHANNELS = 2


def chunk_messages(block: Audio, start_frame: int = 0, stem: str = "") -> Iterator[audio_pb2.AudioChunk]:
    """Cut a block of shape (channels, frames) into messages of at most 256 KiB."""
    channels, frames = block.shape
    piece = PIECE_BYTES // (BYTES_PER_SAMPLE * channels)
    for start in range(0, frames, piece):
        samples = np.ascontiguousarray(block[:, start : start + piece].T, dtype="<f4").tobytes()
        yield audio_pb2.AudioChunk(stem=stem, start_frame=start_frame + start, samples=samples)


class ChunkWriter:
    """Turns one stream of blocks into messages of 256 KiB, whatever the size of the blocks."""

    def __init__(self, channels: int, stem: str = "") -> None:
        self._stem = stem
        self._piece = PIECE_BYTES // (BYTES_PER_SAMPLE * channels)
        self._pending: list[Audio] = []
        self._pending_frames = 0
        self._frames = 0

    @property
    def frames(self) -> int:
        """Frames given so far."""
        return self._frames + self._pending_frames

    def write(self, block: Audio) -> Iterator[audio_pb2.AudioChunk]:
        """Take a block of shape (channels, frames); give whatever whole pieces there are now."""
        self._pending.append(block)
        self._pending_frames += block.shape[1]
        if self._pending_frames >= self._piece:
            joined = self._joined()
            whole = joined.shape[1] - joined.shape[1] % self._piece
            yield from self._cut(joined[:, :whole])
            # A copy, so that the caller may reuse his block.
            self._pending = [joined[:, whole:].copy()]
            self._pending_frames = joined.shape[1] - whole
        else:
            self._pending[-1] = block.copy()

    def finish(self) -> Iterator[audio_pb2.AudioChunk]:
        """Give what is left."""
        if self._pending_frames:
            joined = self._joined()
            self._pending, self._pending_frames = [], 0
            yield from self._cut(joined)

    def _joined(self) -> Audio:
        return self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending, axis=1)

    def _cut(self, block: Audio) -> Iterator[audio_pb2.AudioChunk]:
        yield from chunk_messages(block, self._frames, self._stem)
        self._frames += block.shape[1]


@dataclass(frozen=True)
class StreamFormat:
    """A checked ``AudioFormat``."""

    sample_rate_hertz: int
    channels: int
    frames: int | None = None


def checked_format(message: audio_pb2.AudioFormat, *, field: str, maximum_seconds: float) -> StreamFormat:
    """Check the layout that a config announces.

    Raises:
        InvalidInput: AUDIO_SAMPLE_RATE_UNSUPPORTED, AUDIO_TOO_MANY_CHANNELS, AUDIO_EMPTY or AUDIO_TOO_LONG.
    """
    rate, channels = message.sample_rate_hertz, message.channels
    if not LOWEST_RATE_HERTZ <= rate <= HIGHEST_RATE_HERTZ:
        raise InvalidInput(
            f"{rate} Hz is not supported: {LOWEST_RATE_HERTZ} to {HIGHEST_RATE_HERTZ} Hz are",
            reason="AUDIO_SAMPLE_RATE_UNSUPPORTED",
            field=f"{field}.sample_rate_hertz",
        )
    if channels > MAXIMUM_CHANNELS:
        raise InvalidInput(
            f"{channels} channels are too many: 1 or 2 are allowed",
            reason="AUDIO_TOO_MANY_CHANNELS",
            field=f"{field}.channels",
        )
    if channels < 1:
        raise InvalidInput(f"{channels} channels are no audio: 1 or 2 are", field=f"{field}.channels")
    frames = message.frames if message.HasField("frames") else None
    if frames is not None and frames < 1:
        raise InvalidInput(f"{frames} frames are no audio", reason="AUDIO_EMPTY", field=f"{field}.frames")
    if frames is not None and frames > maximum_seconds * rate:
        raise _too_long(frames, rate, maximum_seconds, f"{field}.frames")
    return StreamFormat(rate, channels, frames)


class ChunkReader:
    """Receives the streams of one call and checks every chunk.

    Args:
        formats: layout of each stem that may come, by its name ("" where the call carries one stream).
        maximum_seconds: longest audio of one stem.
    """

    def __init__(self, formats: Mapping[str, StreamFormat], *, maximum_seconds: float) -> None:
        self._formats = dict(formats)
        self._maximum_seconds = maximum_seconds
        self._frames = dict.fromkeys(formats, 0)

    @property
    def frames(self) -> Mapping[str, int]:
        """Frames of each stem so far."""
        return self._frames

    def read(self, chunk: audio_pb2.AudioChunk) -> tuple[str, Audio]:
        """Return the stem's name and its next block, of shape (channels, frames), contiguous.

        Raises:
            InvalidInput: STREAM_STEM_UNKNOWN, STREAM_CHUNK_SIZE, STREAM_GAP, STREAM_OVERLAP, STREAM_LENGTH_MISMATCH,
                AUDIO_TOO_LONG or AUDIO_NOT_FINITE.
        """
        stem = chunk.stem
        known = self._formats.get(stem)
        if known is None:
            names = ", ".join(repr(name) for name in self._formats)
            raise InvalidInput(
                f"the config has no stem {stem[:100]!r}: it has {names}",
                reason="STREAM_STEM_UNKNOWN",
                field="chunk.stem",
            )
        self._check_position(chunk.start_frame, self._frames[stem], stem)
        block = _unpack(chunk.samples, known.channels)
        self._check_length(stem, known, self._frames[stem] + block.shape[1])
        # NaN survives min and max, and neither needs a second array.
        if block.size and not (np.isfinite(block.min()) and np.isfinite(block.max())):
            at = self._frames[stem] + int(np.argmin(np.isfinite(block).all(axis=0)))
            raise InvalidInput(
                f"{_called(stem)} is not finite at frame {at}", reason="AUDIO_NOT_FINITE", field="chunk.samples"
            )
        self._frames[stem] += block.shape[1]
        return stem, block

    def finish(self) -> None:
        """Check that every stem is complete; call it at the end of the stream.

        Raises:
            InvalidInput: AUDIO_EMPTY or STREAM_LENGTH_MISMATCH.
        """
        for stem, known in self._formats.items():
            frames = self._frames[stem]
            if known.frames is not None and frames != known.frames:
                raise _mismatch(stem, frames, known.frames)
            if frames == 0:
                raise InvalidInput(f"{_called(stem)} has no audio", reason="AUDIO_EMPTY", field="chunk")

    @staticmethod
    def _check_position(start_frame: int, expected: int, stem: str) -> None:
        if start_frame == expected:
            return
        gap = start_frame > expected
        raise InvalidInput(
            f"{_called(stem)} goes on at frame {start_frame}, expected was {expected}",
            reason="STREAM_GAP" if gap else "STREAM_OVERLAP",
            field="chunk.start_frame",
        )

    def _check_length(self, stem: str, known: StreamFormat, frames: int) -> None:
        if known.frames is not None and frames > known.frames:
            raise _mismatch(stem, frames, known.frames)
        if frames > self._maximum_seconds * known.sample_rate_hertz:
            raise _too_long(frames, known.sample_rate_hertz, self._maximum_seconds, "chunk")


def _unpack(samples: bytes, channels: int) -> Audio:
    if len(samples) > MAXIMUM_CHUNK_BYTES:
        raise InvalidInput(
            f"a chunk of {len(samples)} bytes is too large: {MAXIMUM_CHUNK_BYTES} are allowed",
            reason="STREAM_CHUNK_SIZE",
            field="chunk.samples",
        )
    if len(samples) % (BYTES_PER_SAMPLE * channels):
        raise InvalidInput(
            f"{len(samples)} bytes are no whole number of frames of {BYTES_PER_SAMPLE * channels} bytes",
            reason="STREAM_CHUNK_SIZE",
            field="chunk.samples",
        )
    interleaved = np.frombuffer(samples, dtype="<f4").reshape(-1, channels)
    return np.ascontiguousarray(interleaved.T, dtype=np.float32)


def _called(stem: str) -> str:
    return f"stem {stem!r}" if stem else "the stream"


def _mismatch(stem: str, frames: int, announced: int) -> InvalidInput:
    return InvalidInput(
        f"{_called(stem)} has {'more than ' if frames > announced else ''}{min(frames, announced)} frames, "
        f"its config announced {announced}",
        reason="STREAM_LENGTH_MISMATCH",
        field="config.format.frames",
    )


def _too_long(frames: int, rate: int, maximum_seconds: float, field: str) -> InvalidInput:
    return InvalidInput(
        f"{frames / rate:.0f} s of audio are too long: {maximum_seconds:.0f} s are allowed",
        reason="AUDIO_TOO_LONG",
        field=field,
    )
