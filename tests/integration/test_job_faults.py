"""Jobs on stages and stores that fail: what is tried again, what ends the job, what is never kept for another."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import soundfile

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode
from outboard.audio.resample import resample
from outboard.client import failure
from outboard.errors import (
    Internal,
    InvalidInput,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import master_service_pb2
from services.orchestrator.results import prefix_of
from tests.integration.orchestrator_bench import Bench, artifact_of, noise_file

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job


async def test_unreadable_input_fails_the_job(mesh: Bench) -> None:
    """A text file named like a song fails its job with AUDIO_UNREADABLE and the field; no stage is called."""
    upload = await mesh.client.upload(b"this is no audio " * 100)
    job = await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    job = await mesh.client.wait(job.name)
    error = failure(job)
    assert job.state == Job.STATE_FAILED
    assert isinstance(error, InvalidInput)
    assert error.reason == "AUDIO_UNREADABLE"
    assert error.violations[0].field == "job.song.upload"
    assert not mesh.behaviour.calls


async def test_a_reference_that_is_the_song_in_another_file_fails_the_job(mesh: Bench, tmp_path: Path) -> None:
    """The song coded, resampled and at another level is still no reference of it: the job ends with
    REFERENCE_UNSUITABLE and the reference's place before anything is separated; another song is followed."""
    song, other = synthesise(71, 8.0).song, synthesise(72, 8.0).song
    files = {"song.wav": (song, 48_000), "copy.flac": (0.5 * resample(song, 48_000, 44_100), 44_100)}
    uploads = {}
    for name, (audio, rate) in (files | {"other.wav": (other, 48_000)}).items():
        encode(tmp_path / name, [audio], rate, FileSpec(name.rpartition(".")[2], "16"))
        uploads[name] = (await mesh.client.upload(tmp_path / name)).name
    mastering = master_service_pb2.MasterSettings(engine="toy", intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    wanted = Job(song=messages.SongInput(upload=uploads["song.wav"]), mastering=mastering)
    wanted.references.extend([uploads["other.wav"], uploads["copy.flac"]])
    job = await mesh.client.wait((await mesh.client.create_job(wanted)).name)
    error = failure(job)
    assert error is not None
    assert error.reason == "REFERENCE_UNSUITABLE"
    assert [violation.field for violation in error.violations] == ["job.references[1]"]
    assert not mesh.behaviour.calls
    del wanted.references[1]
    job = await mesh.client.wait((await mesh.client.create_job(wanted)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)


async def test_references_that_nothing_can_follow_fail_the_job_before_any_stage(
    mesh: Bench, tmp_path: Path, test_data: Path
) -> None:
    """References that are silent, shorter than 5 s or speech end the job with REFERENCE_UNSUITABLE, each with its place
    and what it is, before any stage is called; so does one of ten channels, with its own reason; songs and stems alike.
    """
    song = synthesise(73, 8.0).song
    silence = np.zeros((2, 6 * 48_000), np.float32)
    uploads = {}
    made = {"song": song, "silent": silence, "short": song[:, : 5 * 48_000 - 1], "click": song[:, :480]}
    for name, audio in (made | {"wide": np.repeat(song, 5, axis=0)}).items():
        soundfile.write(tmp_path / f"{name}.wav", audio.T, 48_000, subtype="FLOAT")
        uploads[name] = (await mesh.client.upload(tmp_path / f"{name}.wav")).name
    uploads["speech"] = (await mesh.client.upload(test_data / "speech" / "dfn_clean_freesound_33711.wav")).name
    mastering = master_service_pb2.MasterSettings(engine="toy", intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    of_a_song = Job(song=messages.SongInput(upload=uploads["song"]), mastering=mastering)
    of_stems = Job(mastering=mastering)
    of_stems.stems.stems.add(name="bass", upload=uploads["song"])
    other = (await mesh.client.upload(noise_file(74, 6.0))).name
    for wanted in (of_a_song, of_stems):
        wanted.references.extend([other, *(uploads[name] for name in ("silent", "short", "speech", "click"))])
        error = failure(await mesh.client.wait((await mesh.client.create_job(wanted)).name))
        assert error is not None
        assert error.reason == "REFERENCE_UNSUITABLE"
        assert [(violation.field, violation.description) for violation in error.violations] == [
            ("job.references[1]", "the reference is silent"),
            ("job.references[2]", "the reference is shorter than 5 s"),
            ("job.references[3]", "the reference is speech, not a song"),
            ("job.references[4]", "the reference is shorter than 5 s"),
        ]
        wanted.references[:] = [uploads["wide"]]
        error = failure(await mesh.client.wait((await mesh.client.create_job(wanted)).name))
        assert error is not None
        assert error.reason == "AUDIO_TOO_MANY_CHANNELS"
        assert error.violations[0].field == "job.references[0]"
    assert not mesh.behaviour.calls


async def test_stage_that_is_gone_for_a_moment(mesh: Bench) -> None:
    """UNAVAILABLE of a stage is tried again with the whole stream, and the job succeeds."""
    mesh.behaviour.errors["separate"] = [Unavailable("restarting")]
    job = await mesh.client.wait((await mesh.job(20)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.calls["separate"] == 2


@pytest.mark.parametrize("stage", ["separate", "mix", "master"])
async def test_stage_that_fails_ends_the_job(mesh: Bench, stage: str) -> None:
    """An error of separator, mixer or master ends the job with that error's code and reason."""
    mesh.behaviour.errors[stage] = [Internal("broken", reason="MODEL_INVALID")]
    job = await mesh.client.wait((await mesh.job(21 + len(stage))).name)
    error = failure(job)
    assert job.state == Job.STATE_FAILED
    assert error is not None
    assert (error.reason, error.message) == ("MODEL_INVALID", "broken")
    assert "stage_call" not in error.metadata


async def test_restorer_that_fails_costs_the_restoration_only(mesh: Bench) -> None:
    """A stem whose restoration fails passes as it was, with a warning in the report; the job succeeds."""
    mesh.behaviour.errors["restore"] = [Internal("broken")]
    job = await mesh.client.wait((await mesh.job(30)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    warnings = [warning for warning in job.report.warnings if warning.code == "RESTORATION_FAILED"]
    assert len(warnings) == 1
    assert warnings[0].stem
    assert len(job.report.restorations) == 3
    assert len([artifact for artifact in job.artifacts if "/stems/" in artifact.name]) == 4


async def test_the_restorer_has_time_for_its_slowest_engine(mesh: Bench) -> None:
    """The deadline that reaches the restorer leaves it to tell for itself what hangs: more than a day, of which no
    server on the way takes anything."""
    await mesh.client.wait((await mesh.job(34)).name)
    assert mesh.behaviour.restorer_seconds > 24 * 3600, f"{mesh.behaviour.restorer_seconds:.0f} s"


async def test_a_stem_that_an_engine_failed_on_is_tried_again_by_the_next_job(mesh: Bench) -> None:
    """What an engine did not make serves nobody who asks for the engine: the job that met the fault has the stems and
    the warnings, the next one restores anew and has none, and after that nothing is computed again."""
    mesh.behaviour.failing_engines = ["toy"]
    failed = await mesh.client.wait((await mesh.job(33)).name)
    assert failed.state == Job.STATE_SUCCEEDED, failure(failed)
    assert {warning.code for warning in failed.report.warnings} == {"RESTORATION_FAILED"}
    assert all(list(report.failed_engines) == ["toy"] for report in failed.report.restorations.values())
    mesh.behaviour.failing_engines = []
    mesh.behaviour.calls.clear()
    mended = await mesh.client.wait((await mesh.job(33)).name)
    assert mesh.behaviour.calls["restore"] == 4, "the stems without the engine served a request for it"
    assert not mended.report.warnings
    assert all(not report.failed_engines for report in mended.report.restorations.values())
    mesh.behaviour.calls.clear()
    await mesh.client.wait((await mesh.job(33)).name)
    assert not mesh.behaviour.calls


async def test_full_store_ends_the_job(mesh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full store ends the job with STORAGE_FULL when making room does not help, and leaves nothing partial."""
    upload = await mesh.upload(31)
    real = FolderStore.writer

    def full(store: FolderStore, key: str) -> object:
        if "/results/" in key:
            raise ResourceExhausted("the store is full", reason="STORAGE_FULL")
        return real(store, key)

    monkeypatch.setattr(FolderStore, "writer", full)
    job = await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    job = await mesh.client.wait(job.name)
    error = failure(job)
    assert job.state == Job.STATE_FAILED
    assert error is not None
    assert error.reason == "STORAGE_FULL"
    assert not list((mesh.folder / "partial").iterdir())


@pytest.mark.parametrize(("failures", "state"), [(2, Job.STATE_SUCCEEDED), (1000, Job.STATE_FAILED)])
async def test_store_that_does_not_answer(
    mesh: Bench, monkeypatch: pytest.MonkeyPatch, failures: int, state: int
) -> None:
    """A store that is away for a moment costs a retry, one that stays away ends it with STORAGE_UNAVAILABLE: either
    way nothing partial is left, and the next job is served."""
    upload = await mesh.upload(41 + failures)
    real, asked = FolderStore.writer, []

    def away(store: FolderStore, key: str) -> object:
        if "/results/" in key:
            asked.append(key)
            if len(asked) <= failures:
                raise Unavailable("the store does not answer (EIO)", reason="STORAGE_UNAVAILABLE")
        return real(store, key)

    with monkeypatch.context() as patch:
        patch.setattr("services.orchestrator.job_context.RETRY_DELAYS_SECONDS", (0.01, 0.01, 0.01))
        patch.setattr(FolderStore, "writer", away)
        job = await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
        job = await mesh.client.wait(job.name)
    error = failure(job)
    assert job.state == state, error
    if state == Job.STATE_FAILED:
        assert isinstance(error, Unavailable)
        assert error.reason == "STORAGE_UNAVAILABLE"
        assert len(asked) == 4, "the step was not tried again"
    assert not list((mesh.folder / "partial").iterdir())
    job = await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    assert (await mesh.client.wait(job.name)).state == Job.STATE_SUCCEEDED


async def test_expired_artifact_says_so(mesh: Bench) -> None:
    """An artifact that was evicted is NOT_FOUND with ARTIFACT_EXPIRED; the same job again computes it anew."""
    job = await mesh.client.wait((await mesh.job(36)).name)
    FolderStore(mesh.folder).evict(max_bytes=0)
    with pytest.raises(NotFound) as caught:
        await mesh.client.read(artifact_of(job, "mix.wav"))
    assert caught.value.reason == "ARTIFACT_EXPIRED"
    again = await mesh.client.wait((await mesh.job(36)).name)
    assert await mesh.client.read(artifact_of(again, "mix.wav")) == noise_file(36, 1.0)


async def test_housekeeping_keeps_what_running_jobs_use(mesh: Bench) -> None:
    """Making room removes finished jobs' results, and nothing that a running job refers to."""
    ended = await mesh.client.wait((await mesh.job(43)).name)
    mesh.behaviour.seconds_per_chunk["master"] = 0.4
    job = await mesh.job(37)
    while (await mesh.client.get_job(job.name)).state != Job.STATE_MASTERING:
        await asyncio.sleep(0.05)
    before = {info.key for info in FolderStore(mesh.folder).list("")}
    for _ in range(20):
        mesh.parts.housekeeper.make_room()
    removed = before - {info.key for info in FolderStore(mesh.folder).list("")}
    assert removed
    used = mesh.parts.housekeeper._database.uses_of([job.name.removeprefix("jobs/")])
    assert len(used) > 5
    assert not {key for key in removed if prefix_of(key) in used}
    with pytest.raises(NotFound):
        await mesh.client.read(artifact_of(ended, "master.wav"))
    ended = await mesh.client.wait(job.name)
    assert ended.state == Job.STATE_SUCCEEDED, failure(ended)
