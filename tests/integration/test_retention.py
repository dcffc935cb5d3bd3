"""Jobs that ended long ago, and the oldest of too many, go by themselves; nothing of them stays in either database."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from outboard.errors import NotFound
from outboard.settings import StoreSettings
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2 as messages
from services.orchestrator.housekeeping import Housekeeper
from services.orchestrator.threads import in_thread
from tests.integration.orchestrator_bench import Bench, bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
WORKFLOW_TABLES = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(tmp_path: Path) -> AsyncIterator[Bench]:
    """A mesh and a store of its own for each test."""
    async with bench(tmp_path) as made:
        yield made


async def _sweep(mesh: Bench, **settings: float) -> None:
    """One round of housekeeping under other settings than the mesh's."""
    parts, housekeeper = mesh.parts, mesh.parts.housekeeper
    wanted = StoreSettings(directory=mesh.folder, **settings)  # type: ignore[arg-type]
    swept = Housekeeper(housekeeper._store, housekeeper._database, parts.uploads, housekeeper._remover, wanted)
    await in_thread(swept.sweep)


def _age(mesh: Bench, job: Job, days: float) -> None:
    """Lets a job have ended that long ago."""
    moment = time.time() - days * 86400.0
    job_id = job.name.removeprefix("jobs/")
    with closing(sqlite3.connect(mesh.folder / "jobs.sqlite")) as database, database:
        database.execute("UPDATE outboard_jobs SET end_time = ? WHERE id = ?", (moment, job_id))


def _rows(mesh: Bench, job: Job) -> dict[str, int]:
    """Rows of a job in every table of both databases."""
    job_id, found = job.name.removeprefix("jobs/"), {}
    with closing(sqlite3.connect(mesh.folder / "jobs.sqlite")) as database:
        for table, column in (("outboard_jobs", "id"), ("outboard_artifacts", "job"), ("outboard_uses", "job")):
            query = f"SELECT count(*) FROM {table} WHERE {column} = ?"
            found[table] = database.execute(query, (job_id,)).fetchone()[0]
    with closing(sqlite3.connect(mesh.folder / "workflows.sqlite")) as database:
        for table in WORKFLOW_TABLES:
            query = f"SELECT count(*) FROM {table} WHERE workflow_uuid = ?"
            found[table] = database.execute(query, (job_id,)).fetchone()[0]
    return found


async def _gone(mesh: Bench, job: Job) -> bool:
    try:
        await mesh.client.get_job(job.name)
    except NotFound:
        return True
    return False


async def test_old_job_goes_with_everything_of_it(mesh: Bench) -> None:
    """A job past its retention is NOT_FOUND, has no row in any table, and leaves no object of its own; a younger one
    stays."""
    old, young = [await mesh.client.wait((await mesh.job(seed)).name) for seed in (1, 2)]
    rows = _rows(mesh, old)
    assert rows["operation_outputs"] > 5, f"the test looks at the wrong tables: {rows}"
    before = {info.key for info in FolderStore(mesh.folder).list("")}
    _age(mesh, old, days=31.0)
    await _sweep(mesh, job_days=30.0)
    assert await _gone(mesh, old)
    assert not any(_rows(mesh, old).values()), _rows(mesh, old)
    assert not await _gone(mesh, young)
    left = {info.key for info in FolderStore(mesh.folder).list("")}
    assert 0 < len(left) < len(before)
    for artifact in young.artifacts:
        await mesh.client.read(artifact)


def _idle(mesh: Bench, days: float) -> None:
    """Lets every object have been stored and used last that long ago."""
    moment = time.time() - days * 86400.0
    for path in (mesh.folder / "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (moment, moment))


@pytest.mark.parametrize(
    ("stages", "lasting"),
    [
        ([], {"master.wav", "preview_ab.mp3", "report.json", "report.html"}),
        ([1], {"report.json", "stems/bass.wav", "stems/drums.wav", "stems/other.wav", "stems/vocals.wav"}),
        ([3], {"report.json", "mix.wav"}),
    ],
)
async def test_what_a_job_delivers_outlives_the_time_to_live(mesh: Bench, stages: list[int], lasting: set[str]) -> None:
    """Intermediates go by their time-to-live; what the last stage made, preview and report last as long as the job."""
    job = await mesh.client.wait((await mesh.job(9, stages=stages)).name)
    assert job.state == Job.STATE_SUCCEEDED
    _idle(mesh, days=8.0)
    await _sweep(mesh, intermediate_days=7.0)
    readable = set()
    for artifact in job.artifacts:
        with suppress(NotFound):
            await mesh.client.read(artifact)
            readable.add(artifact.name.partition("/artifacts/")[2])
    assert readable == lasting
    keys = {info.key for info in FolderStore(mesh.folder).list("")}
    assert not any("/inputs/" in key for key in keys), keys
    _age(mesh, job, days=31.0)
    await _sweep(mesh)
    assert not list(FolderStore(mesh.folder).list(""))


async def test_deliveries_go_last_when_the_store_is_full(mesh: Bench) -> None:
    """Above the size cap a master goes after all intermediates, however recently those were used, but it goes."""
    job = await mesh.client.wait((await mesh.job(10)).name)
    master = next(artifact for artifact in job.artifacts if artifact.name.endswith("/master.wav"))
    stems = [artifact for artifact in job.artifacts if "/stems/" in artifact.name]
    _idle(mesh, days=1.0)
    for stem in stems:
        await mesh.client.read(stem)
    await _sweep(mesh, maximum_bytes=2 * master.size_bytes)
    await mesh.client.read(master)
    for stem in stems:
        with pytest.raises(NotFound):
            await mesh.client.read(stem)
    await _sweep(mesh, maximum_bytes=1)
    with pytest.raises(NotFound):
        await mesh.client.read(master)


async def test_shared_results_stay(mesh: Bench) -> None:
    """What a younger job uses stays readable when the job that made it goes."""
    old, young = [await mesh.client.wait((await mesh.job(3)).name) for _ in range(2)]
    _age(mesh, old, days=31.0)
    await _sweep(mesh)
    assert await _gone(mesh, old)
    for artifact in young.artifacts:
        await mesh.client.read(artifact)


async def test_oldest_of_too_many_go(mesh: Bench) -> None:
    """Of more ended jobs than the store is to know, the oldest go, whatever their age."""
    jobs = [await mesh.client.wait((await mesh.job(4)).name) for _ in range(4)]
    await _sweep(mesh, maximum_jobs=2)
    assert [await _gone(mesh, job) for job in jobs] == [True, True, False, False]


async def test_running_and_kept_jobs_stay(mesh: Bench) -> None:
    """A job that runs is never pruned, and one that asked to keep its intermediates only when it is deleted."""
    kept = await mesh.client.wait((await mesh.job(5, keep_intermediates=True)).name)
    _age(mesh, kept, days=1000.0)
    mesh.behaviour.seconds_per_chunk["separate"] = 0.3
    running = await mesh.job(6)
    await _sweep(mesh, maximum_jobs=1, job_days=0.00001)
    assert not await _gone(mesh, kept)
    for artifact in kept.artifacts:
        await mesh.client.read(artifact)
    ended = await mesh.client.wait(running.name)
    assert ended.state == Job.STATE_SUCCEEDED


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
async def test_jobs_that_did_not_succeed_go_as_well(mesh: Bench, ending: str) -> None:
    """A cancelled or failed job leaves no row either."""
    if ending == "failed":
        upload = await mesh.client.upload(b"no audio " * 100)
        job = await mesh.client.create_job(Job(song=messages.SongInput(upload=upload.name)))
    else:
        mesh.behaviour.seconds_per_chunk["separate"] = 0.2
        job = await mesh.job(7)
        await mesh.client.cancel_job(job.name)
    job = await mesh.client.wait(job.name)
    assert job.state in (Job.STATE_CANCELLED, Job.STATE_FAILED)
    while mesh.behaviour.running["separate"]:
        time.sleep(0.05)
    _age(mesh, job, days=31.0)
    await _sweep(mesh)
    assert not any(_rows(mesh, job).values()), _rows(mesh, job)


async def test_workflow_without_a_job_goes(mesh: Bench) -> None:
    """A workflow whose job's record is gone (a crash in the middle of a removal) goes once it is as old as a job."""
    job = await mesh.client.wait((await mesh.job(8)).name)
    with closing(sqlite3.connect(mesh.folder / "jobs.sqlite")) as database, database:
        database.execute("DELETE FROM outboard_jobs")
    await _sweep(mesh)
    assert _rows(mesh, job)["workflow_status"] == 1
    with closing(sqlite3.connect(mesh.folder / "workflows.sqlite")) as database, database:
        database.execute("UPDATE workflow_status SET completed_at = completed_at - 31 * 86400000")
    await _sweep(mesh)
    assert not any(_rows(mesh, job).values()), _rows(mesh, job)
