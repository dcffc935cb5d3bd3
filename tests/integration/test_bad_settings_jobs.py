"""Jobs that ask for what cannot be: each refused when it is created, with its reason and the field's whole path.

The mesh is the real one, and serves as before after every job.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from outboard.client import Client
from outboard.errors import InvalidInput
from outboard.v1 import job_service_pb2 as v1
from outboard.v1 import master_service_pb2, mixer_service_pb2, restorer_service_pb2, separator_service_pb2
from tests.integration.job_songs import run, tone, wav

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

MASTER_ONLY = [v1.STAGE_MASTER]
pytestmark = pytest.mark.usefixtures("unharmed")


def _delivering(**spec: Any) -> master_service_pb2.MasterSettings:
    return master_service_pb2.MasterSettings(
        deliverables=[master_service_pb2.DeliverableSpec(**{"name": "master", **spec})]
    )


WRONG_SETTINGS: dict[str, tuple[dict[str, Any], str, str]] = {
    "separator engine": (
        {"separation": separator_service_pb2.SeparationSettings(engine="../x")},
        "ENGINE_UNKNOWN",
        "job.separation.engine",
    ),
    "restorer engine": (
        {
            "stages": [v1.STAGE_RESTORE],
            "restoration": restorer_service_pb2.RestorationSettings(
                steps=[restorer_service_pb2.RestorationStep(engine="none")]
            ),
        },
        "ENGINE_UNKNOWN",
        "job.restoration.steps[0].engine",
    ),
    "mixer engine": (
        {"stages": [v1.STAGE_MIX], "mix": mixer_service_pb2.MixSettings(engine="none")},
        "ENGINE_UNKNOWN",
        "job.mix.engine",
    ),
    "master engine": (
        {"stages": MASTER_ONLY, "mastering": master_service_pb2.MasterSettings(engine="none")},
        "ENGINE_UNKNOWN",
        "job.mastering.engine",
    ),
    "three stems": (
        {"separation": separator_service_pb2.SeparationSettings(stem_count=3)},
        "INVALID_ARGUMENT",
        "job.separation.stem_count",
    ),
    "overlap": (
        {"separation": separator_service_pb2.SeparationSettings(overlap=0.9)},
        "INVALID_ARGUMENT",
        "job.separation.overlap",
    ),
    "restoration amount": (
        {
            "restoration": restorer_service_pb2.RestorationSettings(
                steps=[restorer_service_pb2.RestorationStep(engine="repair", amount=2.0)]
            )
        },
        "INVALID_ARGUMENT",
        "job.restoration.steps[0].amount",
    ),
    "side gain": (
        {"mix": mixer_service_pb2.MixSettings(width_cap=3.0)},
        "INVALID_ARGUMENT",
        "job.mix.width_cap",
    ),
    "unknown processor": (
        {"mix": mixer_service_pb2.MixSettings(bypass=["chorus of angels"])},
        "INVALID_ARGUMENT",
        "job.mix.bypass",
    ),
    "target": (
        {"stages": MASTER_ONLY, "mastering": master_service_pb2.MasterSettings(target_lufs=-4.0)},
        "INVALID_ARGUMENT",
        "job.mastering.target_lufs",
    ),
    "target NaN": (
        {"stages": MASTER_ONLY, "mastering": master_service_pb2.MasterSettings(target_lufs=math.nan)},
        "INVALID_ARGUMENT",
        "job.mastering.target_lufs",
    ),
    "ceiling": (
        {"stages": MASTER_ONLY, "mastering": master_service_pb2.MasterSettings(ceiling_dbtp=0.1)},
        "INVALID_ARGUMENT",
        "job.mastering.ceiling_dbtp",
    ),
    "float flac": (
        {
            "stages": MASTER_ONLY,
            "mastering": _delivering(
                container=master_service_pb2.CONTAINER_FLAC, bit_depth=master_service_pb2.BIT_DEPTH_32F
            ),
        },
        "INVALID_ARGUMENT",
        "job.mastering.deliverables[0].bit_depth",
    ),
    "mp3 of 16 bits": (
        {
            "stages": MASTER_ONLY,
            "mastering": _delivering(
                container=master_service_pb2.CONTAINER_MP3, bit_depth=master_service_pb2.BIT_DEPTH_16
            ),
        },
        "OPTIONS_CONFLICT",
        "job.mastering.deliverables[0].bit_depth",
    ),
    "wav of 320 kbit/s": (
        {"stages": MASTER_ONLY, "mastering": _delivering(bitrate_kbps=320)},
        "OPTIONS_CONFLICT",
        "job.mastering.deliverables[0].bitrate_kbps",
    ),
    "two files of one name": (
        {
            "stages": MASTER_ONLY,
            "mastering": master_service_pb2.MasterSettings(
                deliverables=[
                    master_service_pb2.DeliverableSpec(name="master"),
                    master_service_pb2.DeliverableSpec(name="master", bit_depth=master_service_pb2.BIT_DEPTH_16),
                ]
            ),
        },
        "OPTIONS_CONFLICT",
        "job.mastering.deliverables",
    ),
    "a target of 0 LUFS": (
        {"stages": MASTER_ONLY, "mastering": master_service_pb2.MasterSettings(target_lufs=0.0)},
        "INVALID_ARGUMENT",
        "job.mastering.target_lufs",
    ),
    "mp3 at 96 kHz": (
        {
            "stages": MASTER_ONLY,
            "mastering": _delivering(container=master_service_pb2.CONTAINER_MP3, sample_rate_hertz=96_000),
        },
        "INVALID_ARGUMENT",
        "job.mastering.deliverables[0].sample_rate_hertz",
    ),
    "no reference": (
        {
            "stages": MASTER_ONLY,
            "mastering": master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE),
        },
        "REFERENCE_UNSUITABLE",
        "job.references",
    ),
}


@pytest.mark.parametrize("kind", list(WRONG_SETTINGS))
def test_wrong_settings(mesh_client: Client, kind: str) -> None:
    """A setting that a stage cannot follow is refused when the job is created, whichever stage it is: INVALID_ARGUMENT,
    its reason, and the field's whole path; no job is left."""
    fields, reason, field = WRONG_SETTINGS[kind]
    whole_way = {name: value for name, value in fields.items() if name != "stages"}
    before = [job.name for job in mesh_client.list_jobs()]
    for asked in (fields, whole_way):
        with pytest.raises(InvalidInput) as caught:
            run(mesh_client, wav(tone(1.0)), **asked)
        assert caught.value.reason == reason, caught.value.message
        assert caught.value.violations[0].field == field
    assert [job.name for job in mesh_client.list_jobs()] == before


def test_wrong_settings_of_several_stages(mesh_client: Client) -> None:
    """Everything that is wrong is told at once, whichever stages it concerns."""
    with pytest.raises(InvalidInput) as caught:
        run(
            mesh_client,
            wav(tone(1.0)),
            mix=mixer_service_pb2.MixSettings(engine="none"),
            mastering=master_service_pb2.MasterSettings(target_lufs=-4.0, ceiling_dbtp=3.0),
        )
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"job.mix.engine", "job.mastering.target_lufs", "job.mastering.ceiling_dbtp"}


def test_unknown_preset(mesh_client: Client) -> None:
    """A preset that does not exist is PRESET_UNKNOWN when the job is created, and the nearest one is suggested."""
    with pytest.raises(InvalidInput, match="did you mean 'electronic'") as caught:
        run(mesh_client, wav(tone(1.0)), preset="electronik")
    assert caught.value.reason == "PRESET_UNKNOWN"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"stages": [v1.STAGE_SEPARATE]}, "job.stages"),
        ({"stages": [v1.STAGE_MASTER]}, "job.stages"),
        ({"stages": [v1.STAGE_RESTORE, v1.STAGE_MASTER]}, "job.stages"),
        ({"stages": [99]}, "job.stages"),
    ],
)
def test_stages_that_do_not_fit_stems(mesh_client: Client, fields: dict[str, Any], field: str) -> None:
    """Stems are neither separated nor mastered unmixed, and a gap or an unknown stage is refused."""
    upload = mesh_client.upload(wav(tone(1.0)))
    stems = v1.StemsInput(stems=[v1.StemInput(name="a", upload=upload.name)])
    with pytest.raises(InvalidInput) as caught:
        mesh_client.create_job(v1.Job(stems=stems, **fields))
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("tenant", ["../x", "..", "a/b", "A", "x" * 64, "-a"])
def test_hostile_tenants(served_mesh: ServedMesh, tenant: str) -> None:
    """A tenant's name that could mean something to a file system is TENANT_INVALID, whatever is called."""
    before = sorted(path.name for path in served_mesh.store.iterdir())
    with Client(served_mesh.address, tenant=tenant) as client:
        for call in (lambda: client.upload(b"x"), lambda: client.get_job("jobs/x"), lambda: next(client.list_jobs())):
            with pytest.raises(InvalidInput) as caught:
                call()
            assert caught.value.reason == "TENANT_INVALID"
    assert sorted(path.name for path in served_mesh.store.iterdir()) == before
