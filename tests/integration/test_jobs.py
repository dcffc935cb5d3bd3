"""JobService: uploads, jobs, artifacts, tenants; on toy stages, with the real orchestrator, store and workflow."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from outboard.client import failure
from outboard.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidInput,
    NotFound,
    OutboardError,
    ResourceExhausted,
    Unavailable,
)
from outboard.rpc.channel import outboard_errors
from outboard.storage import FolderStore
from outboard.v1 import audio_pb2, master_service_pb2, separator_service_pb2
from outboard.v1 import job_service_pb2 as messages
from services.orchestrator.results import prefix_of
from tests.integration.orchestrator_bench import Bench, bench, noise_file

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
HOSTILE = ["../x", "jobs/../x", "uploads/../../etc/passwd", "/etc/passwd", "jobs/\0", "", "jobs/a/b", "..", "jobs/.."]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    async with bench(tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture(autouse=True)
def calm(mesh: Bench) -> None:
    """No slowness and no errors left over from another test."""
    mesh.behaviour.seconds_per_chunk.clear()
    mesh.behaviour.errors.clear()
    mesh.behaviour.calls.clear()


def _artifact(job: Job, name: str) -> messages.Artifact:
    return next(artifact for artifact in job.artifacts if artifact.name.endswith(f"/artifacts/{name}"))


async def test_song_goes_through_all_stages(mesh: Bench, tmp_path: Path) -> None:
    """A whole job: every stage is called, every artifact has its size and digest, the report holds all parts."""
    job = await mesh.client.wait((await mesh.job(1)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.calls == {"separate": 1, "restore": 4, "mix": 1, "master": 1}
    names = [artifact.name.partition("/artifacts/")[2] for artifact in job.artifacts]
    stems = [f"stems/{name}.wav" for name in ("bass", "drums", "other", "vocals")]
    assert names == ["master.wav", "mix.wav", "preview_ab.mp3", "report.html", "report.json", *stems]
    assert [entry.fraction for entry in job.progress] == [1.0, 1.0, 1.0, 1.0]
    paths = await mesh.client.download_all(job, tmp_path)
    for path, artifact in zip(paths, job.artifacts, strict=True):
        data = path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact.size_bytes, artifact.sha256)
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"before", "after", "separation", "restorations", "mix", "mastering", "run"} <= set(report)
    assert job.report.before.frames == 48000


async def test_mix_of_toy_stems_is_the_song(mesh: Bench, tmp_path: Path) -> None:
    """What the orchestrator moves between store and stages arrives bit by bit: quarters of the song sum to the song."""
    job = await mesh.client.wait((await mesh.job(1)).name)
    assert await mesh.client.read(_artifact(job, "mix.wav")) == noise_file(1, 1.0)


async def test_song_that_reaches_the_master_unchanged_is_not_measured_again(mesh: Bench) -> None:
    """The master is told the song's analysis where the mix is the song, bit by bit, and only there."""
    for stages in ([4], [3, 4], []):
        await mesh.client.wait((await mesh.job(200 + len(stages), stages=stages)).name)
        assert mesh.behaviour.master_config is not None
        assert mesh.behaviour.master_config.HasField("analysis")
    stems = messages.StemsInput()
    for index in range(2):
        stems.stems.add(name=f"stem {index}", upload=(await mesh.upload(210 + index)).name)
    await mesh.client.wait((await mesh.client.create_job(Job(stems=stems))).name)
    assert not mesh.behaviour.master_config.HasField("analysis")


async def test_known_results_are_not_computed_again(mesh: Bench) -> None:
    """A second job on the same bytes and settings calls no stage, says so, and has equal artifacts and report."""
    first = await mesh.client.wait((await mesh.job(2)).name)
    mesh.behaviour.calls.clear()
    began = time.monotonic()
    second = await mesh.client.wait((await mesh.job(2)).name)
    seconds = time.monotonic() - began
    assert not mesh.behaviour.calls
    assert [entry.reused for entry in second.progress] == [True] * 4
    assert _artifact(first, "master.wav").sha256 == _artifact(second, "master.wav").sha256
    reports = [json.loads(await mesh.client.read(_artifact(job, "report.json"))) for job in (first, second)]
    for report in reports:
        report.pop("run")
    assert reports[0] == reports[1]
    assert seconds < 3.0, f"a known song took {seconds:.2f} s"


async def test_two_equal_jobs_at_once_compute_once(mesh: Bench) -> None:
    """Two jobs on the same song at the same time share every result."""
    mesh.behaviour.seconds_per_chunk["separate"] = 0.1
    jobs = [await mesh.job(3), await mesh.job(3)]
    ended = await asyncio.gather(*(mesh.client.wait(job.name) for job in jobs))
    assert [job.state for job in ended] == [Job.STATE_SUCCEEDED] * 2
    assert mesh.behaviour.calls == {"separate": 1, "restore": 4, "mix": 1, "master": 1}


async def test_request_id_makes_creation_idempotent(mesh: Bench) -> None:
    """The same request id returns the same job (its bytes may have been sent again), another job under it is refused,
    another tenant's id is its own."""
    upload = await mesh.upload(4)
    wanted = Job(song=messages.SongInput(upload=upload.name))
    first, again = [await mesh.client.create_job(wanted, request_id="one") for _ in range(2)]
    assert first.name == again.name
    sent_again = Job(song=messages.SongInput(upload=(await mesh.upload(4)).name))
    assert (await mesh.client.create_job(sent_again, request_id="one")).name == first.name
    wanted.display_name = "another"
    with pytest.raises(AlreadyExists) as caught:
        await mesh.client.create_job(wanted, request_id="one")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    theirs = await mesh.stranger.upload(noise_file(4, 1.0))
    other = await mesh.stranger.create_job(Job(song=messages.SongInput(upload=theirs.name)), request_id="one")
    assert other.name != first.name
    await mesh.client.wait(first.name)
    await mesh.stranger.wait(other.name)


async def test_tenants_do_not_see_each_other(mesh: Bench) -> None:
    """Every call with another tenant's job, artifact or upload answers NOT_FOUND, exactly like an id that never was."""
    job = await mesh.client.wait((await mesh.job(5)).name)
    upload = await mesh.upload(5)
    name = job.artifacts[0].name
    calls = [
        lambda: mesh.stranger.get_job(job.name),
        lambda: mesh.stranger.cancel_job(job.name),
        lambda: mesh.stranger.delete_job(job.name),
        lambda: mesh.stranger.wait(job.name),
        lambda: mesh.stranger.read(messages.Artifact(name=name)),
        lambda: mesh.stranger.get_upload(upload.name),
        lambda: mesh.stranger.create_job(Job(song=messages.SongInput(upload=upload.name))),
        lambda: mesh.client.get_job("jobs/00000000000000000000000000000000"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            await call()
    assert [entry.name async for entry in mesh.stranger.list_jobs() if entry.name == job.name] == []


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_refused(mesh: Bench, name: str) -> None:
    """`../`, absolute paths, NUL and the like in any name, of requests, references and tags too, are INVALID_ARGUMENT,
    and reach no file."""
    song = messages.SongInput(upload=(await mesh.upload(6)).name)
    calls = [
        lambda: mesh.client.get_job(name),
        lambda: mesh.client.cancel_job(name),
        lambda: mesh.client.delete_job(name),
        lambda: mesh.client.wait(name),
        lambda: mesh.client.get_upload(name),
        lambda: mesh.client.read(messages.Artifact(name=f"jobs/a/artifacts/{name}/../../x")),
        lambda: mesh.client.create_job(Job(song=messages.SongInput(upload=name or "."))),
        lambda: mesh.client.create_job(Job(song=song, references=[name], mastering=FOLLOWING)),
        lambda: mesh.client.create_job(Job(song=song, tags={name: "x"})),
    ]
    if name:  # none at all is allowed
        calls.append(lambda: mesh.client.create_job(Job(song=song), request_id=name))
    before = {path for path in mesh.folder.rglob("*") if path.is_file()}
    for call in calls:
        with pytest.raises(InvalidInput) as caught:
            await call()
        assert str(mesh.folder) not in caught.value.message
    assert {path for path in mesh.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\0", "", ".hidden", "a\\b", " a", "x" * 101, "..", "a\nb"])
async def test_hostile_stem_and_deliverable_names(mesh: Bench, name: str) -> None:
    """A stem's or a deliverable's name that could leave its folder is refused, and the violation names the field."""
    upload = await mesh.upload(6)
    stems = messages.StemsInput(stems=[messages.StemInput(name=name, upload=upload.name)])
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(Job(stems=stems))
    assert caught.value.violations[0].field == "job.stems.stems[0].name"
    mastering = master_service_pb2.MasterSettings(deliverables=[master_service_pb2.DeliverableSpec(name=name)])
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name), mastering=mastering))
    assert caught.value.violations[0].field == "job.mastering.deliverables[0].name"


@pytest.mark.parametrize(
    ("stages", "calls", "expected"),
    [
        ([1], {"separate": 1}, {"stems/vocals.wav", "stems/drums.wav", "stems/bass.wav", "stems/other.wav"}),
        ([4], {"master": 1}, {"master.wav", "preview_ab.mp3", "report.html"}),
        ([3, 4], {"mix": 1, "master": 1}, {"mix.wav", "master.wav", "preview_ab.mp3", "report.html"}),
        ([3], {"mix": 1}, {"mix.wav"}),
    ],
)
async def test_any_run_of_the_pipeline(
    mesh: Bench, stages: list[int], calls: dict[str, int], expected: set[str]
) -> None:
    """A job may ask for any run of stages; it calls just these, and leaves just what they make, beside its report."""
    job = await mesh.client.wait((await mesh.job(10 + sum(stages), stages=stages)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.calls == calls
    assert {artifact.name.partition("/artifacts/")[2] for artifact in job.artifacts} == expected | {"report.json"}


async def test_supplied_stems_of_different_length(mesh: Bench) -> None:
    """Twelve supplied stems with roles are restored, mixed and mastered; the mix has the longest stem's length."""
    stems = messages.StemsInput()
    for index in range(12):
        upload = await mesh.upload(100 + index, 0.5 + 0.05 * index)
        stems.stems.add(name=f"stem {index}", upload=upload.name, role=audio_pb2.ROLE_DRUMS)
    job = await mesh.client.wait((await mesh.client.create_job(Job(stems=stems))).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.calls == {"restore": 12, "mix": 1, "master": 1}
    assert _artifact(job, "mix.wav").size_bytes == 92 + 8 * round(1.05 * 48000)


@pytest.mark.parametrize(
    "job",
    [
        Job(),
        Job(stems=messages.StemsInput()),
        Job(album=messages.AlbumInput()),
        Job(song=messages.SongInput(upload="uploads/x"), stages=[1, 3]),
        Job(song=messages.SongInput(upload="uploads/x"), stages=[3, 2]),
        Job(song=messages.SongInput(upload="uploads/x"), preset="../../secret.toml"),
        Job(song=messages.SongInput(upload="uploads/x"), priority=1000),
        Job(song=messages.SongInput(upload="uploads/x"), display_name="x" * 201),
        Job(
            stems=messages.StemsInput(
                stems=[
                    messages.StemInput(name="a", upload="uploads/x"),
                    messages.StemInput(name="A", upload="uploads/x"),
                ]
            )
        ),
        Job(
            stems=messages.StemsInput(
                stems=[messages.StemInput(name=f"s{index}", upload="uploads/x") for index in range(13)]
            )
        ),
    ],
)
async def test_jobs_that_cannot_be_done(mesh: Bench, job: Job) -> None:
    """Every wrong job is refused when it is created, with INVALID_ARGUMENT and a violation; nothing is stored."""
    if job.song.upload:
        job.song.upload = (await mesh.upload(7)).name
    before = len([entry async for entry in mesh.client.list_jobs()])
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(job)
    assert caught.value.violations
    assert len([entry async for entry in mesh.client.list_jobs()]) == before


MASTERING = master_service_pb2.MasterSettings(target_lufs=-14.0)
FOLLOWING = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (Job(references=["uploads/x"]), "job.references"),
        (Job(references=["uploads/x"], mastering=MASTERING), "job.references"),
        (Job(references=["uploads/x"], stages=[1]), "job.references"),
        (Job(mastering=MASTERING, stages=[1]), "job.mastering"),
        (Job(mastering=MASTERING, stages=[1, 2, 3]), "job.mastering"),
        (Job(tags={"title": "x"}, stages=[1]), "job.tags"),
        (Job(separation=separator_service_pb2.SeparationSettings(stem_count=2), stages=[4]), "job.separation"),
    ],
)
async def test_options_that_would_be_ignored(mesh: Bench, job: Job, field: str) -> None:
    """Settings of a stage that the job does not go through, and references that no intent follows, are refused with
    OPTIONS_CONFLICT: nothing is accepted and then left out."""
    upload = (await mesh.upload(7)).name
    job.song.upload = upload
    job.references[:] = [upload for _ in job.references]
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(job)
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert [violation.field for violation in caught.value.violations] == [field]


async def test_a_song_is_no_reference_of_its_own(mesh: Bench) -> None:
    """The song sent a second time, as the reference: refused when the job is created, with its field; another
    song is not, and no job is left."""
    other, again = [(await mesh.upload(seed)).name for seed in (46, 45)]
    before = [entry.name async for entry in mesh.client.list_jobs()]
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(45, references=[other, again], mastering=FOLLOWING)
    assert caught.value.reason == "REFERENCE_UNSUITABLE"
    assert [violation.field for violation in caught.value.violations] == ["job.references[1]"]
    assert [entry.name async for entry in mesh.client.list_jobs()] == before


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


async def test_stage_that_cannot_be_asked_refuses_nothing(mesh: Bench) -> None:
    """A master that is away when a job is created, and again when it begins, is no reason to refuse it."""
    mesh.behaviour.errors["plan_master"] = [Unavailable("starting")]
    job = await mesh.client.wait((await mesh.job(18)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)


async def test_stage_that_comes_later_still_refuses_early(mesh: Bench) -> None:
    """A master that was away when the job was created refuses its settings when it begins: no stage is called."""
    mesh.behaviour.errors["plan_master"] = [Unavailable("starting")]
    job = await mesh.job(19)
    mesh.behaviour.errors["plan_master"] = [InvalidInput("too loud", field="settings.target_lufs")]
    job = await mesh.client.wait(job.name)
    error = failure(job)
    assert isinstance(error, InvalidInput), job
    assert error.violations[0].field == "job.mastering.target_lufs"
    assert not mesh.behaviour.calls


async def test_known_request_is_answered_without_the_stages(mesh: Bench) -> None:
    """A request id that has its job is answered with it, whatever the stages say by then."""
    upload = await mesh.upload(17)
    wanted = Job(song=messages.SongInput(upload=upload.name))
    first = await mesh.client.create_job(wanted, request_id="seventeen")
    mesh.behaviour.errors["plan_master"] = [InvalidInput("no more", field="settings.target_lufs")]
    assert (await mesh.client.create_job(wanted, request_id="seventeen")).name == first.name
    mesh.behaviour.errors.clear()
    await mesh.client.wait(first.name)


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


async def test_watch_is_ordered_and_calm(mesh: Bench) -> None:
    """A watch tells at most about twice a second, never goes back, and ends with artifacts and report."""
    mesh.behaviour.seconds_per_chunk.update({"separate": 0.2, "mix": 0.02})
    job = await mesh.job(32, seconds=3.0)
    seen, moments = [], []
    async for now in mesh.client.watch(job.name):
        seen.append(now)
        moments.append(time.monotonic())
    states = [entry.state for entry in seen]
    assert states == sorted(states)
    fractions = [sum(entry.fraction for entry in now.progress) for now in seen]
    assert fractions == sorted(fractions)
    assert len(seen) <= 3 + 2 * (moments[-1] - moments[0]), f"{len(seen)} messages in {moments[-1] - moments[0]:.1f} s"
    assert not any(now.artifacts for now in seen[:-1])
    assert seen[-1].artifacts
    assert seen[-1].HasField("report")


async def test_list_is_paged_filtered_and_newest_first(mesh: Bench) -> None:
    """Pages together hold every job once, the newest first; states filter; tokens that are none are refused."""
    first = await mesh.client.wait((await mesh.job(33)).name)
    second = await mesh.client.wait((await mesh.job(33)).name)
    paged = [job.name async for job in mesh.client.list_jobs(page_size=1)]
    whole = [job.name async for job in mesh.client.list_jobs(page_size=1000)]
    assert paged == whole
    assert len(set(paged)) == len(paged)
    assert paged.index(second.name) < paged.index(first.name)
    assert [job async for job in mesh.client.list_jobs(states=[Job.STATE_MIXING])] == []
    succeeded = [job async for job in mesh.client.list_jobs(states=[Job.STATE_SUCCEEDED])]
    assert first.name in [job.name for job in succeeded]
    assert not any(job.HasField("report") for job in succeeded)


async def test_deletion_removes_what_no_other_job_needs(mesh: Bench) -> None:
    """A deleted job is gone with its artifacts; what another job refers to stays until that one is deleted as well."""
    before = sum(1 for _ in FolderStore(mesh.folder).list("default/results"))
    jobs = [await mesh.client.wait((await mesh.job(34)).name) for _ in range(2)]
    await mesh.client.delete_job(jobs[0].name)
    with pytest.raises(NotFound):
        await mesh.client.get_job(jobs[0].name)
    assert await mesh.client.read(_artifact(jobs[1], "mix.wav")) == noise_file(34, 1.0)
    await mesh.client.delete_job(jobs[1].name)
    assert sum(1 for _ in FolderStore(mesh.folder).list("default/results")) == before


async def test_running_job_cannot_be_deleted(mesh: Bench) -> None:
    """Deleting a job that has not ended is FAILED_PRECONDITION with JOB_STATE."""
    mesh.behaviour.seconds_per_chunk["separate"] = 0.3
    job = await mesh.job(35)
    with pytest.raises(FailedPrecondition) as caught:
        await mesh.client.delete_job(job.name)
    assert caught.value.reason == "JOB_STATE"
    await mesh.client.cancel_job(job.name)


async def test_download_from_an_offset(mesh: Bench) -> None:
    """A download continues at any offset; one outside of the artifact is refused; an unknown artifact is NOT_FOUND."""
    job = await mesh.client.wait((await mesh.job(2)).name)
    artifact = _artifact(job, "mix.wav")
    stub = mesh.client._stub
    request = messages.DownloadArtifactRequest(name=artifact.name, offset=100_000)
    data = b"".join([response.data async for response in stub.DownloadArtifact(request)])
    assert data == noise_file(2, 1.0)[100_000:]
    for offset in (-1, artifact.size_bytes + 1):
        request.offset = offset
        with pytest.raises(InvalidInput) as caught, outboard_errors():
            await anext(aiter(stub.DownloadArtifact(request)))
        assert caught.value.violations[0].field == "offset"
    request.offset = artifact.size_bytes
    assert [response.data async for response in stub.DownloadArtifact(request)] == [b""]
    with pytest.raises(NotFound):
        await mesh.client.read(messages.Artifact(name=f"{job.name}/artifacts/none.wav"))


async def _requests(start: messages.UploadStart, data: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
    yield messages.UploadAudioRequest(start=start)
    for begin in range(0, len(data), 65536):
        yield messages.UploadAudioRequest(data=data[begin : begin + 65536])


async def test_upload_resumes_where_it_broke(mesh: Bench) -> None:
    """An upload that ended early goes on at its size, at no other offset, and is complete with all its bytes only."""
    data = noise_file(40, 1.0)
    half = len(data) // 2
    digest = hashlib.sha256(data).hexdigest()
    start = messages.UploadStart(size_bytes=len(data), sha256=digest)

    async def sent(begin: messages.UploadStart, part: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=begin)
        yield messages.UploadAudioRequest(data=part)

    upload = await mesh.client._upload_stream(sent(start, data[:half]))
    assert (upload.size_bytes, upload.complete) == (half, False)
    start.name = upload.name
    with pytest.raises(InvalidInput) as caught:
        await mesh.client._upload_stream(sent(start, data))
    assert caught.value.reason == "UPLOAD_OFFSET"
    assert caught.value.metadata["offset"] == str(half)
    with pytest.raises(FailedPrecondition):
        await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    start.offset = half
    upload = await mesh.client._upload_stream(sent(start, data[half:]))
    assert upload.complete
    assert upload.sha256 == digest
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_small_upload_is_written_once(mesh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that fits into one part goes straight to its place; a larger one is joined from parts, and is the same."""
    written: list[str] = []
    real = FolderStore.writer

    def noted(store: FolderStore, key: str) -> object:
        written.append(key)
        return real(store, key)

    monkeypatch.setattr(FolderStore, "writer", noted)
    data = noise_file(41, 1.0)
    upload = await mesh.client.upload(data)
    assert written == [f"default/inputs/{upload.sha256}"]
    assert FolderStore(mesh.folder).stat(written[0]) is not None
    large = noise_file(42, 30.0)
    upload = await mesh.client.upload(large)
    assert upload.sha256 == hashlib.sha256(large).hexdigest()
    assert b"".join(FolderStore(mesh.folder).read(f"default/inputs/{upload.sha256}")) == large
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_upload_with_a_wrong_digest(mesh: Bench) -> None:
    """Bytes that do not have the announced digest are refused, and may be sent again from the beginning."""
    start = messages.UploadStart(size_bytes=3, sha256="0" * 64)

    async def sent(data: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=start)
        if data:
            yield messages.UploadAudioRequest(data=data)

    start.name = (await mesh.client._upload_stream(sent(b""))).name
    with pytest.raises(InvalidInput) as caught:
        await mesh.client._upload_stream(sent(b"abd"))
    assert caught.value.violations[0].field == "start.sha256"
    assert (await mesh.client.get_upload(start.name)).size_bytes == 0
    start.sha256 = hashlib.sha256(b"abc").hexdigest()
    upload = await mesh.client._upload_stream(sent(b"abc"))
    assert (upload.complete, upload.sha256) == (True, start.sha256)


async def test_upload_whose_connection_breaks(mesh: Bench) -> None:
    """A call that dies in the middle of the bytes leaves what had arrived; the upload goes on from there, whole."""
    data = noise_file(42, 2.0)
    half = len(data) // 2
    start = messages.UploadStart(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    opened = await mesh.client._upload_stream(_requests(start, b""))
    start.name = opened.name
    sent = asyncio.Event()

    async def half_of_it() -> AsyncIterator[messages.UploadAudioRequest]:
        async for request in _requests(start, data[:half]):
            yield request
        sent.set()
        await asyncio.Event().wait()

    call = mesh.client._stub.UploadAudio(half_of_it())
    await sent.wait()
    await asyncio.sleep(0.2)
    call.cancel()
    async with asyncio.timeout(10):
        while not (arrived := (await mesh.client.get_upload(start.name)).size_bytes):
            await asyncio.sleep(0.02)
    assert arrived == half
    start.offset = arrived
    upload = await mesh.client._upload_stream(_requests(start, data[half:]))
    assert upload.complete
    assert upload.sha256 == start.sha256


async def test_malformed_upload_streams(mesh: Bench) -> None:
    """No start, two starts, too many bytes: each its reason."""
    cases = {
        "STREAM_CONFIG_MISSING": [messages.UploadAudioRequest(data=b"x")],
        "STREAM_CONFIG_REPEATED": [messages.UploadAudioRequest(start=messages.UploadStart())] * 2,
        "STREAM_LENGTH_MISMATCH": [
            messages.UploadAudioRequest(start=messages.UploadStart(size_bytes=1)),
            messages.UploadAudioRequest(data=b"xy"),
        ],
    }
    for reason, requests in cases.items():

        async def sent(
            these: list[messages.UploadAudioRequest] = requests,
        ) -> AsyncIterator[messages.UploadAudioRequest]:
            for request in these:
                yield request

        with pytest.raises(OutboardError) as caught:
            await mesh.client._upload_stream(sent())
        assert caught.value.reason == reason


async def test_upload_over_the_limit(mesh: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An announced size over the limit is refused before a byte is sent, an unannounced one where it passes the limit:
    INVALID_ARGUMENT with field and limit; nothing of it is kept."""
    monkeypatch.setattr("services.orchestrator.uploads.MAXIMUM_UPLOAD_BYTES", 1000)

    async def announced(size: int) -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=messages.UploadStart(size_bytes=size))
        await asyncio.Event().wait()

    async def unannounced() -> AsyncIterator[messages.UploadAudioRequest]:
        yield messages.UploadAudioRequest(start=messages.UploadStart())
        for _ in range(2):
            yield messages.UploadAudioRequest(data=bytes(501))

    cases = {1001: announced(1001), -1: announced(-1), 1002: unannounced()}
    for size, requests in cases.items():
        with pytest.raises(InvalidInput) as caught:
            await mesh.client._upload_stream(requests)
        assert caught.value.violations[0].field == ("data" if size == 1002 else "start.size_bytes")
        assert caught.value.message == f"an upload has 0 to 1000 bytes, not {size}"
    assert not list(FolderStore(mesh.folder).list("default/uploads"))


async def test_folder_store_has_no_urls(mesh: Bench) -> None:
    """Signed URLs are FAILED_PRECONDITION with STORAGE_UNSUPPORTED on a folder."""
    with pytest.raises(FailedPrecondition) as caught, outboard_errors():
        await mesh.client._stub.CreateUploadUrl(messages.CreateUploadUrlRequest(size_bytes=1))
    assert caught.value.reason == "STORAGE_UNSUPPORTED"


async def test_expired_artifact_says_so(mesh: Bench) -> None:
    """An artifact that was evicted is NOT_FOUND with ARTIFACT_EXPIRED; the same job again computes it anew."""
    job = await mesh.client.wait((await mesh.job(36)).name)
    FolderStore(mesh.folder).evict(max_bytes=0)
    with pytest.raises(NotFound) as caught:
        await mesh.client.read(_artifact(job, "mix.wav"))
    assert caught.value.reason == "ARTIFACT_EXPIRED"
    again = await mesh.client.wait((await mesh.job(36)).name)
    assert await mesh.client.read(_artifact(again, "mix.wav")) == noise_file(36, 1.0)


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
        await mesh.client.read(_artifact(ended, "master.wav"))
    ended = await mesh.client.wait(job.name)
    assert ended.state == Job.STATE_SUCCEEDED, failure(ended)
