"""Sound profiles of a caller's own, sent with a job: resolved as those that come with Outboard are, or refused."""

from __future__ import annotations

import pytest

from outboard import presets
from outboard.errors import AlreadyExists, InvalidInput
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import mixer_service_pb2
from tests.integration.orchestrator_bench import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")
Job = messages.Job
Preset = mixer_service_pb2.Preset


async def test_numbers_lie_over_the_named_profile(mesh: Bench) -> None:
    """A job's own numbers take the place of the named profile's, all others stay, and the job keeps both to be read."""
    custom = Preset(name="mine", values={"mix.mud_cut_db": 1.5})
    job = await mesh.job(1, preset="acoustic", custom_preset=custom)
    expected = presets.load("acoustic").values | {"mix.mud_cut_db": 1.5}
    assert dict(job.resolved_preset.values) == expected
    assert job.resolved_preset.name == "mine"
    assert job.custom_preset == custom
    assert (await mesh.client.wait(job.name)).state == Job.STATE_SUCCEEDED


async def test_unnamed_numbers_are_called_like_their_base(mesh: Bench) -> None:
    """Numbers without a name or a base lie over the default profile and take its name."""
    job = await mesh.job(1, custom_preset=Preset(values={"master.correction": 0.2}))
    assert job.resolved_preset.name == presets.BASE_NAME
    assert job.resolved_preset.values["master.correction"] == 0.2
    await mesh.client.wait(job.name)


@pytest.mark.parametrize(
    ("values", "field", "told"),
    [
        ({"mix.mud_cut": 1.0}, "job.custom_preset.values[mix.mud_cut]", "did you mean 'mix.mud_cut_db'"),
        ({"mix.mud_cut_db": 9.0}, "job.custom_preset.values[mix.mud_cut_db]", "is 9, must be 0 to 3 dB"),
        ({"mix.mud_cut_db": float("nan")}, "job.custom_preset.values[mix.mud_cut_db]", "must be 0 to 3 dB"),
        ({f"mix.{index}": 1.0 for index in range(1000)}, "job.custom_preset.values", "sets at most"),
        ({"m" * 1000: 1.0}, "job.custom_preset.values", "at most 200 characters"),
    ],
)
async def test_wrong_numbers_are_refused(mesh: Bench, values: dict[str, float], field: str, told: str) -> None:
    """A key that there is not, and a number out of its range, are PRESET_INVALID with the nearest key or the range."""
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(1, custom_preset=Preset(name="mine", values=values))
    assert caught.value.reason == "PRESET_INVALID"
    assert caught.value.violations[0].field == field
    assert told in caught.value.message


async def test_every_wrong_number_is_told(mesh: Bench) -> None:
    """Two wrong numbers are two violations in one answer."""
    with pytest.raises(InvalidInput) as caught:
        await mesh.job(1, custom_preset=Preset(values={"mix.mud_cut_db": 9.0, "master.correction": -1.0}))
    assert len(caught.value.violations) == 2


async def test_name_for_reports_is_held_to_be_one(mesh: Bench) -> None:
    """A preset's name is short and printable: it stands in reports and logs."""
    for name in ("x" * 101, "two\nlines"):
        with pytest.raises(InvalidInput) as caught:
            await mesh.job(1, custom_preset=Preset(name=name))
        assert caught.value.violations[0].field == "job.custom_preset.name"


async def test_other_numbers_are_another_job(mesh: Bench) -> None:
    """The same request id with other numbers is refused: it is not the same job."""
    upload = await mesh.upload(2)
    song = messages.SongInput(upload=upload.name)
    job = await mesh.client.create_job(Job(song=song), request_id="numbers")
    custom = Preset(values={"mix.mud_cut_db": 1.5})
    with pytest.raises(AlreadyExists):
        await mesh.client.create_job(Job(song=song, custom_preset=custom), request_id="numbers")
    await mesh.client.wait(job.name)
