"""A song's way through the pipeline, on one screen.

The workflow is durable (DBOS): a step that has finished is not run again after a crash, and an interrupted one is.
Steps are preemptible: the cancel flag in the database stops the running one within a second.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from dbos import DBOS
from dbos._error import DBOSWorkflowCancelledError

from outboard import telemetry
from outboard.errors import Internal, OutboardError
from outboard.rpc import tracing
from services.orchestrator.extras import Extras
from services.orchestrator.finish import Finish, Outcome
from services.orchestrator.specification import Route
from services.orchestrator.steps import Done, Steps
from services.orchestrator.threads import together

P = ParamSpec("P")
R = TypeVar("R")

PIPELINE_VERSION = "3"
"""Raised when the order of steps changes."""

_log = logging.getLogger(__name__)


class Pipeline:
    """The workflow over one orchestrator's steps.

    Attributes:
        workflow: what is queued, with the tenant, the job's id and the span that asked for it.
    """

    def __init__(self, steps: Steps, extras: Extras, finish: Finish) -> None:
        self._steps = steps
        self._extras = extras
        self._finish = finish

        @DBOS.workflow(name="pipeline")
        async def workflow(tenant: str, job_id: str, traceparent: str | None = None) -> None:
            with (
                tracing.span("job", below=traceparent, job=job_id, tenant=tenant),
                telemetry.bind(job=job_id, tenant=tenant),
            ):
                await self.run(tenant, job_id)

        self.workflow = workflow

    async def run(self, tenant: str, job_id: str) -> None:
        """Ingest, separate, restore each stem in parallel, mix, master, finish; as much of it as the job asks for."""
        job = (tenant, job_id)
        try:
            route: Route = await step(self._finish.begin, *job)
            sources = await together(step(self._steps.ingest, *job, source) for source in route.sources)
            references = await together(step(self._steps.ingest, *job, source) for source in route.references)
            if route.is_album:
                await step(self._finish.succeed, *job, Outcome(album=await self._album(*job, sources)))
                return
            song = sources[0] if route.is_song else None
            followed = [reference.audio[0] for reference in references]
            if followed:
                await step(self._extras.check_references, *job, song.audio[0] if song else None, followed)
            outcome = Outcome(song=song)
            stems = [audio for source in sources for audio in source.audio]
            if route.separates and song:
                outcome.separation = await step(self._steps.separate, *job, song)
                stems = list(outcome.separation.audio)
            if route.restores:
                names = [stem.name for stem in stems]
                outcome.restorations = await together(step(self._steps.restore, *job, stem, names) for stem in stems)
                stems = [audio for restored in outcome.restorations for audio in restored.audio]
            outcome.stems = stems if route.has_stems else []
            mix = stems[0]
            if route.mixes:
                outcome.mix = await step(self._steps.mix, *job, stems, song, route.plan_only and not route.masters)
                mix = outcome.mix.audio[0] if outcome.mix.audio else mix
            if route.masters:
                done = await step(self._steps.master, *job, mix, song, followed, plan_only=route.plan_only)
                outcome.mastering, before = done, song.audio[0] if song else mix
                if not route.plan_only:
                    outcome.preview = await step(self._extras.preview, *job, before, song, done)
            elif route.mixes and not route.plan_only:
                outcome.measured = await step(self._extras.measure, *job, mix)
            await step(self._finish.succeed, *job, outcome)
        except OutboardError as error:
            await step(self._finish.fail, *job, error)
        except DBOSWorkflowCancelledError:
            raise
        except Exception:
            _log.exception("a job failed unexpectedly", extra={"job": job_id})
            await step(self._finish.fail, *job, Internal("an internal error, see the orchestrator's log"))
        finally:
            self._finish.forget(job_id)

    async def _album(self, tenant: str, job_id: str, songs: list[Done]) -> list[Done]:
        """The loudest song first: where it has to stop short of the target, the others keep their distance to it."""
        job = (tenant, job_id)
        first = await step(self._steps.loudest, *job, songs)
        leader = await step(self._steps.master, *job, songs[first].audio[0], songs[first], [], songs)
        return [
            leader if index == first else await step(self._steps.master, *job, song.audio[0], song, [], songs, leader)
            for index, song in enumerate(songs)
        ]


async def step(function: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R:
    """Runs one durable, preemptible step under the function's name; it has a span if it really runs."""
    name = function.__qualname__

    async def traced() -> R:
        with tracing.span(name):
            return await function(*args, **kwargs)

    options: Any = {"name": name, "preemptible": True}
    result: R = await DBOS.run_step_async(options, traced)
    return result
