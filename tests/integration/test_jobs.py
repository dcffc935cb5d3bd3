"""The course of jobs: stages, shared results, watching, listing, deleting; on toy stages, all else is real."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path

import pytest

from outboard.client import failure
from outboard.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
)
from outboard.storage import FolderStore
from outboard.v1 import audio_pb2
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import Bench, artifact_of, noise_file

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job


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
    assert await mesh.client.read(artifact_of(job, "mix.wav")) == noise_file(1, 1.0)


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
    assert artifact_of(first, "master.wav").sha256 == artifact_of(second, "master.wav").sha256
    reports = [json.loads(await mesh.client.read(artifact_of(job, "report.json"))) for job in (first, second)]
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
    assert artifact_of(job, "mix.wav").size_bytes == 92 + 8 * round(1.05 * 48000)


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
    assert await mesh.client.read(artifact_of(jobs[1], "mix.wav")) == noise_file(34, 1.0)
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
