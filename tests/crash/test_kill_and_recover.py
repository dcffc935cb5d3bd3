"""A process group that is killed with SIGKILL in the middle of a job, and started again on the same store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from outboard.client import AsyncClient, failure
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import noise_file

_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0
Job = messages.Job


class Host:
    """The process group under test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slow()
        self._process: subprocess.Popen[bytes] | None = None

    def slow(self, **seconds: float) -> None:
        """Seconds that stages take for a chunk, from the next start on."""
        (self.folder / "slow").write_text(json.dumps(seconds))

    def start(self) -> str:
        """Starts the group and returns the address of JobService."""
        address = self.folder / "address"
        address.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.crash_host", str(self.folder)], cwd=_ROOT, start_new_session=True
        )
        deadline = time.monotonic() + _START_SECONDS
        while not address.exists():
            assert self._process.poll() is None, "the host ended at its start"
            assert time.monotonic() < deadline, "the host did not start"
            time.sleep(0.05)
        return address.read_text()

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def calls(self) -> list[str]:
        """Every stage call so far, of all lives."""
        log = self.folder / "calls"
        return log.read_text().split() if log.exists() else []


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    made.kill()


async def _submit(client: AsyncClient, seed: int) -> Job:
    upload = await client.upload(noise_file(seed, 3.0))
    return await client.create_job(Job(song=messages.SongInput(upload=upload.name)))


async def _until(host: Host, stage: str, count: int = 1) -> None:
    async with asyncio.timeout(60):
        while host.calls().count(stage) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("stage", ["separate", "restore", "mix", "master"])
async def test_job_finishes_after_a_kill(host: Host, stage: str) -> None:
    """Killed in any stage, the job finishes after a restart; finished stages are not run again, the interrupted one is."""
    host.slow(**{stage: 1.0})
    async with AsyncClient(host.start()) as client:
        job = await _submit(client, seed=len(stage))
        await _until(host, stage)
        await asyncio.sleep(0.3)
    host.kill()
    before = host.calls()
    host.slow()
    async with AsyncClient(host.start()) as client:
        ended = await client.wait(job.name)
        assert ended.state == Job.STATE_SUCCEEDED, failure(ended)
        again = host.calls()[len(before) :]
    order = ["separate", "restore", "mix", "master"]
    finished = order[: order.index(stage)]
    assert not set(again) & set(finished), f"killed in {stage}, and {again} ran again"
    assert stage in again
    store = FolderStore(host.folder / "store")
    assert not list((host.folder / "store" / "partial").iterdir())
    manifests = {info.key.rpartition("/")[0] for info in store.list("default/results") if info.key.endswith(".json")}
    attempts = {info.key.split("/")[2] for info in store.list("default/results")}
    assert attempts == {manifest.rpartition("/")[2] for manifest in manifests}, "an interrupted attempt was left behind"


async def test_two_jobs_are_killed_and_both_finish(host: Host) -> None:
    """Two jobs at once on one store, in different stages, both finish after a kill; a third can be added."""
    host.slow(separate=0.5, mix=0.5)
    async with AsyncClient(host.start()) as client:
        jobs = [await _submit(client, seed=1), await _submit(client, seed=2)]
        await _until(host, "separate", 2)
    host.kill()
    host.slow()
    async with AsyncClient(host.start()) as client:
        jobs.append(await _submit(client, seed=3))
        ended = [await client.wait(job.name) for job in jobs]
    assert [job.state for job in ended] == [Job.STATE_SUCCEEDED] * 3


async def test_cancelled_job_stays_cancelled(host: Host) -> None:
    """A job that was cancelled before the kill is not resumed after it."""
    host.slow(separate=1.0)
    async with AsyncClient(host.start()) as client:
        job = await _submit(client, seed=4)
        await _until(host, "separate")
        await client.cancel_job(job.name)
    host.kill()
    before = len(host.calls())
    async with AsyncClient(host.start()) as client:
        assert (await client.get_job(job.name)).state == Job.STATE_CANCELLED
        await asyncio.sleep(1.5)
    assert len(host.calls()) == before


async def test_upload_continues_after_a_kill(host: Host) -> None:
    """An upload that was cut by the kill goes on from what is stored."""
    data = noise_file(5, 60.0)
    half = 9 * 1024 * 1024
    async with AsyncClient(host.start()) as client:

        async def requests() -> object:
            yield messages.UploadAudioRequest(start=messages.UploadStart(size_bytes=len(data)))
            for start in range(0, half, 1024 * 1024):
                yield messages.UploadAudioRequest(data=data[start : start + 1024 * 1024])

        upload = await client._upload_stream(requests())  # type: ignore[arg-type]
        assert upload.size_bytes == half
    host.kill()
    async with AsyncClient(host.start()) as client:
        upload = await client.get_upload(upload.name)
        assert upload.size_bytes == half
        start = messages.UploadStart(name=upload.name, offset=half, size_bytes=len(data))

        async def rest() -> object:
            yield messages.UploadAudioRequest(start=start)
            for begin in range(half, len(data), 1024 * 1024):
                yield messages.UploadAudioRequest(data=data[begin : begin + 1024 * 1024])

        assert (await client._upload_stream(rest())).complete  # type: ignore[arg-type]
