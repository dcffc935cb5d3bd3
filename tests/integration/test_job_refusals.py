"""Jobs that are refused when they are created, each with its fields and reason; on toy stages."""

from __future__ import annotations

import pytest

from outboard.client import failure
from outboard.errors import (
    InvalidInput,
    Unavailable,
)
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import master_service_pb2, separator_service_pb2
from tests.integration.orchestrator_bench import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
HOSTILE = ["../x", "jobs/../x", "uploads/../../etc/passwd", "/etc/passwd", "jobs/\0", "", "jobs/a/b", "..", "jobs/.."]


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
