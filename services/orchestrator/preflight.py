"""Asks the stages of a job whether they take its settings, before anything is computed.

Minutes pass until a master is reached: its settings and every engine's name are looked at when the job is created, and
once more when it begins (a stage may not have been there). A stage that does not answer refuses nothing: its step
waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from outboard.errors import FailedPrecondition, InvalidInput, NotFound, OutboardError
from outboard.rpc.channel import outboard_errors
from outboard.v1 import analysis_pb2, job_service_pb2, master_service_pb2, mixer_service_pb2
from services.orchestrator.field_paths import name_job_fields
from services.orchestrator.peers import REFERENCE_ENGINES, Peers
from services.orchestrator.plans import SONG_STEM, mixed_stems
from services.orchestrator.progress import Stage
from services.orchestrator.separation import separation_engine, sound_numbers

_PATIENCE_SECONDS = 3.0
# A second of silence: every planner has an answer to it, and no other number of it matters.
_ANYTHING = analysis_pb2.Analysis(frames=48000, sample_rate_hertz=48000, channels=2)
_REFUSALS = (InvalidInput, NotFound, FailedPrecondition)

_log = logging.getLogger(__name__)


class Preflight:
    """Checks jobs against the stages that are there."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._checks: dict[int, Callable[[job_service_pb2.Job], Coroutine[Any, Any, None]]] = {
            Stage.STAGE_SEPARATE: self._separation,
            Stage.STAGE_RESTORE: self._restoration,
            Stage.STAGE_MIX: self._mix,
            Stage.STAGE_MASTER: self._mastering,
        }

    async def check(self, job: job_service_pb2.Job) -> None:
        """Refuses a job that one of its stages would refuse.

        Raises:
            InvalidInput: settings out of range or in conflict, or ENGINE_UNKNOWN: a violation per field, of all stages.
            FailedPrecondition: ENGINE_UNAVAILABLE.
        """
        refusals = [
            error for error in await asyncio.gather(*(self._asked(job, stage) for stage in job.stages)) if error
        ]
        violations = [violation for error in refusals for violation in error.violations]
        # What the caller can mend comes before what the server lacks.
        refusals.sort(key=lambda error: isinstance(error, FailedPrecondition))
        if refusals:
            kind = FailedPrecondition if isinstance(refusals[0], FailedPrecondition) else InvalidInput
            raise kind(refusals[0].message, reason=refusals[0].reason, violations=violations)

    async def _asked(self, job: job_service_pb2.Job, stage: int) -> OutboardError | None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._checks[stage](job)
        except _REFUSALS as error:
            return error
        except (OutboardError, TimeoutError) as error:
            _log.info("a stage could not be asked", extra={"stage": Stage.Name(stage), "cause": type(error).__name__})  # type: ignore[arg-type]
        return None

    async def _separation(self, job: job_service_pb2.Job) -> None:
        await separation_engine(self._peers.separator_engines, job)

    async def _restoration(self, job: job_service_pb2.Job) -> None:
        for index, step in enumerate(job.restoration.steps):
            await self._peers.restorer_engines.resolve(step.engine, f"job.restoration.steps[{index}].engine")

    async def _mix(self, job: job_service_pb2.Job) -> None:
        await self._peers.mixer_engines.resolve(job.mix.engine, "job.mix.engine")
        if job.HasField("mix_plan"):
            config = mixer_service_pb2.MixConfig(settings=job.mix, plan=job.mix_plan)
            for name in mixed_stems(job):
                config.stems.add(name=name)
            request = mixer_service_pb2.PlanMixRequest(config=config)
        else:
            config = mixer_service_pb2.MixConfig(settings=job.mix, preset=sound_numbers(job.resolved_preset))
            config.stems.add(name=SONG_STEM)
            request = mixer_service_pb2.PlanMixRequest(config=config, stem_analyses={SONG_STEM: _ANYTHING})
        await _planned(self._peers.mixer.PlanMix(request), "mix")

    async def _mastering(self, job: job_service_pb2.Job) -> None:
        if job.HasField("master_plan"):
            await self._master_plan(job)
            return
        settings = master_service_pb2.MasterSettings()
        settings.CopyFrom(job.mastering)
        settings.engine = (await self._peers.master_engine(settings)).name
        if settings.engine in REFERENCE_ENGINES and not job.references:
            raise _no_reference("the reference intent needs a reference song")
        request = master_service_pb2.PlanMasterRequest(
            analysis=_ANYTHING, settings=settings, preset=sound_numbers(job.resolved_preset)
        )
        await _planned(self._peers.master.PlanMaster(request), "mastering")

    async def _master_plan(self, job: job_service_pb2.Job) -> None:
        plan = job.master_plan
        await _planned(
            self._peers.master.PlanMaster(master_service_pb2.PlanMasterRequest(plan=plan)),
            "mastering",
        )
        await self._peers.master_engines.resolve(plan.engine, "job.master_plan.engine")
        if plan.engine in REFERENCE_ENGINES and not plan.match.bands and not job.references:
            raise _no_reference("the plan's match has no bands yet: it needs a reference song")


def _no_reference(message: str) -> InvalidInput:
    return InvalidInput(message, reason="REFERENCE_UNSUITABLE", field="job.references")


async def _planned(call: Awaitable[Any], block: str) -> None:
    try:
        with outboard_errors():
            await call
    except OutboardError as error:
        raise name_job_fields(error, block) from None
