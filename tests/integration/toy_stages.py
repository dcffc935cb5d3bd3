"""The four stages in this process with engines that cost nothing: counted, slowed and broken on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import grpc
import numpy as np
from numpy.typing import NDArray

from outboard.audio.wave_header import float_wave_header
from outboard.errors import OutboardError
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    master_service_pb2,
    master_service_pb2_grpc,
    mixer_service_pb2,
    mixer_service_pb2_grpc,
    restorer_service_pb2,
    restorer_service_pb2_grpc,
    separator_service_pb2,
    separator_service_pb2_grpc,
)

ENGINE = audio_pb2.EngineInfo(name="toy", version=1, backend="numpy", device="cpu", available=True)
STEMS = ("vocals", "drums", "bass", "other")
MIX_PLAN = mixer_service_pb2.MixPlan(
    strips=[mixer_service_pb2.Strip(stem=name, role="ROLE_OTHER", gain_db=-1.5) for name in STEMS],
    notes=["A toy's plan."],
)
MASTER_PLAN = master_service_pb2.MasterPlan(intent="MASTER_INTENT_LOUD", engine="toy", ceiling_dbtp=-1.0)


@contextmanager
def toy_analysis() -> Iterator[None]:
    """An analysis that costs nothing instead of the real one, which has tests of its own."""

    def measure(array: NDArray[np.float32], progress: object) -> analysis_pb2.Analysis:
        frames = array.shape[1]
        return analysis_pb2.Analysis(frames=frames, sample_rate_hertz=48000, channels=2, mean=0.0, deviation=0.1)

    with mock.patch("services.orchestrator.ingest.measure", measure):
        yield


@dataclass
class Behaviour:
    """What the toys do, and what they were asked."""

    calls: Counter[str] = field(default_factory=Counter)
    better_engines: list[audio_pb2.EngineInfo] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)
    seconds_per_chunk: dict[str, float] = field(default_factory=dict)
    errors: dict[str, list[OutboardError]] = field(default_factory=dict)
    failing_engines: list[str] = field(default_factory=list)
    restorer_seconds: float = 0.0
    plan_requests: list[Any] = field(default_factory=list)
    separate_config: separator_service_pb2.SeparateConfig | None = None
    mix_config: mixer_service_pb2.MixConfig | None = None
    failing_plugins: dict[str, str] = field(default_factory=dict)
    master_config: master_service_pb2.MasterConfig | None = None

    def calm(self) -> None:
        """Forgets calls, slowness and errors."""
        self.calls.clear()
        self.seconds_per_chunk.clear()
        self.errors.clear()
        self.failing_engines.clear()

    async def begin(self, stage: str) -> None:
        """Counts a call, and fails it if an error waits for this stage."""
        self.calls[stage] += 1
        waiting = self.errors.get(stage)
        if waiting:
            raise waiting.pop(0)

    async def pace(self, stage: str) -> None:
        """Takes the time that a chunk of this stage is to take."""
        await asyncio.sleep(self.seconds_per_chunk.get(stage, 0.0))


class Toys(
    separator_service_pb2_grpc.SeparatorServiceServicer,
    restorer_service_pb2_grpc.RestorerServiceServicer,
    mixer_service_pb2_grpc.MixerServiceServicer,
    master_service_pb2_grpc.MasterServiceServicer,
):
    """All four services; each stem of the separator is a quarter of the song, the rest passes audio on."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def register(self, server: grpc.aio.Server) -> None:
        """Adds all of them to a server."""
        toys: Any = self
        separator_service_pb2_grpc.add_SeparatorServiceServicer_to_server(toys, server)
        restorer_service_pb2_grpc.add_RestorerServiceServicer_to_server(toys, server)
        mixer_service_pb2_grpc.add_MixerServiceServicer_to_server(toys, server)
        master_service_pb2_grpc.add_MasterServiceServicer_to_server(toys, server)

    async def ListEngines(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The request's type says which service was asked."""
        answer = type(request).__name__.replace("Request", "Response")
        modules = (separator_service_pb2, restorer_service_pb2, mixer_service_pb2, master_service_pb2)
        kind = next(getattr(module, answer) for module in modules if hasattr(module, answer))
        return kind(engines=[*self._behaviour.better_engines, ENGINE])

    async def Separate(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._behaviour.begin("separate")
        response = separator_service_pb2.SeparateResponse
        frames = 0
        async with self._running("separate"):
            config = (await anext(aiter(request_iterator))).config
            self._behaviour.separate_config = config
            async for request in request_iterator:
                await self._behaviour.pace("separate")
                samples = (np.frombuffer(request.chunk.samples, "<f4") * np.float32(0.25)).tobytes()
                for stem in STEMS:
                    yield response(
                        chunk=audio_pb2.AudioChunk(stem=stem, start_frame=request.chunk.start_frame, samples=samples)
                    )
                frames += len(samples) // (4 * config.format.channels)
                yield response(progress=audio_pb2.Progress(fraction=frames / config.format.frames))
        yield response(report=separator_service_pb2.SeparationReport(engine=ENGINE, stems=STEMS, frames=frames))

    async def Restore(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._behaviour.begin("restore")
        self._behaviour.restorer_seconds = context.time_remaining()
        async with self._running("restore"):
            await anext(aiter(request_iterator))
            async for request in request_iterator:
                await self._behaviour.pace("restore")
                yield restorer_service_pb2.RestoreResponse(chunk=request.chunk)
        failed = self._behaviour.failing_engines
        report = restorer_service_pb2.RestorationReport(engines=[] if failed else [ENGINE], failed_engines=failed)
        for name in failed:
            report.warnings.add(code="RESTORATION_FAILED", message=f"{name} left the stem as it was")
        yield restorer_service_pb2.RestoreResponse(report=report)

    async def Mix(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._behaviour.begin("mix")
        async with self._running("mix"):
            config = (await anext(aiter(request_iterator))).config
            self._behaviour.mix_config = config
            plan = config.plan if config.HasField("plan") else MIX_PLAN
            total = np.zeros(config.format.frames * config.format.channels, np.float32)
            async for request in request_iterator:
                await self._behaviour.pace("mix")
                samples = np.frombuffer(request.chunk.samples, "<f4")
                start = request.chunk.start_frame * config.format.channels
                total[start : start + samples.size] += samples
            step = 32768 * config.format.channels
            if config.plan_only:
                total = total[:0]
            for start in range(0, total.size, step):
                chunk = audio_pb2.AudioChunk(
                    start_frame=start // config.format.channels, samples=total[start : start + step].tobytes()
                )
                yield mixer_service_pb2.MixResponse(chunk=chunk)
        asked = [mixer_service_pb2.PluginRun(name=plugin.name) for plugin in config.preset.plugins.values()]
        for plugin in asked:
            plugin.reason = self._behaviour.failing_plugins.get(plugin.name, "")
        yield mixer_service_pb2.MixResponse(report=mixer_service_pb2.MixReport(engine=ENGINE, plan=plan, plugins=asked))

    async def ListPlugins(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Every plugin is there."""
        plugins = [mixer_service_pb2.PluginInfo(name=name) for name in request.names]
        return mixer_service_pb2.ListPluginsResponse(plugins=plugins)

    async def Master(self, request_iterator: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        await self._behaviour.begin("master")
        async with self._running("master"):
            config = (await anext(aiter(request_iterator))).config
            self._behaviour.master_config = config
            layout = config.format
            data = float_wave_header(layout.frames, layout.channels, layout.sample_rate_hertz)
            offset = 0
            async for request in request_iterator:
                if request.chunk.stem or config.plan_only:
                    continue
                await self._behaviour.pace("master")
                data += request.chunk.samples
                chunk = audio_pb2.FileChunk(deliverable="master.wav", offset=offset, data=data)
                yield master_service_pb2.MasterResponse(chunk=chunk)
                offset, data = offset + len(data), b""
        plan = config.plan if config.HasField("plan") else MASTER_PLAN
        report = master_service_pb2.MasteringReport(engine=ENGINE, plan=plan)
        report.after.shimmer_index = 0.1
        yield master_service_pb2.MasterResponse(report=report)

    async def PlanMix(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._plan("plan_mix", request)
        return mixer_service_pb2.PlanMixResponse()

    async def PlanMaster(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self._plan("plan_master", request)
        return master_service_pb2.PlanMasterResponse()

    async def _plan(self, call: str, request: Any) -> None:
        """Fails while an error stands for this call: a plan may be asked for more than once."""
        self._behaviour.plan_requests.append(request)
        for error in self._behaviour.errors.get(call, ()):
            raise error

    def _running(self, stage: str) -> _Running:
        return _Running(self._behaviour, stage)


class _Running:
    def __init__(self, behaviour: Behaviour, stage: str) -> None:
        self._running = behaviour.running
        self._stage = stage

    async def __aenter__(self) -> None:
        self._running[self._stage] += 1

    async def __aexit__(self, *error: object) -> None:
        self._running[self._stage] -= 1
