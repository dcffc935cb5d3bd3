"""The four real stage services over a real socket: each returns what its domain computes, however the stream is cut."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from outboard.errors import DeadlineExceeded, InvalidInput, OutboardError
from outboard.rpc.channel import aio_channel, outboard_errors
from outboard.rpc.convert import from_message, unmatched_fields
from outboard.rpc.streaming import chunk_messages
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    master_service_pb2,
    mixer_service_pb2,
    processor_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)
from services.master import settings as master_settings
from services.master.chain_rules import processor_violations
from services.mixer import console
from services.restorer import settings as restorer_settings
from services.separator import engines as separator_engines
from tests.integration.stage_bench import RATE, STAGES, Audio, Stage, make_song, serving, warm_up


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    """Each stage in this process."""
    async with serving(request.param, tmp_path) as stage:
        yield stage


async def test_bytes_do_not_depend_on_how_the_stream_is_cut(stage: Stage) -> None:
    """The default engine on chunks of 1,000 frames and of 1 MiB: identical bytes, and reports but for the run."""
    song = make_song()
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
    song = make_song(1.0)
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
    """Every engine has a version and a sentence, is available or says why not, and passthrough is always there."""
    engines = (await stage.stub.ListEngines(stage.engines_request())).engines
    available = [engine.name for engine in engines if engine.available]
    assert available[0] != "passthrough", "an engine that needs nothing is always there"
    assert "passthrough" in [engine.name for engine in engines]
    for engine in engines:
        assert engine.version >= 1
        assert engine.description, engine.name
        assert engine.available or engine.unavailable_reason


async def test_an_unknown_engine_is_refused_and_leaves_nothing(stage: Stage) -> None:
    """ENGINE_UNKNOWN with INVALID_ARGUMENT from every stage, naming the field; nothing is left."""
    with pytest.raises(InvalidInput) as caught:
        await stage.render(stage.requests(make_song(0.2), "../etc/passwd"))
    assert caught.value.reason == "ENGINE_UNKNOWN"
    assert "engine" in caught.value.violations[0].field
    await stage.assert_idle()


async def test_settings_are_refused_before_the_audio_is_sent(stage: Stage) -> None:
    """A config that cannot be met is answered at once, while the client has sent nothing else and goes on writing."""
    call = stage.method(timeout=10)
    await call.write(stage.requests(make_song(0.2), "nobody")[0])
    with pytest.raises(InvalidInput), outboard_errors():
        await call.read()
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
        await stage.render(spoil(stage, stage.requests(make_song(0.5))))
    assert caught.value.reason == reason
    await stage.assert_idle()


async def test_a_cancelled_render_is_idle_within_2_s(stage: Stage) -> None:
    """Cancelled in the middle of the work, wherever that is."""
    warm_up(stage.name)
    call = stage.method(timeout=60)

    async def write() -> None:
        with contextlib.suppress(asyncio.InvalidStateError, asyncio.CancelledError, OutboardError):
            for request in stage.requests(make_song(20.0)):
                await call.write(request)
            await call.done_writing()

    writing = asyncio.create_task(write())
    await asyncio.sleep(1.0)
    call.cancel()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await stage.assert_idle()


async def test_a_deadline_that_passes_stops_the_work(stage: Stage) -> None:
    """DEADLINE_EXCEEDED soon after the deadline, in the middle of 40 s of audio; idle within 2 s."""
    warm_up(stage.name)
    with pytest.raises(DeadlineExceeded):
        await stage.render(stage.requests(make_song(40.0), piece=131_072), timeout_seconds=0.15)
    await stage.assert_idle()


@pytest.mark.parametrize("moment", ["sending", "waiting"])
async def test_a_client_that_vanishes_leaves_nothing_behind(stage: Stage, moment: str) -> None:
    """Its connection closes while it sends, or while the stage computes: idle within 2 s."""
    warm_up(stage.name)
    requests = stage.requests(make_song(10.0), piece=131_072)
    async with aio_channel(stage.address) as channel:
        call = Stage(stage.name, channel, stage.folder, stage.address).method(timeout=60)
        # A streaming stage answers at once and takes no more before it is read.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                for request in requests if moment == "waiting" else requests[:-1]:
                    await call.write(request)
                if moment == "waiting":
                    await call.done_writing()
    await stage.assert_idle()


_ODDITIES = {
    "mono": make_song(1.0)[:1],
    "3 samples": make_song(1.0)[:, :3],
    "silence": np.zeros((2, RATE), np.float32),
    "DC": np.full((2, RATE), 0.25, np.float32),
}


@pytest.mark.parametrize("form", _ODDITIES)
async def test_ordinary_oddities_have_a_defined_result(stage: Stage, form: str) -> None:
    """Mono, 3 samples, silence and DC go through every stage at their length, and come out as they should."""
    song = _ODDITIES[form]
    parts, report = await stage.render(stage.requests(song))
    await stage.assert_idle()
    if stage.name == "master":
        _check_mastered(form, song, parts, report)
        return
    channels = 2 if stage.name == "mixer" else song.shape[0]
    arrays = {name: np.frombuffer(part, "<f4").reshape(-1, channels).T for name, part in parts.items()}
    assert {array.shape[1] for array in arrays.values()} == {song.shape[1]}
    assert all(np.all(np.isfinite(array)) for array in arrays.values())
    if stage.name == "separator":
        np.testing.assert_allclose(sum(arrays.values()), song, atol=10 ** (-90 / 20))
    elif stage.name == "restorer":
        _check_restored(form, song, arrays[""], report)
    else:
        _check_mixed(form, arrays[""], report)


def _check_restored(form: str, song: Audio, stem: Audio, report: Any) -> None:
    """An offset goes; what has no fault comes back bit by bit."""
    if form == "DC":
        assert np.abs(stem).max() < 1e-3, f"{np.abs(stem).max():.4f} of 0.25 is left"
        return
    np.testing.assert_array_equal(stem, song)
    assert report.unchanged


def _check_mixed(form: str, mix: Audio, report: Any) -> None:
    """Silence stays silent, mono lies in the middle, and nothing passes the peak target of -6 dBFS."""
    if form == "silence":
        assert not mix.any()
        assert not report.HasField("sample_peak_dbfs")
        return
    assert mix.any()
    assert np.abs(mix).max() <= 10 ** (-6 / 20) + 1e-4, f"{20 * np.log10(np.abs(mix).max()):.2f} dBFS"
    if form in ("mono", "DC"):
        np.testing.assert_array_equal(mix[0], mix[1])


def _check_mastered(form: str, song: Audio, files: dict[str, bytes], report: Any) -> None:
    """Every file has the song's length and keeps the ceiling of -1 dBTP; a loudness only where there is one."""
    for name in ("a.wav", "master.flac"):
        samples, rate = soundfile.read(io.BytesIO(files[name]), always_2d=True)
        assert (samples.shape, rate) == ((song.shape[1], song.shape[0]), RATE), name
        peak = np.abs(samples).max()
        assert peak <= 10 ** (-0.95 / 20), f"{name} peaks at {20 * np.log10(peak):.2f} dBFS"
        assert (peak <= 2.0**-22) == (form == "silence"), f"{name} peaks at {peak}: only dither is in silence"
        if form == "DC":
            assert abs(samples[RATE // 4 : -RATE // 4].mean()) < 0.01, "an offset is no sound"
    codes = {"mono": [], "3 samples": ["NO_LOUDNESS_TARGET"], "silence": ["NO_LOUDNESS_TARGET"]}
    assert [warning.code for warning in report.warnings] == codes.get(form, ["LOUDNESS_TARGET_MISSED"])
    assert report.target_reached == (form == "mono")


async def test_plans_can_be_made_edited_and_rendered(tmp_path: Path) -> None:
    """PlanMaster's answer, sent back as the plan of Master, is what is rendered; an edit is heard."""
    async with serving("master", tmp_path) as stage:
        song = make_song(2.0)
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
    async with serving("mixer", tmp_path) as stage:
        long, short = make_song(2.0), np.full((1, 24_000), 0.1, np.float32)
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
    """Plugins are the console's: a master's plan with one is refused, not thinned."""
    plugin = processor_pb2.Processor(label="glue", plugin=processor_pb2.Plugin(name="ZamCompX2"))
    plan = master_service_pb2.MasterPlan(intent="MASTER_INTENT_LOUD", engine="chain", chain=[plugin])
    chain = from_message(plan, master_settings.MasterPlan, "config.plan.").chain
    (violation,) = processor_violations(chain, 4.0, 1.4, RATE)
    assert violation.field == "chain[0].plugin"
    assert "plugins run on the console" in violation.description
