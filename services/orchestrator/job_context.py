"""What every step needs of its job, and how results are found or made."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from outboard.errors import NotFound, OutboardError, ResourceExhausted, Unavailable
from outboard.storage import ObjectStore
from outboard.v1 import job_service_pb2
from services.orchestrator.database import JobDatabase
from services.orchestrator.exchange import FROM_STAGE
from services.orchestrator.progress import JobProgress
from services.orchestrator.results import Draft, Result, find
from services.orchestrator.threads import in_thread

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Pauses before a stage is tried again, whole; a crashed local service is back within the first two."""

_log = logging.getLogger(__name__)
Produce = Callable[[Draft], Awaitable[Mapping[str, Any]]]


@dataclass(frozen=True)
class JobContext:
    """One job as its steps see it."""

    tenant: str
    id: str
    specification: job_service_pb2.Job
    inputs: str
    progress: JobProgress


class Workshop:
    """Opens jobs and finds or makes results; shared by all steps of this process."""

    def __init__(self, store: ObjectStore, database: JobDatabase, make_room: Callable[[], None]) -> None:
        self.store = store
        self.database = database
        self._make_room = make_room
        self._jobs: dict[str, JobContext] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def open(self, tenant: str, job_id: str) -> JobContext:
        """The job of a step.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        known = self._jobs.get(job_id)
        if known:
            return known
        row = await in_thread(self.database.job, tenant, job_id)
        if row is None:
            raise NotFound("the job was deleted")
        specification = job_service_pb2.Job.FromString(row.specification)
        context = JobContext(
            tenant, job_id, specification, row.inputs, JobProgress(self.database, job_id, row.progress)
        )
        return self._jobs.setdefault(job_id, context)

    def close(self, job_id: str) -> None:
        """Forgets a job that has ended."""
        job = self._jobs.pop(job_id, None)
        if job:
            job.progress.stop()

    async def result(self, job: JobContext, prefix: str, produce: Produce) -> tuple[Result, bool]:
        """The result of that name, and whether it was there. Equal work of jobs that run together is done once."""
        # Noted first: what a running job uses is kept from eviction.
        await in_thread(self.database.use, job.id, prefix)
        async with self._locks.setdefault(prefix, asyncio.Lock()):
            try:
                found = await in_thread(find, self.store, prefix)
                if found:
                    return found, True
                return await self._make(prefix, produce), False
            finally:
                self._locks.pop(prefix, None)

    async def rename(self, job: JobContext, draft: Draft, prefix: str) -> None:
        """Gives a result that is being made another name, that of what really ran."""
        await in_thread(self.database.use, job.id, prefix)
        await draft.rename(prefix)

    async def _make(self, prefix: str, produce: Produce) -> Result:
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                async with Draft(self.store, prefix) as draft:
                    facts = await produce(draft)
                    return await draft.finish(facts)
            except OutboardError as error:
                if delay is None or not _may_pass(error):
                    raise
                _log.warning("a stage is tried again", extra={"reason": error.reason, "delay_seconds": delay})
                if error.reason == "STORAGE_FULL":
                    await in_thread(self._make_room)
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")


def _may_pass(error: OutboardError) -> bool:
    """Whether the same work may succeed in a moment."""
    if FROM_STAGE not in error.metadata:
        return isinstance(error, Unavailable)
    # A stage whose model server has just gone refuses to begin; the server may be starting again.
    passing = isinstance(error, ResourceExhausted) or error.reason == "MODEL_SERVER_UNAVAILABLE"
    return isinstance(error, Unavailable) or (passing and error.reason != "STORAGE_FULL")
