"""Jobs on audio and settings that cannot be used, or only just: each its status and reason, or its defined result.

The mesh is the real one. After every job it serves as before, and neither its spool folder nor its store holds
anything partial.
"""

from __future__ import annotations

import io
import math
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from outboard.audio.files import FileSpec, encode
from outboard.client import Client, failure
from outboard.errors import InvalidInput, NotFound
from outboard.v1 import job_service_pb2 as v1
from outboard.v1 import master_service_pb2, mixer_service_pb2, restorer_service_pb2, separator_service_pb2

if TYPE_CHECKING:
    from tests.conftest import ServedMesh

RATE_HERTZ = 48_000
MASTER_ONLY = [v1.STAGE_MASTER]
Samples = NDArray[np.floating[Any]]


@pytest.fixture(autouse=True)
def unharmed(served_mesh: ServedMesh, mesh_client: Client) -> Iterator[None]:
    """After the test the mesh answers, and nothing partial is left (stages tidy up a moment after they answered)."""
    yield
    next(mesh_client.list_jobs(page_size=1), None)
    deadline = time.monotonic() + 5.0
    while left := [*served_mesh.spool.iterdir(), *(served_mesh.store / "partial").iterdir()]:
        assert time.monotonic() < deadline, f"left behind: {[path.name for path in left]}"
        time.sleep(0.05)


def _tone(seconds: float, rate_hertz: int = RATE_HERTZ, channels: int = 2) -> Samples:
    wave = 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(round(seconds * rate_hertz)) / rate_hertz)
    return np.repeat(wave[:, None], channels, axis=1)


def _wav(samples: Samples, rate_hertz: int = RATE_HERTZ, subtype: str = "FLOAT") -> bytes:
    """A file of samples of shape (frames, channels)."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hertz, subtype=subtype, format="WAV")
    return file.getvalue()


def _with_sample(value: float) -> bytes:
    samples = _tone(1.0)
    samples[-1, 1] = value
    return _wav(samples)


def _ten_hours() -> bytes:
    """A FLAC file whose header announces ten hours: 36 bits of it are the number of frames."""
    file = io.BytesIO()
    soundfile.write(file, _tone(1.0), RATE_HERTZ, format="FLAC")
    data = bytearray(file.getvalue())
    packed = struct.unpack(">Q", data[18:26])[0] >> 36 << 36 | 36_000 * RATE_HERTZ
    data[18:26] = struct.pack(">Q", packed)
    return bytes(data)


def _run(client: Client, data: bytes, **fields: Any) -> v1.Job:
    upload = client.upload(data)
    job = v1.Job(song=v1.SongInput(upload=upload.name, file_name="../../../etc/song.wav"), **fields)
    return client.wait(client.create_job(job).name)


def _samples(client: Client, job: v1.Job, name: str) -> NDArray[np.float32]:
    """The samples of an artifact, of shape (frames, channels)."""
    artifact = next(artifact for artifact in job.artifacts if artifact.name.endswith(f"/artifacts/{name}"))
    samples, rate_hertz = soundfile.read(io.BytesIO(client.read(artifact)), dtype="float32", always_2d=True)
    assert rate_hertz == RATE_HERTZ
    return np.asarray(samples)


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "AUDIO_EMPTY"),
    "text": (lambda: b"This is a letter.\n" * 100, "AUDIO_UNREADABLE"),
    "no frames": (lambda: _wav(_tone(0.0)), "AUDIO_EMPTY"),
    "ten hours": (_ten_hours, "AUDIO_TOO_LONG"),
    "nine channels": (lambda: _wav(_tone(0.1, channels=9)), "AUDIO_TOO_MANY_CHANNELS"),
    "ten channels": (lambda: _wav(_tone(0.1, channels=10)), "AUDIO_TOO_MANY_CHANNELS"),
    "4 kHz": (lambda: _wav(_tone(1.0, 4_000), 4_000), "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "384 kHz": (lambda: _wav(_tone(0.1, 384_000), 384_000), "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "NaN": (lambda: _with_sample(math.nan), "AUDIO_NOT_FINITE"),
    "infinity": (lambda: _with_sample(-math.inf), "AUDIO_NOT_FINITE"),
}


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_unusable_audio(mesh_client: Client, kind: str) -> None:
    """A song that cannot be used fails its job with INVALID_ARGUMENT, the reason of its kind and the field."""
    make, reason = UNUSABLE[kind]
    job = _run(mesh_client, make())
    error = failure(job)
    assert isinstance(error, InvalidInput), error
    assert error.reason == reason, error.message
    assert [violation.field for violation in error.violations] == ["job.song.upload"]
    assert not job.artifacts


def test_unusable_stem_is_named(mesh_client: Client) -> None:
    """One unusable stem of several fails the job, and the violation says which one."""
    uploads = [mesh_client.upload(data) for data in (_wav(_tone(1.0)), _with_sample(math.nan))]
    stems = [v1.StemInput(name=f"stem {index}", upload=upload.name) for index, upload in enumerate(uploads)]
    job = v1.Job(stems=v1.StemsInput(stems=stems), stages=[v1.STAGE_MIX])
    error = failure(mesh_client.wait(mesh_client.create_job(job).name))
    assert error is not None
    assert error.reason == "AUDIO_NOT_FINITE"
    assert [violation.field for violation in error.violations] == ["job.stems.stems[1].upload"]


def test_truncated_mp3(mesh_client: Client, tmp_path: Path) -> None:
    """An MP3 that ends early is done as far as it goes; the report warns TRUNCATED."""
    encode(tmp_path / "song.mp3", [_tone(4.0).T.astype(np.float32)], RATE_HERTZ, FileSpec("mp3"))
    data = (tmp_path / "song.mp3").read_bytes()
    job = _run(mesh_client, data[: len(data) // 2], stages=MASTER_ONLY)
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert "TRUNCATED" in [warning.code for warning in job.report.warnings]
    frames = _samples(mesh_client, job, "master.wav").shape[0]
    assert frames == job.report.before.frames
    assert 1.5 * RATE_HERTZ < frames < 2.5 * RATE_HERTZ


def test_silence(mesh_client: Client) -> None:
    """Two seconds of silence become a silent master of two seconds: no loudness, which the report says."""
    job = _run(mesh_client, _wav(np.zeros((2 * RATE_HERTZ, 2))))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    master = _samples(mesh_client, job, "master.wav")
    assert master.shape == (2 * RATE_HERTZ, 2)
    assert np.abs(master).max() < 1e-6, f"peak {np.abs(master).max():.2e}"
    for analysis in (job.report.before, job.report.after):
        assert not analysis.HasField("integrated_lufs")
    assert not job.report.mastering.target_reached
    assert not job.report.mastering.plan.HasField("target_lufs"), "there is no loudness to aim at"
    assert "NO_LOUDNESS_TARGET" in [warning.code for warning in job.report.warnings], job.report.warnings


def test_mono(mesh_client: Client) -> None:
    """A mono song becomes a master with two equal channels."""
    job = _run(mesh_client, _wav(_tone(2.0, channels=1)))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    master = _samples(mesh_client, job, "master.wav")
    assert master.shape == (2 * RATE_HERTZ, 2)
    # Each channel has a dither of its own: one step of 24 bits either way.
    assert np.abs(master[:, 0] - master[:, 1]).max() <= 4 * 2.0**-23


def test_direct_current(mesh_client: Client) -> None:
    """A song with an offset of 0.3 loses it."""
    job = _run(mesh_client, _wav(_tone(3.0) * 0.5 + 0.3))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert job.report.before.dc_offset == pytest.approx([0.3, 0.3], abs=0.01)
    offset = np.abs(_samples(mesh_client, job, "master.wav").mean(axis=0)).max()
    assert offset < 0.01, f"an offset of {offset:.4f} is left"


def test_nothing_but_direct_current(mesh_client: Client) -> None:
    """A constant is an ordinary input: a finite master of its length."""
    job = _run(mesh_client, _wav(np.full((RATE_HERTZ, 2), 0.5)))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    master = _samples(mesh_client, job, "master.wav")
    assert master.shape == (RATE_HERTZ, 2)
    assert np.isfinite(master).all()


def test_three_samples(mesh_client: Client) -> None:
    """Three samples become a master of three samples; nothing can be measured on them."""
    job = _run(mesh_client, _wav(np.array([[0.5, 0.5], [-0.5, -0.5], [0.25, 0.25]])))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert _samples(mesh_client, job, "master.wav").shape == (3, 2)
    assert not job.report.after.HasField("integrated_lufs")


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
            _run(mesh_client, _wav(_tone(1.0)), **asked)
        assert caught.value.reason == reason, caught.value.message
        assert caught.value.violations[0].field == field
    assert [job.name for job in mesh_client.list_jobs()] == before


def test_wrong_settings_of_several_stages(mesh_client: Client) -> None:
    """Everything that is wrong is told at once, whichever stages it concerns."""
    with pytest.raises(InvalidInput) as caught:
        _run(
            mesh_client,
            _wav(_tone(1.0)),
            mix=mixer_service_pb2.MixSettings(engine="none"),
            mastering=master_service_pb2.MasterSettings(target_lufs=-4.0, ceiling_dbtp=3.0),
        )
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"job.mix.engine", "job.mastering.target_lufs", "job.mastering.ceiling_dbtp"}


@pytest.mark.parametrize("seconds", [6.0, 1.0])
def test_unsuitable_reference(mesh_client: Client, seconds: float) -> None:
    """A reference that is silent, or too short, fails the job with REFERENCE_UNSUITABLE."""
    data = _wav(np.zeros((round(seconds * RATE_HERTZ), 2)) if seconds > 5.0 else _tone(seconds))
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    reference = mesh_client.upload(data)
    job = _run(mesh_client, _wav(_tone(1.5)), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    error = failure(job)
    assert isinstance(error, InvalidInput)
    assert error.reason == "REFERENCE_UNSUITABLE", error.message


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_unusable_reference(mesh_client: Client, kind: str) -> None:
    """A reference that cannot be decoded has the reason that a song has, told of the reference."""
    make, reason = UNUSABLE[kind]
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    reference = mesh_client.upload(make())
    job = _run(mesh_client, _wav(_tone(1.5)), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    error = failure(job)
    assert isinstance(error, InvalidInput)
    assert error.reason == reason, error.message
    assert error.violations[0].field == "job.references[0]"


def test_mono_reference(mesh_client: Client) -> None:
    """A mono reference at another rate is followed: the song comes to its loudness."""
    time_s = np.arange(6 * 44_100) / 44_100
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * time_s) for hertz in (82.0, 220.0, 554.0, 1_320.0, 5_000.0))
    pulses = 0.4 + 0.6 * np.exp(-((time_s * 3) % 1) * 5)
    reference = mesh_client.upload(_wav((chord * pulses)[:, None], 44_100))
    generator = np.random.default_rng(1)
    song = (
        0.05 * generator.standard_normal((6 * RATE_HERTZ, 2)) * (1.0 + np.sin(np.arange(6 * RATE_HERTZ) / 9e3))[:, None]
    )
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    job = _run(mesh_client, _wav(song), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    assert job.state == v1.Job.STATE_SUCCEEDED, job.error
    (heard,) = job.report.mastering.plan.match.references
    assert heard.followed
    assert job.report.mastering.target_reached, job.report.mastering.target_missed_reason
    assert job.report.mastering.after.integrated_lufs == pytest.approx(heard.integrated_lufs, abs=0.1)


def test_missing_reference(mesh_client: Client) -> None:
    """A reference that was never uploaded is NOT_FOUND when the job is created, with its field."""
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    with pytest.raises(NotFound) as caught:
        _run(mesh_client, _wav(_tone(1.0)), mastering=settings, references=["uploads/none"])
    assert caught.value.violations[0].field == "job.references[0]"


def test_unknown_preset(mesh_client: Client) -> None:
    """A preset that does not exist is PRESET_UNKNOWN when the job is created, and the nearest one is suggested."""
    with pytest.raises(InvalidInput, match="did you mean 'electronic'") as caught:
        _run(mesh_client, _wav(_tone(1.0)), preset="electronik")
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
    upload = mesh_client.upload(_wav(_tone(1.0)))
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
