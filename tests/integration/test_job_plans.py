"""Plans of jobs: decided without rendering, given back edited, refused where they contradict; on toy stages."""

from __future__ import annotations

from typing import Any

import pytest

from outboard.client import failure
from outboard.errors import InvalidInput
from outboard.report.plan_file import read_plans
from outboard.v1 import audio_pb2, master_service_pb2, mixer_service_pb2
from outboard.v1 import job_service_pb2 as messages
from tests.integration.orchestrator_bench import Bench
from tests.integration.toy_stages import MASTER_PLAN, MIX_PLAN, STEMS

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
MIX, MASTER = messages.STAGE_MIX, messages.STAGE_MASTER
_SEPARATE, _RESTORE = messages.STAGE_SEPARATE, messages.STAGE_RESTORE


async def _plans(mesh: Bench, job: Job) -> Job:
    """The plans that a finished job left."""
    artifact = next(artifact for artifact in job.artifacts if artifact.name.endswith("/artifacts/plan.json"))
    assert artifact.media_type == "application/json"
    return read_plans(await mesh.client.read(artifact), "plan.json")


async def test_a_job_that_only_plans_leaves_its_plans(mesh: Bench) -> None:
    """Of a song through all stages: both plans in one file and the report, nothing else; the mix that the master's plan
    needs is there for the job that renders."""
    job = await mesh.client.wait((await mesh.job(1, plan_only=True)).name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    names = [artifact.name.partition("/artifacts/")[2] for artifact in job.artifacts]
    assert sorted(names) == ["plan.json", "report.json"]
    assert [entry.fraction for entry in job.progress] == [1.0] * 4
    plans = await _plans(mesh, job)
    assert plans == Job(mix_plan=MIX_PLAN, master_plan=MASTER_PLAN)
    assert (job.report.mix.plan, job.report.mastering.plan) == (MIX_PLAN, MASTER_PLAN)
    mesh.behaviour.calls.clear()
    await mesh.client.wait((await mesh.job(1)).name)
    assert mesh.behaviour.calls == {"master": 1}, "what the plans needed was computed again"


async def test_the_plan_of_a_mix_alone_renders_no_mix(mesh: Bench) -> None:
    """A job that ends with the mix asks the console for the plan only."""
    upload = await mesh.upload(2)
    stems = messages.StemsInput(stems=[messages.StemInput(name="a", upload=upload.name)])
    created = await mesh.client.create_job(Job(stems=stems, stages=[MIX], plan_only=True))
    job = await mesh.client.wait(created.name)
    assert job.state == Job.STATE_SUCCEEDED, failure(job)
    assert mesh.behaviour.mix_config is not None
    assert mesh.behaviour.mix_config.plan_only
    plans = await _plans(mesh, job)
    assert plans.HasField("mix_plan")
    assert not plans.HasField("master_plan")


async def test_given_plans_go_to_their_stages_and_are_part_of_the_results_name(mesh: Bench) -> None:
    """A stage that has a plan gets it and no preset; a changed plan is another result, an equal one the same."""

    async def ran(gain_db: float, ceiling_dbtp: float) -> dict[str, int]:
        mesh.behaviour.calls.clear()
        fields = Job(mix_plan=MIX_PLAN, master_plan=MASTER_PLAN)
        fields.mix_plan.strips[0].gain_db = gain_db
        fields.master_plan.ceiling_dbtp = ceiling_dbtp
        created = await mesh.job(3, mix_plan=fields.mix_plan, master_plan=fields.master_plan)
        job = await mesh.client.wait(created.name)
        assert job.state == Job.STATE_SUCCEEDED, failure(job)
        assert (job.mix_plan, job.master_plan) == (fields.mix_plan, fields.master_plan)
        return {stage: mesh.behaviour.calls[stage] for stage in ("separate", "mix", "master")}

    assert await ran(-1.5, -1.0) == {"separate": 1, "mix": 1, "master": 1}
    mix, master = mesh.behaviour.mix_config, mesh.behaviour.master_config
    assert mix is not None
    assert master is not None
    assert (mix.plan, master.plan) == (MIX_PLAN, MASTER_PLAN)
    assert not mix.HasField("preset")
    assert not mix.HasField("song")
    assert not master.HasField("preset")
    assert master.settings == master_service_pb2.MasterSettings(engine="toy")
    assert await ran(-1.5, -1.0) == {"separate": 0, "mix": 0, "master": 0}
    # The toy's mix is the same whatever the plan: the master has nothing new to do.
    assert await ran(-9.0, -1.0) == {"separate": 0, "mix": 1, "master": 0}
    assert await ran(-9.0, -2.0) == {"separate": 0, "mix": 0, "master": 1}


async def test_pages_and_progress_carry_no_plans(mesh: Bench) -> None:
    """A plan may be large: it comes with the job itself and the last message of a watch only."""
    created = await mesh.job(4, mix_plan=MIX_PLAN)
    assert created.HasField("mix_plan")
    seen = [state async for state in mesh.client.watch(created.name)]
    assert [state.HasField("mix_plan") for state in seen] == [False] * (len(seen) - 1) + [True]
    listed = [job async for job in mesh.client.list_jobs() if job.name == created.name]
    assert not listed[0].HasField("mix_plan")
    assert (await mesh.client.get_job(created.name)).mix_plan == MIX_PLAN


_ONE_STEM = messages.StemsInput(stems=[messages.StemInput(name="vocals", role=audio_pb2.ROLE_DRUMS)])
_MATCH = master_service_pb2.ReferenceMatch(bands=[master_service_pb2.MatchBand(frequency_hertz=100.0)])
_CONTRADICTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "settings beside a plan": (
        {"mix_plan": MIX_PLAN, "mix": mixer_service_pb2.MixSettings(engine="toy", intensity=50.0, bypass_all=True)},
        ["job.mix.bypass_all", "job.mix.intensity"],
    ),
    "a target beside a plan": (
        {"master_plan": MASTER_PLAN, "mastering": master_service_pb2.MasterSettings(target_lufs=-9.0, engine="toy")},
        ["job.mastering.engine", "job.mastering.target_lufs"],
    ),
    "a preset for nothing": (
        {"mix_plan": MIX_PLAN, "master_plan": MASTER_PLAN, "preset": "rock"},
        ["job.preset"],
    ),
    "a stage that is left out": ({"mix_plan": MIX_PLAN, "stages": [MASTER]}, ["job.mix_plan"]),
    "a plan of a separation": ({"plan_only": True, "stages": [_SEPARATE, _RESTORE]}, ["job.plan_only"]),
    "a plan that is given": ({"plan_only": True, "master_plan": MASTER_PLAN}, ["job.plan_only"]),
    "another role": (
        {"stems": _ONE_STEM, "stages": [MIX], "mix_plan": mixer_service_pb2.MixPlan(strips=[MIX_PLAN.strips[0]])},
        ["job.stems.stems[0].role"],
    ),
    "an album": ({"album": messages.AlbumInput(), "plan_only": True}, ["job.plan_only"]),
    "references for nothing": (
        {"master_plan": master_service_pb2.MasterPlan(engine="match", match=_MATCH), "references": ["song"]},
        ["job.references"],
    ),
    "references of a plan that follows none": (
        {"master_plan": MASTER_PLAN, "references": ["song"]},
        ["job.references"],
    ),
}


@pytest.mark.parametrize("case", _CONTRADICTIONS)
async def test_what_a_plan_contradicts_is_refused(mesh: Bench, case: str) -> None:
    """OPTIONS_CONFLICT when the job is created, with a violation for every field that would be ignored."""
    fields, wrong = _CONTRADICTIONS[case]
    upload = (await mesh.upload(5)).name
    job = Job(**fields)
    job.references[:] = [upload] * len(job.references)
    for stem in job.stems.stems:
        stem.upload = upload
    if job.HasField("album"):
        job.album.songs.add(upload=upload, file_name="a.wav")
    elif not job.HasField("stems"):
        job.song.CopyFrom(messages.SongInput(upload=upload))
    with pytest.raises(InvalidInput) as caught:
        await mesh.client.create_job(job)
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert [violation.field for violation in caught.value.violations] == wrong


async def test_what_a_stage_says_of_a_plan_is_told_by_its_place_in_the_job(mesh: Bench) -> None:
    """A plan that its stage refuses is refused when the job is created, by its field in the job."""
    told = InvalidInput("plan.strips[0].pan: pan is 3", field="config.plan.strips[0].pan")
    mesh.behaviour.errors["plan_mix"] = [told]
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(6, mix_plan=MIX_PLAN)
    assert caught.value.violations[0].field == "job.mix_plan.strips[0].pan"


@pytest.mark.parametrize(
    ("count", "names"),
    [(0, STEMS), (2, ("vocals", "instrumental")), (6, (*STEMS, "piano", "guitar"))],
)
async def test_the_plan_is_held_against_the_stems_that_will_come(
    mesh: Bench, count: int, names: tuple[str, ...]
) -> None:
    """Before anything is separated the mixer is asked about the plan with the names that the separator will give."""
    mesh.behaviour.plan_requests.clear()
    fields: dict[str, Any] = {"separation": {"stem_count": count}} if count else {}
    job = await mesh.job(7, stages=[_SEPARATE, _RESTORE, MIX], mix_plan=MIX_PLAN, **fields)
    config = mesh.behaviour.plan_requests[0].config
    assert config.plan == MIX_PLAN
    assert tuple(stem.name for stem in config.stems) == names
    await mesh.client.wait(job.name)
