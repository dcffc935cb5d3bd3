"""The four real stage services over a real socket: each returns what its domain computes, however the stream is cut."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from outboard.errors import InvalidInput, NotFound, OutboardError
from outboard.rpc.channel import aio_channel, exchange, outboard_errors
from outboard.rpc.convert import from_message, unmatched_fields
from outboard.rpc.streaming import chunk_messages
from outboard.settings import LimitSettings, Settings, SpoolSettings
from outboard.testing import in_process
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    master_service_pb2,
    master_service_pb2_grpc,
    mixer_service_pb2,
    mixer_service_pb2_grpc,
    processor_pb2,
    restorer_service_pb2,
    restorer_service_pb2_grpc,
    separator_service_pb2,
    separator_service_pb2_grpc,
)
from services.master import settings as master_settings
from services.mixer import console
from services.restorer import settings as restorer_settings
from services.separator import engines as separator_engines

RATE = 48_000
STAGES = ("separator", "restorer", "mixer", "master")
Audio = np.ndarray


def _song(seconds: float = 3.0, seed: int = 0) -> Audio:
    """A beat, a bass and a noisy voice: enough for every stage to have something to do."""
    frames = int(seconds * RATE)
    time_axis = np.arange(frames) / RATE
    random = np.random.default_rng(seed)
    beat = random.standard_normal(frames) * np.exp(-((time_axis * 2) % 1.0) * 20)
    bass = np.sin(2 * np.pi * 55 * time_axis) * 0.3
    voice = np.sin(2 * np.pi * 220 * time_axis + 3 * np.sin(2 * np.pi * 5 * time_axis)) * 0.2
    left, right = 0.2 * beat + bass + voice, 0.15 * beat + bass + 0.9 * voice
    return np.stack([left, right]).astype(np.float32) * np.float32(0.5)


def _format(song: Audio) -> audio_pb2.AudioFormat:
    return audio_pb2.AudioFormat(sample_rate_hertz=RATE, channels=song.shape[0], frames=song.shape[1])


def _separate_config(song: Audio, engine: str) -> Any:
    settings = separator_service_pb2.SeparationSettings(engine=engine)
    return separator_service_pb2.SeparateConfig(format=_format(song), settings=settings)


def _restore_config(song: Audio, engine: str) -> Any:
    steps = [restorer_service_pb2.RestorationStep(engine=engine)] if engine else []
    settings = restorer_service_pb2.RestorationSettings(steps=steps)
    return restorer_service_pb2.RestoreConfig(format=_format(song), settings=settings)


def _mix_config(song: Audio, engine: str) -> Any:
    settings = mixer_service_pb2.MixSettings(engine=engine)
    stems = [mixer_service_pb2.MixStem(name="mono"), mixer_service_pb2.MixStem(name="other")]
    return mixer_service_pb2.MixConfig(format=_format(song), settings=settings, stems=stems)


def _master_config(song: Audio, engine: str) -> Any:
    files = [
        master_service_pb2.DeliverableSpec(name="a"),
        master_service_pb2.DeliverableSpec(container="CONTAINER_FLAC"),
    ]
    settings = master_service_pb2.MasterSettings(engine=engine, deliverables=files)
    return master_service_pb2.MasterConfig(format=_format(song), settings=settings)


class Stage:
    """One running stage: its calls in a form that is the same for all of them."""

    _PARTS: ClassVar[dict[str, tuple[Any, Any, str, Callable[[Audio, str], Any], tuple[str, ...]]]] = {
        "separator": (separator_service_pb2, separator_service_pb2_grpc, "Separate", _separate_config, ("",)),
        "restorer": (restorer_service_pb2, restorer_service_pb2_grpc, "Restore", _restore_config, ("",)),
        "mixer": (mixer_service_pb2, mixer_service_pb2_grpc, "Mix", _mix_config, ("mono", "other")),
        "master": (master_service_pb2, master_service_pb2_grpc, "Master", _master_config, ("",)),
    }

    def __init__(self, name: str, channel: Any, folder: Path) -> None:
        messages, stubs, method, self.config, self.stems = self._PARTS[name]
        service = f"{name.capitalize()}Service"
        self.name, self.channel, self.folder = name, channel, folder
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

    async def render(self, requests: list[Any]) -> tuple[dict[str, bytes], Any]:
        """The bytes of each stem or file, and the report."""
        parts: dict[str, bytearray] = {}
        report = None
        async with contextlib.aclosing(exchange(self.method, requests, timeout_seconds=100)) as responses:
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
                    assert response.chunk.start_frame * 8 == len(part)
                    part += response.chunk.samples
        assert report is not None
        assert report.run.seconds > 0
        return {name: bytes(part) for name, part in parts.items()}, report

    async def assert_idle(self) -> None:
        """Within 2 s: no worker, no file, and health is SERVING."""
        end = time.monotonic() + 2.0
        while (_workers(self.name) or any(self.folder.iterdir())) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert _workers(self.name) == []
        assert list(self.folder.iterdir()) == []
        health = health_pb2_grpc.HealthStub(self.channel)
        status = (await health.Check(health_pb2.HealthCheckRequest(), timeout=1)).status
        assert status == health_pb2.HealthCheckResponse.SERVING


def _workers(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"outboard-{name}")]


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """Each stage in this process."""
    settings = Settings(limits=LimitSettings(concurrent_renders=2), spool=SpoolSettings(directory=tmp_path))
    main = importlib.import_module(f"services.{request.param}.__main__")
    async with in_process(main.build(settings), settings) as server, aio_channel(server.address) as channel:
        yield Stage(request.param, channel, tmp_path)


async def test_bytes_do_not_depend_on_how_the_stream_is_cut(stage: Stage) -> None:
    """The default engine on chunks of 1,000 frames and of 1 MiB: identical bytes, and reports but for the run."""
    song = _song()
    results = [await stage.render(stage.requests(song, piece=piece)) for piece in (1_000, 131_072)]
    for parts, report in results:
        report.ClearField("run")
        assert parts == results[0][0]
        assert report == results[0][1]
    if stage.name != "master":
        assert all(len(part) == song.nbytes for part in parts.values()), "as many frames come back as went in"
        assert report.frames == song.shape[1]
    await stage.assert_idle()


async def test_passthrough_changes_nothing(stage: Stage) -> None:
    """The engine that does nothing returns the input: the separator all in other, the mixer the plain sum."""
    song = _song(1.0)
    parts, report = await stage.render(stage.requests(song, "passthrough"))
    if stage.name == "master":
        assert report.engine.name == "passthrough"
        assert set(parts) == {"a.wav", "master.flac"}
        return
    arrays = {name: np.frombuffer(part, "<f4").reshape(-1, 2).T for name, part in parts.items()}
    expected = song * np.float32(2) if stage.name == "mixer" else song
    found = arrays.get("other", arrays.get(""))
    np.testing.assert_allclose(found, expected, atol=10 ** (-90 / 20) * np.abs(expected).max())


async def test_engines_are_listed_with_name_and_version(stage: Stage) -> None:
    """Every engine has a version, is available or says why not, and passthrough is always there."""
    engines = (await stage.stub.ListEngines(stage.engines_request())).engines
    assert engines[0].available
    assert "passthrough" in [engine.name for engine in engines]
    for engine in engines:
        assert engine.version >= 1
        assert engine.available or engine.unavailable_reason


async def test_an_unknown_engine_is_refused_and_leaves_nothing(stage: Stage) -> None:
    """INVALID_ARGUMENT or NOT_FOUND naming the field; nothing is left."""
    with pytest.raises((InvalidInput, NotFound)) as caught:
        await stage.render(stage.requests(_song(0.2), "../etc/passwd"))
    assert "engine" in caught.value.violations[0].field
    await stage.assert_idle()


_BAD: dict[str, tuple[Callable[[Stage, list[Any]], list[Any]], str]] = {
    "gap": (lambda stage, all_: [all_[0], *all_[2:]], "STREAM_GAP"),
    "overlap": (lambda stage, all_: [*all_[:2], all_[1], *all_[2:]], "STREAM_OVERLAP"),
    "no config": (lambda stage, all_: all_[1:], "STREAM_CONFIG_MISSING"),
    "two configs": (lambda stage, all_: [all_[0], *all_], "STREAM_CONFIG_REPEATED"),
    "cut short": (lambda stage, all_: all_[:-1], "STREAM_LENGTH_MISMATCH"),
    "unknown stem": (
        lambda stage, all_: [all_[0], stage.request(chunk=audio_pb2.AudioChunk(stem="../x"))],
        "STREAM_STEM_UNKNOWN",
    ),
    "wrong byte count": (
        lambda stage, all_: [
            all_[0], stage.request(chunk=audio_pb2.AudioChunk(stem=stage.stems[0], samples=b"123")),
        ],
        "STREAM_CHUNK_SIZE",
    ),
    "NaN": (
        lambda stage, all_: [
            all_[0],
            stage.request(
                chunk=audio_pb2.AudioChunk(stem=stage.stems[0], samples=np.full(8, np.nan, "<f4").tobytes())
            ),
        ],
        "AUDIO_NOT_FINITE",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _BAD)
async def test_a_bad_stream_is_refused_with_its_reason(stage: Stage, name: str) -> None:
    """INVALID_ARGUMENT with the documented reason; idle afterwards."""
    spoil, reason = _BAD[name]
    with pytest.raises(InvalidInput) as caught:
        await stage.render(spoil(stage, stage.requests(_song(0.5))))
    assert caught.value.reason == reason
    await stage.assert_idle()


async def test_a_cancelled_render_is_idle_within_2_s(stage: Stage) -> None:
    """Cancelled in the middle of the work, wherever that is; a service is warm when it serves."""
    await stage.render(stage.requests(_song(1.0)))
    call = stage.method(timeout=60)

    async def write() -> None:
        with contextlib.suppress(asyncio.InvalidStateError, asyncio.CancelledError, OutboardError):
            for request in stage.requests(_song(20.0)):
                await call.write(request)
            await call.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.sleep(1.0)
    call.cancel()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await stage.assert_idle()


@pytest.mark.parametrize("form", ["mono", "3 samples", "silence", "DC"])
async def test_ordinary_oddities_have_a_defined_result(stage: Stage, form: str) -> None:
    """Mono, 3 samples, silence and DC go through every stage, at their length."""
    if stage.name != "separator" and stage.name != "restorer" and form == "mono":
        pytest.skip("mix and master are asked for in stereo here")
    song = {
        "mono": _song(1.0)[:1],
        "3 samples": _song(1.0)[:, :3],
        "silence": np.zeros((2, RATE), np.float32),
        "DC": np.full((2, RATE), 0.25, np.float32),
    }[form]
    if form == "mono":
        requests = stage.requests(song)
        parts: dict[str, int] = {}
        async with contextlib.aclosing(exchange(stage.method, requests, timeout_seconds=60)) as responses:
            async for response in responses:
                parts[response.chunk.stem] = parts.get(response.chunk.stem, 0) + len(response.chunk.samples)
        assert song.nbytes in parts.values()
        return
    parts_bytes, _ = await stage.render(stage.requests(song))
    if stage.name != "master":
        assert {len(part) for part in parts_bytes.values()} == {song.nbytes}
    await stage.assert_idle()


async def test_plans_can_be_made_edited_and_rendered(tmp_path: Path) -> None:
    """PlanMaster's answer, sent back as the plan of Master, is what is rendered; an edit is heard."""
    settings = Settings(spool=SpoolSettings(directory=tmp_path))
    main = importlib.import_module("services.master.__main__")
    async with in_process(main.build(settings), settings) as server, aio_channel(server.address) as channel:
        stage = Stage("master", channel, tmp_path)
        song = _song(2.0)
        _, first = await stage.render(stage.requests(song))
        request = master_service_pb2.PlanMasterRequest(analysis=first.before, settings=stage.config(song, "").settings)
        with outboard_errors():
            plan = (await stage.stub.PlanMaster(request)).plan
        assert plan == first.plan
        plan.target_lufs = -20.0
        requests = stage.requests(song)
        requests[0].config.plan.CopyFrom(plan)
        _, second = await stage.render(requests)
        assert second.plan.target_lufs == -20.0
        assert abs(second.after.integrated_lufs + 20.0) < 0.2, f"{second.after.integrated_lufs:.2f} LUFS"


async def test_supplied_stems_of_other_rates_and_lengths_are_brought_together(tmp_path: Path) -> None:
    """A 24 kHz mono stem of half the length beside a 48 kHz stereo one: the mix has the longer one's length."""
    settings = Settings(spool=SpoolSettings(directory=tmp_path))
    main = importlib.import_module("services.mixer.__main__")
    async with in_process(main.build(settings), settings) as server, aio_channel(server.address) as channel:
        stage = Stage("mixer", channel, tmp_path)
        long, short = _song(2.0), np.full((1, 24_000), 0.1, np.float32)
        config = mixer_service_pb2.MixConfig(
            format=audio_pb2.AudioFormat(sample_rate_hertz=RATE, channels=2),
            settings=mixer_service_pb2.MixSettings(engine="passthrough"),
            stems=[
                mixer_service_pb2.MixStem(name="long"),
                mixer_service_pb2.MixStem(
                    name="short", format=audio_pb2.AudioFormat(sample_rate_hertz=24_000, channels=1)
                ),
            ],
        )
        chunks = [*chunk_messages(long, 0, "long"), *chunk_messages(short, 0, "short")]
        requests = [
            mixer_service_pb2.MixRequest(config=config),
            *(mixer_service_pb2.MixRequest(chunk=chunk) for chunk in chunks),
        ]
        parts, report = await stage.render(requests)
        mix = np.frombuffer(parts[""], "<f4").reshape(-1, 2).T
        assert report.frames == mix.shape[1] == long.shape[1]
        np.testing.assert_allclose(mix[:, 20_000:40_000], long[:, 20_000:40_000] + np.float32(0.1), atol=2e-3)
        np.testing.assert_array_equal(mix[:, 60_000:], long[:, 60_000:])


_DOMAIN = [
    (separator_engines.SeparationSettings, separator_service_pb2.SeparationSettings, True),
    (separator_engines.SongFacts, analysis_pb2.SongFacts, True),
    (separator_engines.SeparationReport, separator_service_pb2.SeparationReport, False),
    (restorer_settings.RestorationSettings, restorer_service_pb2.RestorationSettings, True),
    (restorer_settings.RestorationReport, restorer_service_pb2.RestorationReport, False),
    (console.MixSettings, mixer_service_pb2.MixSettings, True),
    (console.MixPlan, mixer_service_pb2.MixPlan, True),
    (console.MixReport, mixer_service_pb2.MixReport, False),
    (master_settings.MasterSettings, master_service_pb2.MasterSettings, True),
    (master_settings.MasteringReport, master_service_pb2.MasteringReport, False),
]


@pytest.mark.parametrize(("kind", "message", "asked_for"), _DOMAIN, ids=lambda value: getattr(value, "__name__", ""))
def test_domain_dataclasses_map_to_their_messages(kind: type, message: Any, asked_for: bool) -> None:
    """Every field of a domain has a place on the wire; every setting and plan number on the wire reaches the domain.

    Reports may leave figures of the contract unset that a domain does not measure.
    """
    differences = unmatched_fields(kind, message.DESCRIPTOR)
    if not asked_for:
        differences = [text for text in differences if not text.startswith("outboard.v1.")]
    assert differences == []


def test_a_processor_that_the_master_lacks_is_refused() -> None:
    """The master's chain knows fewer processors than the contract: a plan with another one is refused, not thinned."""
    chorus = processor_pb2.Processor(label="wobble", chorus=processor_pb2.Chorus())
    plan = master_service_pb2.MasterPlan(intent="MASTER_INTENT_LOUD", engine="chain", chain=[chorus])
    with pytest.raises(InvalidInput, match="chorus is not supported here"):
        from_message(plan, master_settings.MasterPlan, "config.plan.")
