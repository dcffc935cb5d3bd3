"""Plans in jobs: a job may carry finished plans, which are rendered as they are, or ask for plans and nothing more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from outboard.audio.stems import STEMS_BY_COUNT
from outboard.errors import Violation
from outboard.v1 import audio_pb2, job_service_pb2, master_service_pb2
from services.orchestrator.peers import REFERENCE_ENGINES
from services.orchestrator.progress import Stage
from services.orchestrator.separation import stem_count_of

SONG_STEM = "song"
"""Name of the only stem when a song enters the pipeline behind the separator."""
# Of each stage that decides: the job's plan, and the settings that decide where there is none.
_PLANS = ((Stage.STAGE_MIX, "mix_plan", "mix"), (Stage.STAGE_MASTER, "master_plan", "mastering"))


def mixed_stems(job: job_service_pb2.Job) -> tuple[str, ...]:
    """Names of the stems that reach the console."""
    if job.WhichOneof("input") == "stems":
        return tuple(stem.name for stem in job.stems.stems)
    if Stage.STAGE_SEPARATE in job.stages:
        return STEMS_BY_COUNT[stem_count_of(job)]
    return (SONG_STEM,)


def follows_references(job: job_service_pb2.Job) -> bool:
    """Whether the master of a job goes by references, if it has any."""
    if job.HasField("master_plan"):
        return job.master_plan.engine in REFERENCE_ENGINES
    follows = job.mastering.intent == master_service_pb2.MASTER_INTENT_REFERENCE
    return follows or job.mastering.engine in REFERENCE_ENGINES


def plan_conflicts(job: job_service_pb2.Job, stages: Sequence[int]) -> list[Violation]:
    """What contradicts the plans of a job: settings that would decide what a plan holds, and plans of nothing."""
    if job.WhichOneof("input") == "album":
        fields = [name for name in ("mix_plan", "master_plan") if job.HasField(name)] + ["plan_only"] * job.plan_only
        return [Violation(f"job.{name}", "an album's songs are planned together: it takes no plan") for name in fields]
    conflicts = [
        Violation(f"job.{block}.{field.name}", f"the plan has decided it: leave it out, or edit job.{plan}")
        for _, plan, block in _PLANS
        if job.HasField(plan)  # type: ignore[arg-type]
        for field, _ in getattr(job, block).ListFields()
        if (block, field.name) != ("mix", "engine")  # which the plan does not hold; the mixer refuses what has no plan
    ]
    conflicts += _role_conflicts(job)
    deciding = [job.HasField(plan) for stage, plan, _ in _PLANS if stage in stages]  # type: ignore[arg-type]
    if any(deciding) and all(deciding):
        text = "plans have decided all that a preset would: leave it out"
        conflicts += [Violation(f"job.{name}", text) for name in ("preset", "custom_preset") if _is_set(job, name)]
    if job.master_plan.match.bands and job.references:
        conflicts.append(Violation("job.references", "the plan holds its match already: references would do nothing"))
    return conflicts + list(_nothing_to_plan(job, stages))


def _is_set(job: job_service_pb2.Job, name: str) -> bool:
    return job.HasField("custom_preset") if name == "custom_preset" else bool(job.preset)


def _role_conflicts(job: job_service_pb2.Job) -> Iterator[Violation]:
    planned = {strip.stem: strip.role for strip in job.mix_plan.strips}
    for index, stem in enumerate(job.stems.stems):
        if stem.role and stem.name in planned and stem.role != planned[stem.name]:
            role = audio_pb2.Role.Name(planned[stem.name])
            yield Violation(f"job.stems.stems[{index}].role", f"the plan has another role for {stem.name!r}: {role}")


def _nothing_to_plan(job: job_service_pb2.Job, stages: Sequence[int]) -> Iterator[Violation]:
    """A request for a plan where nothing is left to decide."""
    if not job.plan_only:
        return
    last = next((plan for stage, plan, _ in _PLANS if stage == stages[-1]), None)
    if last is None:
        yield Violation("job.plan_only", "only a mix and a master are planned: the job must end with one of them")
    elif job.HasField(last):  # type: ignore[arg-type]
        yield Violation("job.plan_only", f"job.{last} is given: nothing is left to decide")
