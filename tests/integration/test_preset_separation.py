"""Jobs whose sound profile says how to separate: resolved, overridden by the request, refused, told in the report."""

from __future__ import annotations

import pytest

from outboard.errors import InvalidInput
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import mixer_service_pb2, separator_service_pb2
from tests.integration.orchestrator_bench import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
Separation = separator_service_pb2.SeparationSettings
REQUEST, PRESET, DEFAULT = (
    messages.SETTING_SOURCE_REQUEST, messages.SETTING_SOURCE_PRESET, messages.SETTING_SOURCE_DEFAULT,
)  # fmt: skip


def preset(**separation: object) -> mixer_service_pb2.Preset:
    return mixer_service_pb2.Preset(name="mine", separation=Separation(**separation))  # type: ignore[arg-type]


def used(job: messages.Job) -> dict[str, tuple[str, int, str]]:
    return {each.name: (each.value, each.source, each.preset) for each in job.report.separation_settings}


async def test_the_profile_counts_where_the_request_is_silent(mesh: Bench) -> None:
    """Engine and shifts by the profile, the seed by the request over it; the separator is asked for all of that, and
    the report says of each who chose it.
    """
    custom = preset(engine="toy", shifts=2, seed=3)
    job = await mesh.job(910, custom_preset=custom, separation=Separation(seed=4))
    assert job.separation == Separation(seed=4), "what the request said stays to be read"
    assert job.resolved_preset.separation == custom.separation
    done = await mesh.client.wait(job.name)
    assert done.state == Job.STATE_SUCCEEDED
    assert mesh.behaviour.separate_config is not None
    assert mesh.behaviour.separate_config.settings == Separation(engine="toy", shifts=2, seed=4)
    assert used(done) == {
        "engine": ("toy", PRESET, "mine"),
        "shifts": ("2", PRESET, "mine"),
        "seed": ("4", REQUEST, ""),
        "stem_count": ("4", DEFAULT, ""),
    }


async def test_console_and_master_are_not_given_it(mesh: Bench) -> None:
    """How to separate makes no other mix or master: jobs that differ in the profile's separation alone share them."""
    jobs = []
    for seed in (5, 6):
        job = await mesh.job(911, custom_preset=preset(seed=seed))
        jobs.append(await mesh.client.wait(job.name))
    assert [stage.reused for stage in jobs[1].progress] == [False, True, True, True]
    assert mesh.behaviour.mix_config is not None
    assert not mesh.behaviour.mix_config.preset.HasField("separation")


async def test_a_request_and_a_profile_that_agree_share_their_stems(mesh: Bench) -> None:
    """Who chose a setting is no part of a result's name."""
    first = await mesh.job(912, separation=Separation(shifts=1), stages=[messages.STAGE_SEPARATE])
    await mesh.client.wait(first.name)
    second = await mesh.job(912, custom_preset=preset(shifts=1), stages=[messages.STAGE_SEPARATE])
    done = await mesh.client.wait(second.name)
    assert done.progress[0].reused
    assert used(done)["shifts"] == ("1", PRESET, "mine")


@pytest.mark.parametrize(
    ("separation", "field", "reason", "told"),
    [
        ({"shifts": 11}, "shifts", "PRESET_INVALID", "shifts is 11, must be 0 to 10"),
        ({"stem_count": 3}, "stem_count", "PRESET_INVALID", "must be one of 2, 4, 5, 6"),
        ({"engine": "nothing"}, "engine", "ENGINE_UNKNOWN", "no engine 'nothing'"),
        ({"residual": 9}, "residual", "INVALID_ARGUMENT", "9"),
    ],
)
async def test_a_wrong_profile_is_refused_by_its_field(
    mesh: Bench, separation: dict[str, object], field: str, reason: str, told: str
) -> None:
    """Out of range, or an engine that the separator does not have: refused when the job is created, with the field of
    the profile and not of the request, which said nothing.
    """
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(913, custom_preset=preset(**separation))
    assert (caught.value.reason, caught.value.violations[0].field) == (
        reason,
        f"job.custom_preset.separation.{field}",
    )
    assert told in caught.value.message


@pytest.mark.parametrize("fields", [{"preset": "pop"}, {"custom_preset": mixer_service_pb2.Preset(name="mine")}])
async def test_a_profile_that_no_stage_reads_is_refused(mesh: Bench, fields: dict[str, object]) -> None:
    """A job that only separates, with a profile that says nothing of it: OPTIONS_CONFLICT, as for any option that would
    be ignored.
    """
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(915, stages=[messages.STAGE_SEPARATE], **fields)
    assert caught.value.reason == "OPTIONS_CONFLICT"
    assert caught.value.violations[0].field == f"job.{next(iter(fields))}"
