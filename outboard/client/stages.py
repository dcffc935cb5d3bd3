"""Typed clients of the stage services: arrays in, arrays and a report out, sent and received at the same time.

    async with SeparatorClient("127.0.0.1:50061") as separator:
        stems, report = await separator.separate(song, 48000)

Arrays are float32 of shape (channels, frames), with 1 or 2 channels. Results are in memory: what is too long for that
goes through `SeparatorClient.stream`, or through a job.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from outboard.errors import Internal
from outboard.rpc.channel import aio_channel, exchange, outboard_errors
from outboard.rpc.streaming import ChunkReader, ChunkWriter, StreamFormat, chunk_messages
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

Audio = NDArray[np.float32]
Fraction = Callable[[float], None]
"""Told how far the stage is, 0 to 1."""


@dataclass(frozen=True)
class Stem:
    """One stem for the mixer: audio of shape (channels, frames), what it plays, and its rate."""

    audio: Audio
    role: audio_pb2.Role.ValueType = audio_pb2.ROLE_UNSPECIFIED
    sample_rate_hertz: int = 48000


class _StageClient:
    """A channel to one stage; close it, or use it in an ``async with``."""

    def __init__(
        self, address: str, *, tenant: str | None = None, credentials: grpc.ChannelCredentials | None = None
    ) -> None:
        self._channel = aio_channel(address, tenant=tenant, credentials=credentials)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class SeparatorClient(_StageClient):
    """Splits songs into stems."""

    async def engines(self) -> list[audio_pb2.EngineInfo]:
        """The engines of this server, the preferred first."""
        stub = separator_service_pb2_grpc.SeparatorServiceStub(self._channel)
        with outboard_errors():
            answer = await stub.ListEngines(separator_service_pb2.SeparatorServiceListEnginesRequest())
        return list(answer.engines)

    async def separate(
        self,
        song: Audio,
        sample_rate_hertz: int,
        settings: separator_service_pb2.SeparationSettings | None = None,
        *,
        facts: analysis_pb2.SongFacts | None = None,
        progress: Fraction | None = None,
    ) -> tuple[dict[str, Audio], separator_service_pb2.SeparationReport]:
        """All stems of a song, each as long as it, and the report."""
        layout = _layout(song, sample_rate_hertz)
        config = separator_service_pb2.SeparateConfig(format=layout, settings=settings, facts=facts)
        collected = _Collected(layout.channels)
        async with aclosing(self.stream([song], config, progress=progress)) as answers:
            async for answer in answers:
                collected.take(answer)
        return collected.stems(), collected.ended()

    async def stream(
        self,
        blocks: Iterable[Audio] | AsyncIterable[Audio],
        config: separator_service_pb2.SeparateConfig,
        *,
        progress: Fraction | None = None,
    ) -> AsyncGenerator[audio_pb2.AudioChunk | separator_service_pb2.SeparationReport, None]:
        """Chunks of every stem while the song's blocks are still being sent, last the report."""
        request = separator_service_pb2.SeparateRequest
        stub = separator_service_pb2_grpc.SeparatorServiceStub(self._channel)

        async def requests() -> AsyncIterator[separator_service_pb2.SeparateRequest]:
            yield request(config=config)
            async for chunk in _chunks(blocks, config.format.channels):
                yield request(chunk=chunk)

        async with aclosing(_answers(stub.Separate, requests(), progress)) as answers:
            async for answer in answers:
                yield answer


class RestorerClient(_StageClient):
    """Repairs stems."""

    async def engines(self) -> list[audio_pb2.EngineInfo]:
        """The engines of this server, in the order of the automatic chain."""
        stub = restorer_service_pb2_grpc.RestorerServiceStub(self._channel)
        with outboard_errors():
            answer = await stub.ListEngines(restorer_service_pb2.RestorerServiceListEnginesRequest())
        return list(answer.engines)

    async def restore(
        self,
        stem: Audio,
        sample_rate_hertz: int,
        settings: restorer_service_pb2.RestorationSettings | None = None,
        *,
        progress: Fraction | None = None,
    ) -> tuple[Audio, restorer_service_pb2.RestorationReport]:
        """The repaired stem, as long as it was, and the report."""
        layout = _layout(stem, sample_rate_hertz)
        request = restorer_service_pb2.RestoreRequest
        stub = restorer_service_pb2_grpc.RestorerServiceStub(self._channel)

        async def requests() -> AsyncIterator[restorer_service_pb2.RestoreRequest]:
            yield request(config=restorer_service_pb2.RestoreConfig(format=layout, settings=settings))
            for chunk in chunk_messages(stem):
                yield request(chunk=chunk)

        collected = await _collect(stub.Restore, requests(), progress, layout.channels)
        return collected.only(), collected.ended()


class MixerClient(_StageClient):
    """Mixes stems."""

    async def engines(self) -> list[audio_pb2.EngineInfo]:
        """The engines of this server, the preferred first."""
        stub = mixer_service_pb2_grpc.MixerServiceStub(self._channel)
        with outboard_errors():
            answer = await stub.ListEngines(mixer_service_pb2.MixerServiceListEnginesRequest())
        return list(answer.engines)

    async def mix(
        self,
        stems: Mapping[str, Stem],
        sample_rate_hertz: int = 48000,
        settings: mixer_service_pb2.MixSettings | None = None,
        *,
        preset: mixer_service_pb2.Preset | None = None,
        plan: mixer_service_pb2.MixPlan | None = None,
        progress: Fraction | None = None,
    ) -> tuple[Audio, mixer_service_pb2.MixReport]:
        """The stereo mix, and the report."""
        layout = audio_pb2.AudioFormat(sample_rate_hertz=sample_rate_hertz, channels=2)
        config = mixer_service_pb2.MixConfig(format=layout, settings=settings, preset=preset, plan=plan)
        collected = await self._send(stems, config, progress)
        return collected.only(), collected.ended()

    async def plan(
        self,
        stems: Mapping[str, Stem],
        sample_rate_hertz: int = 48000,
        settings: mixer_service_pb2.MixSettings | None = None,
        *,
        preset: mixer_service_pb2.Preset | None = None,
        progress: Fraction | None = None,
    ) -> mixer_service_pb2.MixPlan:
        """All numbers of a mix, decided and not rendered; `mix` takes them, edited or not."""
        layout = audio_pb2.AudioFormat(sample_rate_hertz=sample_rate_hertz, channels=2)
        config = mixer_service_pb2.MixConfig(format=layout, settings=settings, preset=preset, plan_only=True)
        report: mixer_service_pb2.MixReport = (await self._send(stems, config, progress)).ended()
        return report.plan

    async def _send(
        self, stems: Mapping[str, Stem], config: mixer_service_pb2.MixConfig, progress: Fraction | None
    ) -> _Collected:
        for name, stem in stems.items():
            config.stems.add(name=name, role=stem.role, format=_layout(stem.audio, stem.sample_rate_hertz))
        request = mixer_service_pb2.MixRequest
        stub = mixer_service_pb2_grpc.MixerServiceStub(self._channel)

        async def requests() -> AsyncIterator[mixer_service_pb2.MixRequest]:
            yield request(config=config)
            for name, stem in stems.items():
                for chunk in chunk_messages(stem.audio, stem=name):
                    yield request(chunk=chunk)

        return await _collect(stub.Mix, requests(), progress, 2)


class MasterClient(_StageClient):
    """Masters mixes."""

    async def engines(self) -> list[audio_pb2.EngineInfo]:
        """The engines of this server, the preferred first."""
        stub = master_service_pb2_grpc.MasterServiceStub(self._channel)
        with outboard_errors():
            answer = await stub.ListEngines(master_service_pb2.MasterServiceListEnginesRequest())
        return list(answer.engines)

    async def master(
        self,
        mix: Audio,
        sample_rate_hertz: int,
        settings: master_service_pb2.MasterSettings | None = None,
        *,
        plan: master_service_pb2.MasterPlan | None = None,
        tags: Mapping[str, str] | None = None,
        progress: Fraction | None = None,
    ) -> tuple[dict[str, bytes], master_service_pb2.MasteringReport]:
        """The delivered files by name, and the report."""
        config = master_service_pb2.MasterConfig(
            format=_layout(mix, sample_rate_hertz), settings=settings, plan=plan, tags=tags
        )
        files, report = await self._send(mix, config, progress)
        return {name: bytes(data) for name, data in files.items()}, report

    async def plan(
        self,
        mix: Audio,
        sample_rate_hertz: int,
        settings: master_service_pb2.MasterSettings | None = None,
        *,
        preset: mixer_service_pb2.Preset | None = None,
        progress: Fraction | None = None,
    ) -> master_service_pb2.MasterPlan:
        """All numbers of a master, decided and not rendered; `master` takes them, edited or not."""
        layout = _layout(mix, sample_rate_hertz)
        config = master_service_pb2.MasterConfig(format=layout, settings=settings, preset=preset, plan_only=True)
        return (await self._send(mix, config, progress))[1].plan

    async def _send(
        self, mix: Audio, config: master_service_pb2.MasterConfig, progress: Fraction | None
    ) -> tuple[dict[str, bytearray], master_service_pb2.MasteringReport]:
        request = master_service_pb2.MasterRequest
        stub = master_service_pb2_grpc.MasterServiceStub(self._channel)

        async def requests() -> AsyncIterator[master_service_pb2.MasterRequest]:
            yield request(config=config)
            for chunk in chunk_messages(mix):
                yield request(chunk=chunk)

        files: dict[str, bytearray] = {}
        report = None
        async with aclosing(_answers(stub.Master, requests(), progress)) as answers:
            async for answer in answers:
                if isinstance(answer, audio_pb2.FileChunk):
                    files.setdefault(answer.deliverable, bytearray()).extend(answer.data)
                else:
                    report = answer
        if report is None:
            raise Internal("the master ended without a report")
        return files, report


class _Collected:
    """Gathers chunks by stem, in order and without gaps, and the report behind them."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._readers: dict[str, ChunkReader] = {}
        self._blocks: dict[str, list[Audio]] = {}
        self._report: Any = None

    def take(self, answer: Any) -> None:
        """One chunk, or the report."""
        if not isinstance(answer, audio_pb2.AudioChunk):
            self._report = answer
            return
        if answer.stem not in self._readers:
            # The rate only serves a limit on the length, which the server's answer does not need.
            layout = {answer.stem: StreamFormat(48000, self._channels)}
            self._readers[answer.stem] = ChunkReader(layout, maximum_seconds=float("inf"))
        name, block = self._readers[answer.stem].read(answer)
        self._blocks.setdefault(name, []).append(block)

    def stems(self) -> dict[str, Audio]:
        """Every stem, whole."""
        return {name: np.concatenate(blocks, axis=1) for name, blocks in self._blocks.items()}

    def only(self) -> Audio:
        """The one stream of calls that have one."""
        return self.stems()[""]

    def ended(self) -> Any:
        """The report."""
        if self._report is None:
            raise Internal("the stage ended without a report")
        return self._report


async def _collect(method: Any, requests: AsyncIterator[Any], progress: Fraction | None, channels: int) -> _Collected:
    collected = _Collected(channels)
    async with aclosing(_answers(method, requests, progress)) as answers:
        async for answer in answers:
            collected.take(answer)
    return collected


async def _answers(method: Any, requests: AsyncIterator[Any], progress: Fraction | None) -> AsyncGenerator[Any, None]:
    """Chunks and the report of a call; progress goes to the callback."""
    async with aclosing(exchange(method, requests)) as responses:
        async for response in responses:
            kind = response.WhichOneof("response")
            if kind == "progress":
                if progress:
                    progress(response.progress.fraction)
            elif kind:
                yield getattr(response, kind)


async def _chunks(blocks: Iterable[Audio] | AsyncIterable[Audio], channels: int) -> AsyncIterator[audio_pb2.AudioChunk]:
    writer = ChunkWriter(channels)
    if isinstance(blocks, AsyncIterable):
        async for block in blocks:
            for chunk in writer.write(block):
                yield chunk
    else:
        for block in blocks:
            for chunk in writer.write(block):
                yield chunk
    for chunk in writer.finish():
        yield chunk


def _layout(audio: Audio, sample_rate_hertz: int) -> audio_pb2.AudioFormat:
    channels, frames = audio.shape
    return audio_pb2.AudioFormat(sample_rate_hertz=sample_rate_hertz, channels=channels, frames=frames)
