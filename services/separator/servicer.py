"""The separator at the wire: protobuf to arrays and back, nothing else. The song streams through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import closing
from typing import Any

import grpc

from outboard.audio.overlap_add import fixed_blocks
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.convert import from_message, to_message
from outboard.rpc.stage import RunClock, first_config, single_stream
from outboard.rpc.streaming import Audio, ChunkWriter, checked_format
from outboard.settings import Settings
from outboard.v1 import audio_pb2, separator_service_pb2, separator_service_pb2_grpc
from services.separator import separate
from services.separator.engines import Engine, SeparationReport, SeparationSettings, SongFacts

Context = grpc.aio.ServicerContext[Any, Any]
Call = StageCall[separator_service_pb2.SeparateRequest, separator_service_pb2.SeparateResponse]


class SeparatorServicer(separator_service_pb2_grpc.SeparatorServiceServicer):
    """``outboard.v1.SeparatorService``."""

    def __init__(self, settings: Settings, engines: Mapping[str, Engine] = separate.ENGINES) -> None:
        self._engines = engines
        self._limits = settings.limits
        self._bridge = Bridge("separator", settings.limits)

    def Separate(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[separator_service_pb2.SeparateRequest], context: Context
    ) -> AsyncIterator[separator_service_pb2.SeparateResponse]:
        """Split a song into stems while it arrives."""
        return self._bridge.run(self._separate, request_iterator, _progress)

    async def ListEngines(  # noqa: N802 - the contract's name
        self, request: separator_service_pb2.SeparatorServiceListEnginesRequest, context: Context
    ) -> separator_service_pb2.SeparatorServiceListEnginesResponse:
        """The engines of this server."""
        # In a thread: the first look at a model reads its weights.
        known = await asyncio.to_thread(separate.list_engines, self._engines)
        engines = [to_message(engine, audio_pb2.EngineInfo) for engine in known]
        return separator_service_pb2.SeparatorServiceListEnginesResponse(engines=engines)

    def _separate(self, call: Call) -> Generator[separator_service_pb2.SeparateResponse, None, None]:
        clock = RunClock()
        requests = call.requests()
        config = first_config(requests)
        longest = self._limits.maximum_audio_seconds
        form = checked_format(config.format, field="config.format", maximum_seconds=longest)
        settings = from_message(config.settings, SeparationSettings, "config.settings.")
        facts = from_message(config.facts, SongFacts, "config.facts.") if config.HasField("facts") else None
        separate.choose_engine(settings, self._engines)
        # Whole blocks are waited for aside: a client that sends slowly, or nothing, keeps no other from computing.
        blocks = fixed_blocks(single_stream(requests, form, longest), separate.BLOCK_FRAMES)
        with call.turn() as turn:
            stems = separate.separate(
                turn.awaited(blocks),
                form.sample_rate_hertz,
                settings,
                facts,
                call.progress,
                frames=form.frames,
                engines=self._engines,
            )
            with closing(stems):
                report = yield from _chunks(stems, form.channels)
        message = to_message(report, separator_service_pb2.SeparationReport)
        message.run.CopyFrom(clock.run_info(report.frames, form.sample_rate_hertz, report.engine.device))
        yield separator_service_pb2.SeparateResponse(report=message)


def _chunks(
    stems: Generator[dict[str, Audio], None, SeparationReport], channels: int
) -> Generator[separator_service_pb2.SeparateResponse, None, SeparationReport]:
    writers: dict[str, ChunkWriter] = {}
    while True:
        try:
            block = next(stems)
        except StopIteration as end:
            report: SeparationReport = end.value
            break
        for name, audio in block.items():
            writer = writers.setdefault(name, ChunkWriter(channels, name))
            yield from (separator_service_pb2.SeparateResponse(chunk=chunk) for chunk in writer.write(audio))
    for writer in writers.values():
        yield from (separator_service_pb2.SeparateResponse(chunk=chunk) for chunk in writer.finish())
    return report


def _progress(fraction: float) -> separator_service_pb2.SeparateResponse:
    progress = audio_pb2.Progress(fraction=fraction, activity="separating")
    return separator_service_pb2.SeparateResponse(progress=progress)
