"""Jobs on audio and settings that cannot be used, or only just: each its status and reason, or its defined result.

The mesh is the real one. After every job it serves as before, and neither its spool folder nor its store holds
anything partial.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from outboard.audio.files import FileSpec, encode
from outboard.client import Client, failure
from outboard.errors import InvalidInput, NotFound
from outboard.v1 import job_service_pb2 as v1
from outboard.v1 import master_service_pb2
from tests.integration.job_songs import RATE_HERTZ, run, tone, wav

MASTER_ONLY = [v1.STAGE_MASTER]
pytestmark = pytest.mark.usefixtures("unharmed")


def _with_sample(value: float) -> bytes:
    samples = tone(1.0)
    samples[-1, 1] = value
    return wav(samples)


def _ten_hours() -> bytes:
    """A FLAC file whose header announces ten hours: 36 bits of it are the number of frames."""
    file = io.BytesIO()
    soundfile.write(file, tone(1.0), RATE_HERTZ, format="FLAC")
    data = bytearray(file.getvalue())
    packed = struct.unpack(">Q", data[18:26])[0] >> 36 << 36 | 36_000 * RATE_HERTZ
    data[18:26] = struct.pack(">Q", packed)
    return bytes(data)


def _samples(client: Client, job: v1.Job, name: str) -> NDArray[np.float32]:
    """The samples of an artifact, of shape (frames, channels)."""
    artifact = next(artifact for artifact in job.artifacts if artifact.name.endswith(f"/artifacts/{name}"))
    samples, rate_hertz = soundfile.read(io.BytesIO(client.read(artifact)), dtype="float32", always_2d=True)
    assert rate_hertz == RATE_HERTZ
    return np.asarray(samples)


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "AUDIO_EMPTY"),
    "text": (lambda: b"This is a letter.\n" * 100, "AUDIO_UNREADABLE"),
    "no frames": (lambda: wav(tone(0.0)), "AUDIO_EMPTY"),
    "ten hours": (_ten_hours, "AUDIO_TOO_LONG"),
    "nine channels": (lambda: wav(tone(0.1, channels=9)), "AUDIO_TOO_MANY_CHANNELS"),
    "ten channels": (lambda: wav(tone(0.1, channels=10)), "AUDIO_TOO_MANY_CHANNELS"),
    "4 kHz": (lambda: wav(tone(1.0, 4_000), 4_000), "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "384 kHz": (lambda: wav(tone(0.1, 384_000), 384_000), "AUDIO_SAMPLE_RATE_UNSUPPORTED"),
    "NaN": (lambda: _with_sample(math.nan), "AUDIO_NOT_FINITE"),
    "infinity": (lambda: _with_sample(-math.inf), "AUDIO_NOT_FINITE"),
}


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_unusable_audio(mesh_client: Client, kind: str) -> None:
    """A song that cannot be used fails its job with INVALID_ARGUMENT, the reason of its kind and the field."""
    make, reason = UNUSABLE[kind]
    job = run(mesh_client, make())
    error = failure(job)
    assert isinstance(error, InvalidInput), error
    assert error.reason == reason, error.message
    assert [violation.field for violation in error.violations] == ["job.song.upload"]
    assert not job.artifacts


def test_unusable_stem_is_named(mesh_client: Client) -> None:
    """One unusable stem of several fails the job, and the violation says which one."""
    uploads = [mesh_client.upload(data) for data in (wav(tone(1.0)), _with_sample(math.nan))]
    stems = [v1.StemInput(name=f"stem {index}", upload=upload.name) for index, upload in enumerate(uploads)]
    job = v1.Job(stems=v1.StemsInput(stems=stems), stages=[v1.STAGE_MIX])
    error = failure(mesh_client.wait(mesh_client.create_job(job).name))
    assert error is not None
    assert error.reason == "AUDIO_NOT_FINITE"
    assert [violation.field for violation in error.violations] == ["job.stems.stems[1].upload"]


def test_truncated_mp3(mesh_client: Client, tmp_path: Path) -> None:
    """An MP3 that ends early is done as far as it goes; the report warns TRUNCATED."""
    encode(tmp_path / "song.mp3", [tone(4.0).T.astype(np.float32)], RATE_HERTZ, FileSpec("mp3"))
    data = (tmp_path / "song.mp3").read_bytes()
    job = run(mesh_client, data[: len(data) // 2], stages=MASTER_ONLY)
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert "TRUNCATED" in [warning.code for warning in job.report.warnings]
    frames = _samples(mesh_client, job, "master.wav").shape[0]
    assert frames == job.report.before.frames
    assert 1.5 * RATE_HERTZ < frames < 2.5 * RATE_HERTZ


def test_silence(mesh_client: Client) -> None:
    """Two seconds of silence become a silent master of two seconds: no loudness, which the report says."""
    job = run(mesh_client, wav(np.zeros((2 * RATE_HERTZ, 2))))
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
    job = run(mesh_client, wav(tone(2.0, channels=1)))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    master = _samples(mesh_client, job, "master.wav")
    assert master.shape == (2 * RATE_HERTZ, 2)
    # Each channel has a dither of its own: one step of 24 bits either way.
    assert np.abs(master[:, 0] - master[:, 1]).max() <= 4 * 2.0**-23


def test_direct_current(mesh_client: Client) -> None:
    """A song with an offset of 0.3 loses it."""
    job = run(mesh_client, wav(tone(3.0) * 0.5 + 0.3))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert job.report.before.dc_offset == pytest.approx([0.3, 0.3], abs=0.01)
    offset = np.abs(_samples(mesh_client, job, "master.wav").mean(axis=0)).max()
    assert offset < 0.01, f"an offset of {offset:.4f} is left"


def test_nothing_but_direct_current(mesh_client: Client) -> None:
    """A constant is an ordinary input: a finite master of its length."""
    job = run(mesh_client, wav(np.full((RATE_HERTZ, 2), 0.5)))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    master = _samples(mesh_client, job, "master.wav")
    assert master.shape == (RATE_HERTZ, 2)
    assert np.isfinite(master).all()


def test_three_samples(mesh_client: Client) -> None:
    """Three samples become a master of three samples; nothing can be measured on them."""
    job = run(mesh_client, wav(np.array([[0.5, 0.5], [-0.5, -0.5], [0.25, 0.25]])))
    assert job.state == v1.Job.STATE_SUCCEEDED, failure(job)
    assert _samples(mesh_client, job, "master.wav").shape == (3, 2)
    assert not job.report.after.HasField("integrated_lufs")


@pytest.mark.parametrize("seconds", [6.0, 1.0])
def test_unsuitable_reference(mesh_client: Client, seconds: float) -> None:
    """A reference that is silent, or too short, fails the job with REFERENCE_UNSUITABLE."""
    data = wav(np.zeros((round(seconds * RATE_HERTZ), 2)) if seconds > 5.0 else tone(seconds))
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    reference = mesh_client.upload(data)
    job = run(mesh_client, wav(tone(1.5)), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    error = failure(job)
    assert isinstance(error, InvalidInput)
    assert error.reason == "REFERENCE_UNSUITABLE", error.message


@pytest.mark.parametrize("kind", list(UNUSABLE))
def test_unusable_reference(mesh_client: Client, kind: str) -> None:
    """A reference that cannot be decoded has the reason that a song has, told of the reference."""
    make, reason = UNUSABLE[kind]
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    reference = mesh_client.upload(make())
    job = run(mesh_client, wav(tone(1.5)), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    error = failure(job)
    assert isinstance(error, InvalidInput)
    assert error.reason == reason, error.message
    assert error.violations[0].field == "job.references[0]"


def test_mono_reference(mesh_client: Client) -> None:
    """A mono reference at another rate is followed: the song comes to its loudness."""
    time_s = np.arange(6 * 44_100) / 44_100
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * time_s) for hertz in (82.0, 220.0, 554.0, 1_320.0, 5_000.0))
    pulses = 0.4 + 0.6 * np.exp(-((time_s * 3) % 1) * 5)
    reference = mesh_client.upload(wav((chord * pulses)[:, None], 44_100))
    generator = np.random.default_rng(1)
    song = (
        0.05 * generator.standard_normal((6 * RATE_HERTZ, 2)) * (1.0 + np.sin(np.arange(6 * RATE_HERTZ) / 9e3))[:, None]
    )
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    job = run(mesh_client, wav(song), stages=MASTER_ONLY, mastering=settings, references=[reference.name])
    assert job.state == v1.Job.STATE_SUCCEEDED, job.error
    (heard,) = job.report.mastering.plan.match.references
    assert heard.followed
    assert job.report.mastering.target_reached, job.report.mastering.target_missed_reason
    assert job.report.mastering.after.integrated_lufs == pytest.approx(heard.integrated_lufs, abs=0.1)


def test_missing_reference(mesh_client: Client) -> None:
    """A reference that was never uploaded is NOT_FOUND when the job is created, with its field."""
    settings = master_service_pb2.MasterSettings(intent=master_service_pb2.MASTER_INTENT_REFERENCE)
    with pytest.raises(NotFound) as caught:
        run(mesh_client, wav(tone(1.0)), mastering=settings, references=["uploads/none"])
    assert caught.value.violations[0].field == "job.references[0]"
