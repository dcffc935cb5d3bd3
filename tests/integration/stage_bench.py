"""The four real stage services in this process, each called in a form that is the same for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.rpc.channel import aio_channel, exchange
from outboard.rpc.streaming import chunk_messages
from outboard.settings import LimitSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import (
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

RATE = 48_000
STAGES = ("separator", "restorer", "mixer", "master")
Audio = np.ndarray


def make_song(seconds: float = 3.0, seed: int = 0) -> Audio:
    """A beat, a bass and a noisy voice: enough for every stage to have something to do."""
    frames = int(seconds * RATE)
    time_axis = np.arange(frames) / RATE
    random = np.random.default_rng(seed)
    beat = random.standard_normal(frames) * np.exp(-((time_axis * 2) % 1.0) * 20)
    bass = np.sin(2 * np.pi * 55 * time_axis) * 0.3
    voice = np.sin(2 * np.pi * 220 * time_axis + 3 * np.sin(2 * np.pi * 5 * time_axis)) * 0.2
    left, right = 0.2 * beat + bass + voice, 0.15 * beat + bass + 0.9 * voice
    return np.stack([left, right]).astype(np.float32) * np.float32(0.5)


def _form(song: Audio) -> audio_pb2.AudioFormat:
    return audio_pb2.AudioFormat(sample_rate_hertz=RATE, channels=song.shape[0], frames=song.shape[1])


def _separate_config(song: Audio, engine: str) -> Any:
    settings = separator_service_pb2.SeparationSettings(engine=engine)
    return separator_service_pb2.SeparateConfig(format=_form(song), settings=settings)


def _restore_config(song: Audio, engine: str) -> Any:
    steps = [restorer_service_pb2.RestorationStep(engine=engine)] if engine else []
    settings = restorer_service_pb2.RestorationSettings(steps=steps)
    return restorer_service_pb2.RestoreConfig(format=_form(song), settings=settings)


def _mix_config(song: Audio, engine: str) -> Any:
    settings = mixer_service_pb2.MixSettings(engine=engine)
    stems = [mixer_service_pb2.MixStem(name="mono"), mixer_service_pb2.MixStem(name="other")]
    return mixer_service_pb2.MixConfig(format=_form(song), settings=settings, stems=stems)


def _master_config(song: Audio, engine: str) -> Any:
    files = [
        master_service_pb2.DeliverableSpec(name="a"),
        master_service_pb2.DeliverableSpec(container="CONTAINER_FLAC"),
    ]
    settings = master_service_pb2.MasterSettings(engine=engine, deliverables=files)
    return master_service_pb2.MasterConfig(format=_form(song), settings=settings)


class Stage:
    """One running stage: its calls in a form that is the same for all of them."""

    _PARTS: ClassVar[dict[str, tuple[Any, Any, str, Callable[[Audio, str], Any], tuple[str, ...]]]] = {
        "separator": (separator_service_pb2, separator_service_pb2_grpc, "Separate", _separate_config, ("",)),
        "restorer": (restorer_service_pb2, restorer_service_pb2_grpc, "Restore", _restore_config, ("",)),
        "mixer": (mixer_service_pb2, mixer_service_pb2_grpc, "Mix", _mix_config, ("mono", "other")),
        "master": (master_service_pb2, master_service_pb2_grpc, "Master", _master_config, ("",)),
    }

    def __init__(self, name: str, channel: Any, folder: Path, address: str) -> None:
        messages, stubs, method, self.config, self.stems = self._PARTS[name]
        service = f"{name.capitalize()}Service"
        self.name, self.channel, self.folder, self.address = name, channel, folder, address
        self.stub = getattr(stubs, f"{service}Stub")(channel)
        self.method = getattr(self.stub, method)
        self.request = getattr(messages, f"{method}Request")
        self.engines_request = getattr(messages, f"{service}ListEnginesRequest")

    def requests(self, song: Audio, engine: str = "", piece: int = 8_192) -> list[Any]:
        """Config and chunks of every stem, cut into pieces of that many frames."""
        chunks = (
            chunk
            for stem in self.stems
            for start in range(0, song.shape[1], piece)
            for chunk in chunk_messages(song[:, start : start + piece], start, stem)
        )
        return [self.request(config=self.config(song, engine)), *(self.request(chunk=chunk) for chunk in chunks)]

    async def render(self, requests: list[Any], timeout_seconds: float = 100) -> tuple[dict[str, bytes], Any]:
        """The bytes of each stem or file, and the report."""
        parts: dict[str, bytearray] = {}
        report = None
        frame_bytes = 4 * (2 if self.name == "mixer" else requests[0].config.format.channels)
        async with contextlib.aclosing(exchange(self.method, requests, timeout_seconds=timeout_seconds)) as responses:
            async for response in responses:
                assert report is None, "the report is the last message"
                kind = response.WhichOneof("response")
                if kind == "report":
                    report = response.report
                elif kind == "chunk" and self.name == "master":
                    part = parts.setdefault(response.chunk.deliverable, bytearray())
                    assert response.chunk.offset == len(part)
                    part += response.chunk.data
                elif kind == "chunk":
                    part = parts.setdefault(response.chunk.stem, bytearray())
                    assert response.chunk.start_frame * frame_bytes == len(part)
                    part += response.chunk.samples
        assert report is not None
        assert report.run.seconds > 0
        return {name: bytes(part) for name, part in parts.items()}, report

    async def assert_idle(self) -> None:
        """Within 2 s: no worker, no file, and health is SERVING."""
        end = time.monotonic() + 2.0
        while (workers(self.name) or any(self.folder.iterdir())) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert workers(self.name) == []
        assert list(self.folder.iterdir()) == []
        health = health_pb2_grpc.HealthStub(self.channel)
        status = (await health.Check(health_pb2.HealthCheckRequest(), timeout=1)).status
        assert status == health_pb2.HealthCheckResponse.SERVING


@functools.cache
def warm_up(name: str) -> None:
    """What the real service does before it serves; once per process."""
    importlib.import_module(f"services.{name}.__main__").warm_up()


def workers(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"outboard-{name}")]


@contextlib.asynccontextmanager
async def serving(name: str, folder: Path, **limits: Any) -> AsyncIterator[Stage]:
    """A stage service with two render slots (or other ``limits``) that spools into ``folder``."""
    settings = Settings(
        limits=LimitSettings(**{"concurrent_renders": 2, **limits}), spool=SpoolSettings(directory=folder)
    )
    main = importlib.import_module(f"services.{name}.__main__")
    async with in_process(main.build(settings), settings) as server, aio_channel(server.address) as channel:
        yield Stage(name, channel, folder, server.address)
