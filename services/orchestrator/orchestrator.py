"""Puts the orchestrator together: store, databases, peers, workflow, housekeeping; started and stopped as one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from dbos import DBOS, DBOSConfig
from dbos._error import DBOSAwaitedWorkflowCancelledError, DBOSWorkflowCancelledError

from outboard.settings import Settings
from outboard.storage import FolderStore
from outboard.v1 import job_service_pb2_grpc
from services.orchestrator.database import JobDatabase, sqlite_url
from services.orchestrator.extras import Extras
from services.orchestrator.finish import Finish
from services.orchestrator.housekeeping import Housekeeper
from services.orchestrator.job_context import Workshop
from services.orchestrator.jobs import QUEUE, Jobs
from services.orchestrator.peers import Peers, connect
from services.orchestrator.preflight import Preflight
from services.orchestrator.progress import Endings
from services.orchestrator.removal import Remover
from services.orchestrator.servicer import JobServicer
from services.orchestrator.steps import Steps
from services.orchestrator.threads import in_thread
from services.orchestrator.uploads import Uploads
from services.orchestrator.workflow import PIPELINE_VERSION, Pipeline

_QUEUE_POLL_SECONDS = 0.1
_log = logging.getLogger(__name__)


class Orchestrator:
    """One running orchestrator; make it with `running`."""

    def __init__(self, settings: Settings, store: FolderStore, database: JobDatabase, peers: Peers) -> None:
        self._settings = settings
        self._store = store
        self.uploads = Uploads(store, database)
        remover = Remover(store, database)
        self.housekeeper = Housekeeper(store, database, self.uploads, remover, settings.store)
        workshop = Workshop(store, database, self.housekeeper.make_room)
        steps = Steps(workshop, peers, settings.spool.directory)
        extras = Extras(workshop, settings.spool.directory)
        preflight, endings = Preflight(peers), Endings()
        pipeline = Pipeline(steps, extras, Finish(workshop, preflight, endings))
        self.jobs = Jobs(database, endings, self.uploads, preflight, remover, pipeline)

    def register(self, server: grpc.aio.Server) -> None:
        """Adds JobService to a server."""
        servicer = JobServicer(self.jobs, self.uploads, self._store)
        job_service_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Orchestrator]:
    """An orchestrator on the settings' store, its workflow engine launched on this event loop."""
    folder = settings.store.directory
    folder.mkdir(parents=True, exist_ok=True)
    store = FolderStore(folder)
    database = JobDatabase(sqlite_url(folder / "jobs.sqlite"))
    peers = connect(settings.peers)
    _quiet_dbos()
    DBOS(config=_configuration(settings))
    try:
        orchestrator = Orchestrator(settings, store, database, peers)
        # Inside the running loop, which the workflows then run on.
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE,
            worker_concurrency=settings.limits.concurrent_renders,
            polling_interval_sec=_QUEUE_POLL_SECONDS,
        )
        await orchestrator.jobs.resume()
        housekeeping = asyncio.create_task(orchestrator.housekeeper.run())
        try:
            yield orchestrator
        finally:
            housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await housekeeping
    finally:
        await in_thread(lambda: DBOS.destroy(destroy_registry=True))
        # The engine put its own pool in the loop's place of the default one, and has just shut that down.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        await peers.close()
        database.close()


def _configuration(settings: Settings) -> DBOSConfig:
    return DBOSConfig(
        name="outboard",
        system_database_url=sqlite_url(settings.store.directory / "workflows.sqlite"),
        application_version=PIPELINE_VERSION,
        executor_id="orchestrator-0",
        log_level="WARNING",
        notification_listener_polling_interval_sec=0.5,
    )


def _quiet_dbos() -> None:
    """Sends DBOS's records to our own log: it adds a handler of its own only where there is none."""
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.propagate = True
    logger.filters[:] = [_without_cancellations]


def _without_cancellations(record: logging.LogRecord) -> bool:
    """A cancelled job is no fault: the engine would log it with a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    cancelled = isinstance(error, DBOSWorkflowCancelledError | DBOSAwaitedWorkflowCancelledError)
    return not (cancelled or "was cancelled during execution" in record.getMessage())
