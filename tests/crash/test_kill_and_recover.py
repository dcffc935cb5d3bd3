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
from collections import Counter
from collections.abc import AsyncIterator, Iterator
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


async def test_job_killed_in_every_stage_finishes(host: Host) -> None:
    """One job is killed in each stage in turn: it finishes in the end, and no stage that had finished ran again."""
    order = ["separate", "restore", "mix", "master"]
    job = None
    for stage in order:
        host.slow(**{stage: 1.0})
        async with AsyncClient(host.start()) as client:
            job = job or await _submit(client, seed=1)
            await _until(host, stage)
            await asyncio.sleep(0.3)
        host.kill()
    host.slow()
    assert job is not None
    async with AsyncClient(host.start()) as client:
        ended = await client.wait(job.name)
    assert ended.state == Job.STATE_SUCCEEDED, failure(ended)
    calls = Counter(host.calls())
    assert [calls["separate"], calls["mix"], calls["master"]] == [2, 2, 2], f"{calls}"
    assert 5 <= calls["restore"] <= 8, f"{calls}"
    assert not list((host.folder / "store" / "partial").iterdir())
    keys = [info.key for info in FolderStore(host.folder / "store").list("default/results")]
    finished = {key.split("/")[2] for key in keys if key.endswith("/manifest.json")}
    assert {key.split("/")[2] for key in keys} == finished, "an interrupted attempt was left behind"


async def test_everything_else_survives_a_kill(host: Host) -> None:
    """Two jobs at once on one store both finish after a kill, a cancelled one stays cancelled, an upload goes on."""
    host.slow(separate=0.5)
    data = noise_file(5, 30.0)
    half = 9 * 1024 * 1024
    async with AsyncClient(host.start()) as client:
        start = messages.UploadStart(size_bytes=len(data))
        upload = await client._upload_stream(_upload(start, data[:half]))
        jobs = [await _submit(client, seed) for seed in (1, 2)]
        cancelled = await _submit(client, seed=3)
        await _until(host, "separate", 2)
        await client.cancel_job(cancelled.name)
    host.kill()
    host.slow()
    async with AsyncClient(host.start()) as client:
        jobs.append(await _submit(client, seed=4))
        ended = [await client.wait(job.name) for job in jobs]
        assert [job.state for job in ended] == [Job.STATE_SUCCEEDED] * 3
        assert (await client.get_job(cancelled.name)).state == Job.STATE_CANCELLED
        assert (await client.get_upload(upload.name)).size_bytes == half
        start = messages.UploadStart(name=upload.name, offset=half, size_bytes=len(data))
        assert (await client._upload_stream(_upload(start, data[half:]))).complete


async def _upload(start: messages.UploadStart, data: bytes) -> AsyncIterator[messages.UploadAudioRequest]:
    yield messages.UploadAudioRequest(start=start)
    for begin in range(0, len(data), 1024 * 1024):
        yield messages.UploadAudioRequest(data=data[begin : begin + 1024 * 1024])
