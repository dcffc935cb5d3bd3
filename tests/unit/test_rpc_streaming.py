"""AudioChunk messages to arrays and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.errors import InvalidInput
from outboard.rpc.streaming import (
    MAXIMUM_CHUNK_BYTES,
    PIECE_BYTES,
    ChunkReader,
    ChunkWriter,
    StreamFormat,
    checked_format,
    chunk_messages,
)
from outboard.v1 import audio_pb2


def _noise(channels: int, frames: int) -> np.ndarray:
    return np.random.default_rng(frames).standard_normal((channels, frames)).astype(np.float32)


@given(channels=st.sampled_from([1, 2]), cuts=st.lists(st.integers(0, 90_000), max_size=6))
@settings(max_examples=30, deadline=None)
def test_writer_and_reader_keep_every_sample_however_blocks_are_cut(channels: int, cuts: list[int]) -> None:
    """Messages are the same for any blocks, of 256 KiB but the last, and read back as they were."""
    song = _noise(channels, 90_000)
    edges = [0, *sorted(cuts), 90_000]
    writer = ChunkWriter(channels, "drums")
    messages = [message for start, end in itertools.pairwise(edges) for message in writer.write(song[:, start:end])]
    messages += writer.finish()
    assert [len(message.samples) for message in messages[:-1]] == [PIECE_BYTES] * (len(messages) - 1)
    whole = ChunkWriter(channels, "drums")
    assert messages == [*whole.write(song), *whole.finish()]
    reader = ChunkReader({"drums": StreamFormat(48_000, channels, 90_000)}, maximum_seconds=60)
    np.testing.assert_array_equal(np.concatenate([reader.read(message)[1] for message in messages], axis=1), song)
    reader.finish()
    assert writer.frames == 90_000


def test_a_writer_keeps_no_view_of_a_block_that_its_owner_reuses() -> None:
    """The caller may overwrite his block at once."""
    writer = ChunkWriter(1)
    block = np.ones((1, 10), dtype=np.float32)
    assert list(writer.write(block)) == []
    block[:] = 9.0
    (message,) = writer.finish()
    assert np.frombuffer(message.samples, "<f4").tolist() == [1.0] * 10


def test_samples_are_interleaved_little_endian() -> None:
    """left 0, right 0, left 1, right 1 ..., as the contract says."""
    (message,) = chunk_messages(np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32), 7, "x")
    assert message.samples == b"".join(np.float32(value).tobytes() for value in (1.0, 3.0, 2.0, 4.0))
    assert (message.start_frame, message.stem) == (7, "x")


def test_an_over_full_scale_sample_passes_and_the_largest_float_is_finite() -> None:
    """Nothing is clipped on the way, and huge is not infinite."""
    reader = ChunkReader({"": StreamFormat(48_000, 1)}, maximum_seconds=60)
    largest = np.finfo(np.float32).max
    _, block = reader.read(audio_pb2.AudioChunk(samples=np.array([3.0, -largest, largest], "<f4").tobytes()))
    assert block.tolist() == [[3.0, -largest, largest]]


def test_not_a_number_is_located() -> None:
    """The message names the frame."""
    reader = ChunkReader({"": StreamFormat(48_000, 2)}, maximum_seconds=60)
    samples = np.zeros((5, 2), "<f4")
    samples[3, 1] = np.nan
    with pytest.raises(InvalidInput, match="at frame 3") as caught:
        reader.read(audio_pb2.AudioChunk(samples=samples.tobytes()))
    assert caught.value.reason == "AUDIO_NOT_FINITE"


def test_stems_are_counted_apart() -> None:
    """Each stem has its own position, and each must be complete."""
    reader = ChunkReader({"a": StreamFormat(48_000, 1), "b": StreamFormat(48_000, 1, 2)}, maximum_seconds=60)
    one = np.zeros(1, "<f4").tobytes()
    reader.read(audio_pb2.AudioChunk(stem="a", samples=one))
    reader.read(audio_pb2.AudioChunk(stem="b", samples=one))
    reader.read(audio_pb2.AudioChunk(stem="a", samples=one, start_frame=1))
    assert dict(reader.frames) == {"a": 2, "b": 1}
    with pytest.raises(InvalidInput, match="'b'") as caught:
        reader.finish()
    assert caught.value.reason == "STREAM_LENGTH_MISMATCH"


def test_chunks_may_be_empty_but_not_in_the_wrong_place() -> None:
    """An empty chunk is a whole number of frames."""
    reader = ChunkReader({"": StreamFormat(48_000, 1)}, maximum_seconds=60)
    reader.read(audio_pb2.AudioChunk())
    with pytest.raises(InvalidInput):
        reader.read(audio_pb2.AudioChunk(start_frame=1))


def test_a_format_is_checked_field_by_field() -> None:
    """The allowed edges pass; the length limit is in seconds."""
    for rate in (8_000, 192_000):
        form = audio_pb2.AudioFormat(sample_rate_hertz=rate, channels=1, frames=rate)
        assert checked_format(form, field="f", maximum_seconds=1) == StreamFormat(rate, 1, rate)
    form = audio_pb2.AudioFormat(sample_rate_hertz=8_000, channels=1, frames=8_001)
    with pytest.raises(InvalidInput) as caught:
        checked_format(form, field="config.format", maximum_seconds=1)
    assert caught.value.reason == "AUDIO_TOO_LONG"
    assert caught.value.violations[0].field == "config.format.frames"
    assert MAXIMUM_CHUNK_BYTES == 4 * PIECE_BYTES
