"""Stems of a job at the real restorer: as many at once as it has room for, and never more."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from outboard.client import failure
from outboard.v1 import audio_pb2
from outboard.v1 import job_service_pb2 as messages
from services.restorer import servicer
from services.restorer.restore import restore
from tests.integration.orchestrator_bench import bench
from tests.integration.stage_bench import serving, workers

Job = messages.Job


class _Watched:
    """Restores as the restorer does, and counts who computes: each first step waits until all calls have come."""

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._computing = 0
        self.most_computing = 0
        self.most_calls = 0

    def __call__(self, *args: Any, **options: Any) -> Generator[Any, None, Any]:
        work = restore(*args, **options)
        while True:
            with self._lock:
                self._computing += 1
                self.most_computing = max(self.most_computing, self._computing)
            try:
                self._wait_for_all()
                block = next(work)
            except StopIteration as end:
                return end.value
            finally:
                with self._lock:
                    self._computing -= 1
            yield block

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + 30
        while self.most_calls < self._calls and time.monotonic() < deadline:
            self.most_calls = max(self.most_calls, len(workers("restorer")))
            time.sleep(0.01)


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [4, 12])
async def test_stems_are_restored_at_once_up_to_the_capacity(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stems of a job are at the restorer together. Three of them are computed at once where there are three render
    slots, the others wait there; all are restored in the end.
    """
    watched = _Watched(count)
    monkeypatch.setattr(servicer, "restore", watched)
    (tmp_path / "spool").mkdir()
    async with (
        serving("restorer", tmp_path / "spool", concurrent_renders=3) as restorer,
        bench(tmp_path / "store", restorer=restorer.address) as mesh,
    ):
        stems = messages.StemsInput()
        for index in range(count):
            upload = await mesh.upload(index)
            stems.stems.add(name=f"stem {index}", upload=upload.name, role=audio_pb2.ROLE_DRUMS)
        job = await mesh.client.wait((await mesh.client.create_job(Job(stems=stems))).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert len(job.report.restorations) == count
    assert not mesh.behaviour.calls["restore"]
    assert watched.most_calls == count, f"{watched.most_calls} of {count} calls were there together"
    assert watched.most_computing == 3, f"{watched.most_computing} stems at once on three render slots"
