"""Progress of one job: collected from its steps, written to the database at most twice a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from outboard.errors import OutboardError
from outboard.v1 import job_service_pb2
from services.orchestrator.database import JobDatabase
from services.orchestrator.threads import in_thread

Stage = job_service_pb2.Stage
State = job_service_pb2.Job.State

ENDED = frozenset({State.STATE_SUCCEEDED, State.STATE_FAILED, State.STATE_CANCELLED})
PERIOD_SECONDS = 0.5

_log = logging.getLogger(__name__)


class JobProgress:
    """Fractions of one job's stages. A stage with several parts (stems) counts their mean; a fraction never falls."""

    def __init__(self, database: JobDatabase, job_id: str, stored: bytes) -> None:
        self._database = database
        self._job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._job = job_service_pb2.Job.FromString(stored)
        self._stages: dict[int, job_service_pb2.StageProgress] = {entry.stage: entry for entry in self._job.progress}
        self._parts: dict[int, dict[str, float]] = {}
        self._state = 0
        self._written = -PERIOD_SECONDS
        self._pending: asyncio.Task[None] | None = None

    async def begin(self, state: int, parts: Mapping[int, list[str]] | None = None) -> None:
        """Enters a state; `parts` names what a stage is made of."""
        for stage, names in (parts or {}).items():
            known = self._parts.get(stage, {})  # of this stage's parts, and of the reading before it, which is none
            self._parts[stage] = {name: known.get(name, 0.0) for name in names}
        if state != self._state:
            self._state = state
            await self.flush()

    def note(self, stage: int, fraction: float, activity: str = "", part: str = "") -> None:
        """Takes a fraction of a stage, or of one part of it; on the event loop."""
        entry = self._stages.get(stage)
        if entry is None:
            return
        parts = self._parts.setdefault(stage, {})
        parts[part] = max(parts.get(part, 0.0), min(1.0, fraction))
        entry.fraction = max(entry.fraction, sum(parts.values()) / len(parts))
        if activity:
            entry.activity = activity
        if self._pending is None or self._pending.done():
            self._pending = asyncio.create_task(self._flush_later())

    def note_from_thread(self, stage: int, fraction: float, activity: str) -> None:
        """The same from a worker thread."""
        self._loop.call_soon_threadsafe(self.note, stage, fraction, activity)

    def finish(self, stage: int, part: str = "", *, reused: bool) -> None:
        """A stage (or one part of it) is done."""
        entry = self._stages.get(stage)
        if entry is not None:
            entry.reused = reused and (entry.reused or not any(self._parts.get(stage, {}).values()))
        self.note(stage, 1.0, part=part)

    def stop(self) -> None:
        """Writes no more."""
        if self._pending is not None:
            self._pending.cancel()

    async def flush(self) -> None:
        """Writes now."""
        self._written = time.monotonic()
        values: dict[str, object] = {"progress": self._job.SerializeToString(deterministic=True)}
        if self._state:
            values["state"] = self._state
        await in_thread(lambda: self._database.advance(self._job_id, ENDED, **values))

    async def _flush_later(self) -> None:
        await asyncio.sleep(max(0.0, self._written + PERIOD_SECONDS - time.monotonic()))
        try:
            await self.flush()
        except OutboardError as error:
            # Progress is a courtesy: the job goes on, and the next report tries again.
            _log.warning("progress could not be written", extra={"job": self._job_id, "reason": error.reason})


class Endings:
    """Wakes those who wait for the end of a job in this process; of jobs elsewhere the database has to be asked."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def wait(self, job_id: str, seconds: float) -> None:
        """Returns when the job ends here, or after some seconds."""
        event = asyncio.Event()
        events = self._waiting.setdefault(job_id, set())
        events.add(event)
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            events.discard(event)
            if not events:
                self._waiting.pop(job_id, None)

    def tell(self, job_id: str) -> None:
        """The job has ended."""
        for event in self._waiting.get(job_id, ()):
            event.set()


def initial_progress(stages: Sequence[job_service_pb2.Stage.ValueType]) -> bytes:
    """What a new job's progress holds: every stage of it at zero."""
    job = job_service_pb2.Job()
    for stage in stages:
        job.progress.add(stage=stage)
    return job.SerializeToString(deterministic=True)
