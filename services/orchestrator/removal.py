"""Takes jobs that have ended out of everything that knows them: records, results, workflow."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from dbos import DBOS

from outboard.storage import ObjectStore
from services.orchestrator import results
from services.orchestrator.database import JobDatabase

_FINISHED = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
_AT_ONCE = 500


class Remover:
    """Removes jobs. All methods block: worker threads call them."""

    def __init__(self, store: ObjectStore, database: JobDatabase) -> None:
        self._store = store
        self._database = database

    def remove(self, job_ids: Iterable[str]) -> None:
        """Removes jobs that have ended, and every upload and result that no other job refers to.

        The records go first: what an interruption leaves behind is found by nobody, and goes by its time-to-live.
        """
        for job_id in job_ids:
            for name in self._database.delete_job(job_id):
                self._store.delete(name)  # an input is an object, a result is a prefix
                results.remove(self._store, name)
            DBOS.delete_workflow(job_id)

    def remove_strays(self, ended_before: float) -> None:
        """Removes workflows that ended before a moment (seconds since the epoch), and references of jobs that are gone.

        A job's workflow is of no use once the job has ended: everything that is told of a job stands in its record.
        """
        moment = _iso(ended_before)
        while found := DBOS.list_workflows(
            status=_FINISHED, completed_before=moment, limit=_AT_ONCE, load_input=False, load_output=False
        ):
            DBOS.delete_workflows([workflow.workflow_id for workflow in found])
        self._database.drop_strays()


def _iso(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat()
