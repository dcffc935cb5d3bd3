"""The restorer at the wire: protobuf to arrays and back, nothing else. The stem is spooled, then restored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import grpc

from outboard.audio.spool import Spool
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.convert import from_message, to_message
from outboard.rpc.stage import RunClock, first_config, rendered, spool_streams
from outboard.rpc.streaming import checked_format
from outboard.settings import Settings
from outboard.v1 import audio_pb2, restorer_service_pb2, restorer_service_pb2_grpc
from services.restorer.deployment import Deployment
from services.restorer.restore import restore
from services.restorer.settings import RestorationSettings, resolved_steps

Context = grpc.aio.ServicerContext[Any, Any]
Call = StageCall[restorer_service_pb2.RestoreRequest, restorer_service_pb2.RestoreResponse]


class RestorerServicer(restorer_service_pb2_grpc.RestorerServiceServicer):
    """``outboard.v1.RestorerService``."""

    def __init__(self, settings: Settings) -> None:
        self._longest_seconds = settings.limits.maximum_audio_seconds
        self._directory = settings.spool.directory
        self._bridge = Bridge("restorer", settings.limits)
        self._deployment = Deployment(settings)

    def Restore(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[restorer_service_pb2.RestoreRequest], context: Context
    ) -> AsyncIterator[restorer_service_pb2.RestoreResponse]:
        """Restore one stem."""
        return self._bridge.run(self._restore, request_iterator, _progress)

    async def ListEngines(  # noqa: N802 - the contract's name
        self, request: restorer_service_pb2.RestorerServiceListEnginesRequest, context: Context
    ) -> restorer_service_pb2.RestorerServiceListEnginesResponse:
        """The engines of this server."""
        # In a thread: weights are read and a model server is asked.
        engines = await asyncio.to_thread(self._deployment.engines)
        messages = [to_message(engine, audio_pb2.EngineInfo) for engine in engines]
        return restorer_service_pb2.RestorerServiceListEnginesResponse(engines=messages)

    def _restore(self, call: Call) -> Generator[restorer_service_pb2.RestoreResponse, None, None]:
        clock = RunClock()
        requests = call.requests()
        config = first_config(requests)
        form = checked_format(config.format, field="config.format", maximum_seconds=self._longest_seconds)
        settings = from_message(config.settings, RestorationSettings, "config.settings.")
        # Settings that cannot be met are refused before the stem is sent.
        resolved_steps(settings)
        voice, drawing = self._deployment.voice(), self._deployment.drawing()
        with Spool(form.channels, self._directory) as spool:
            spool_streams(requests, {"": form}, {"": spool}, self._longest_seconds)
            with call.turn():
                blocks = restore(
                    spool.array,
                    form.sample_rate_hertz,
                    settings,
                    call.progress,
                    voice,
                    self._directory,
                    drawing,
                    automatic=config.automatic,
                )
                report = yield from rendered(blocks, form.channels, _chunk)
        message = to_message(report, restorer_service_pb2.RestorationReport)
        message.run.CopyFrom(clock.run_info(report.frames, form.sample_rate_hertz))
        yield restorer_service_pb2.RestoreResponse(report=message)


def _chunk(chunk: audio_pb2.AudioChunk) -> restorer_service_pb2.RestoreResponse:
    return restorer_service_pb2.RestoreResponse(chunk=chunk)


def _progress(fraction: float) -> restorer_service_pb2.RestoreResponse:
    return restorer_service_pb2.RestoreResponse(progress=audio_pb2.Progress(fraction=fraction, activity="restoring"))
