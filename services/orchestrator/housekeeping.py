"""Keeps the store from filling: old jobs go, and old and least recently used results.

Running jobs and their results stay, and those of jobs that asked to keep theirs. Of the others, inputs and
intermediates go by their time-to-live; what a job delivers lasts as long as the job, unless the store is full of
nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from outboard.errors import OutboardError
from outboard.settings import StoreSettings
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2
from services.orchestrator.database import JobDatabase
from services.orchestrator.progress import ENDED
from services.orchestrator.removal import Remover
from services.orchestrator.results import prefix_of
from services.orchestrator.threads import in_thread
from services.orchestrator.uploads import Uploads

_PERIOD_SECONDS = 300.0
_FIRST_SECONDS = 20.0
_DAY_SECONDS = 86400.0
_ROOM_SHARE = 0.5  # a full disk: results shrink to this share of what they were

_log = logging.getLogger(__name__)


class Housekeeper:
    """Evicts on a timer, and at once when a disk is full."""

    def __init__(
        self, store: FolderStore, database: JobDatabase, uploads: Uploads, remover: Remover, settings: StoreSettings
    ) -> None:
        self._store = store
        self._database = database
        self._uploads = uploads
        self._remover = remover
        self._settings = settings

    async def run(self) -> None:
        """Sweeps every few minutes, for ever."""
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            try:
                await in_thread(self.sweep)
            except OutboardError as error:
                _log.warning("housekeeping failed, it is tried again", extra={"reason": error.reason})
            await asyncio.sleep(_PERIOD_SECONDS)

    def sweep(self) -> Sequence[str]:
        """Removes what its time-to-live, the number of jobs or the size cap says; returns the evicted keys. Blocks."""
        self._prune()
        idle_seconds = self._settings.intermediate_days * _DAY_SECONDS
        self._uploads.forget(time.time() - idle_seconds)
        removed = self._store.evict(
            idle_seconds=idle_seconds,
            max_bytes=self._settings.maximum_bytes,
            protected=self._protected(),
            last=self._delivered(),
        )
        if removed:
            _log.info("evicted", extra={"objects": len(removed)})
        return removed

    def _prune(self) -> None:
        """Removes jobs that ended long ago, and the oldest of too many."""
        moment = time.time() - self._settings.job_days * _DAY_SECONDS
        old = self._database.specifications(states=ENDED, ended_before=moment)
        surplus = self._database.specifications(states=ENDED, beyond=self._settings.maximum_jobs)
        expired = {job_id for job_id, specification in (*old, *surplus) if not _keeps(specification)}
        self._remover.remove(sorted(expired))
        self._remover.remove_strays(moment)
        if expired:
            _log.info("pruned", extra={"jobs": len(expired)})

    def make_room(self) -> None:
        """Halves what may be evicted, for a job that found the disk full. Blocks."""
        total = sum(info.size for info in self._store.list(""))
        self._store.evict(max_bytes=int(total * _ROOM_SHARE), protected=self._protected(), last=self._delivered())

    def _protected(self) -> set[str]:
        running = {row.id for row in self._database.unfinished(ENDED)}
        return self._database.uses_of(running | self._keepers())

    def _delivered(self) -> set[str]:
        """Results with what jobs deliver, whole: an object is found through its result's manifest."""
        return {prefix_of(key) for key in self._database.delivered()}

    def _keepers(self) -> set[str]:
        """Jobs that asked to keep their intermediates."""
        return {job_id for job_id, specification in self._database.specifications() if _keeps(specification)}


def _keeps(specification: bytes) -> bool:
    return job_service_pb2.Job.FromString(specification).keep_intermediates
