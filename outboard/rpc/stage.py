"""What the four stage servicers have in common: config first, then chunks; spooled or passed on; a report last."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from outboard.rpc.streaming import Audio, ChunkReader, ChunkWriter, StreamFormat
from outboard.v1 import audio_pb2

Report = TypeVar("Report")
Response = TypeVar("Response")


class StageRequest(Protocol):
    """A request of any stage's stream: a config or a chunk."""

    @property
    def config(self) -> Any: ...
    @property
    def chunk(self) -> audio_pb2.AudioChunk: ...
    def WhichOneof(self, oneof_group: Any, /) -> Any: ...  # noqa: N802 - protobuf's name


def first_config(requests: Iterator[Any]) -> Any:
    """The config, which the first request must carry.

    Raises:
        InvalidInput: STREAM_CONFIG_MISSING.
    """
    first = next(requests, None)
    if first is None or first.WhichOneof("request") != "config":
        raise InvalidInput("the first request must carry the config", reason="STREAM_CONFIG_MISSING", field="config")
    return first.config


def later_chunks(requests: Iterable[StageRequest]) -> Iterator[audio_pb2.AudioChunk]:
    """The chunks, which every request after the first must carry.

    Raises:
        InvalidInput: STREAM_CONFIG_REPEATED, or a request with neither.
    """
    for request in requests:
        kind = request.WhichOneof("request")
        if kind == "config":
            raise InvalidInput("a second config arrived", reason="STREAM_CONFIG_REPEATED", field="config")
        if kind is None:
            raise InvalidInput("a request carries neither config nor chunk", field="request")
        yield request.chunk


def single_stream(requests: Iterable[StageRequest], form: StreamFormat, maximum_seconds: float) -> Iterator[Audio]:
    """The checked blocks of a call that carries one stream, as they come; an error at the end if it is not complete."""
    reader = ChunkReader({"": form}, maximum_seconds=maximum_seconds)
    for chunk in later_chunks(requests):
        yield reader.read(chunk)[1]
    reader.finish()


def receive_streams(
    requests: Iterable[StageRequest],
    formats: Mapping[str, StreamFormat],
    append: Callable[[str, Audio], None],
    maximum_seconds: float,
) -> None:
    """Receive all streams of a call, to the end; ``append`` takes each block with its stem's name."""
    reader = ChunkReader(formats, maximum_seconds=maximum_seconds)
    for chunk in later_chunks(requests):
        append(*reader.read(chunk))
    reader.finish()


def spool_streams(
    requests: Iterable[StageRequest],
    formats: Mapping[str, StreamFormat],
    spools: Mapping[str, Spool],
    maximum_seconds: float,
) -> None:
    """Receive all streams of a call, to the end, each into its spool."""
    receive_streams(requests, formats, lambda stem, block: spools[stem].append(block), maximum_seconds)


def rendered(
    blocks: Generator[Audio, None, Report], channels: int, response: Callable[[audio_pb2.AudioChunk], Response]
) -> Generator[Response, None, Report]:
    """Responses with the chunks of what a domain's generator yields; returns its report, and closes it in any case."""
    writer = ChunkWriter(channels)
    with closing(blocks):
        while True:
            try:
                block = next(blocks)
            except StopIteration as end:
                report: Report = end.value
                break
            yield from map(response, writer.write(block))
        yield from map(response, writer.finish())
    return report


def unsent(
    blocks: Generator[Audio, None, Report], channels: int, response: Callable[[audio_pb2.AudioChunk], Response]
) -> Generator[Response, None, Report]:
    """The report of `rendered`, where nobody asked for the audio."""
    with closing(rendered(blocks, channels, response)) as responses:
        while True:
            try:
                next(responses)
            except StopIteration as end:
                report: Report = end.value
                break
    yield from ()
    return report


def file_chunks(path: Path, deliverable: str, piece_bytes: int) -> Iterator[audio_pb2.FileChunk]:
    """The bytes of a rendered file."""
    offset = 0
    with path.open("rb") as file:
        while data := file.read(piece_bytes):
            yield audio_pb2.FileChunk(deliverable=deliverable, offset=offset, data=data)
            offset += len(data)


class RunClock:
    """Measures one run for the report's ``run`` block."""

    def __init__(self) -> None:
        self._start_time = Timestamp()
        self._start_time.GetCurrentTime()
        self._started = time.monotonic()

    def run_info(self, frames: int, sample_rate_hertz: int, device: str = "cpu") -> audio_pb2.RunInfo:
        """The block, for audio of that length."""
        seconds = time.monotonic() - self._started
        info = audio_pb2.RunInfo(seconds=seconds, device=device, start_time=self._start_time)
        if frames:
            info.real_time_factor = seconds * sample_rate_hertz / frames
        return info
