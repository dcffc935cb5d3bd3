"""Whole jobs whose separation is computed by the real Triton server, which dies under them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("outboard.models.htdemucs.network")

from outboard.audio.wave_header import HEADER_BYTES
from outboard.models.triton_server import TritonServer
from outboard.settings import Settings, TritonSettings
from outboard.testing import in_process
from outboard.v1 import job_service_pb2 as messages
from outboard.v1 import separator_service_pb2
from services.separator import __main__ as separator_main
from tests.integration.orchestrator_bench import Bench, artifact_of, bench, noise_file
from tests.integration.triton_toys import needs_triton
from tests.tiny_models import write_models

pytestmark = needs_triton
Job = messages.Job

_REPOSITORY = Path(__file__).resolve().parents[2] / "services" / "separator" / "model_repository"
_SONG_SECONDS = 24.0
_STEMS = ("vocals", "drums", "bass", "other")
_AGAIN = "a stage is tried again"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TritonServer]:
    """A server with small seeded weights of htdemucs."""
    write_models(tmp_path / "models", ("htdemucs",))
    variables = {"OUTBOARD_MODELS": str(tmp_path / "models"), "OMP_NUM_THREADS": "1"}
    with TritonServer(
        _REPOSITORY, tmp_path / "log", models=["htdemucs"], environment=variables, exit_seconds=5
    ) as running:
        yield running


@pytest.fixture
def attempts(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the orchestrator logs."""
    caplog.set_level(logging.INFO, logger="services.orchestrator")
    return caplog


def _reasons(attempts: pytest.LogCaptureFixture) -> list[str]:
    """Why a stage was tried again, each time."""
    return [getattr(record, "reason", "") for record in attempts.records if record.message == _AGAIN]


@asynccontextmanager
async def _mesh(server: TritonServer, folder: Path) -> AsyncIterator[Bench]:
    """The real separator on that server, with few windows on their way, and toys for the other stages."""
    triton = TritonSettings(address=server.address, in_flight=2, restart_seconds=0.5)
    settings = Settings(triton=triton)
    async with (
        in_process(separator_main.build(settings), settings) as separator,
        bench(folder, separator=separator.address) as mesh,
    ):
        yield mesh


async def _separating(mesh: Bench, seed: int) -> messages.Job:
    """A whole job on a song, when the first stems of it have come."""
    settings = separator_service_pb2.SeparationSettings(engine="htdemucs")
    job = await mesh.job(seed, _SONG_SECONDS, separation=settings)
    while not job.progress[0].fraction:
        await asyncio.sleep(0.05)
        job = await mesh.client.get_job(job.name)
        assert job.state in (Job.STATE_PENDING, Job.STATE_SEPARATING), job.error.message
    assert job.progress[0].fraction < 0.9, "no song to interrupt"
    return job


async def _assert_stems_are_whole(mesh: Bench, job: messages.Job, seed: int) -> None:
    """Every stem has the song's length, and they sum to it."""
    song = np.frombuffer(noise_file(seed, _SONG_SECONDS)[HEADER_BYTES:], "<f4")
    total = np.zeros_like(song)
    for name in _STEMS:
        content = await mesh.client.read(artifact_of(job, f"stems/{name}.wav"))
        total += np.frombuffer(content[HEADER_BYTES:], "<f4")
    error_db = 20 * np.log10(max(float(np.max(np.abs(total - song))), 1e-12))
    assert error_db < -90, f"{error_db:.1f} dBFS"


@pytest.mark.asyncio
async def test_a_job_whose_server_dies_for_good_fails_with_its_reason_and_without_stems(
    server: TritonServer, tmp_path: Path, attempts: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of a song, and no server comes back: the lost server is told, then that there is none; the
    job fails with that reason, leaves no artifact and no stem in the store, and reports no separation.
    """
    monkeypatch.setattr("services.orchestrator.job_context.RETRY_DELAYS_SECONDS", (0.2, 0.2))
    async with _mesh(server, tmp_path / "store") as mesh:
        job = await _separating(mesh, 920)
        await asyncio.to_thread(server.kill)
        ended = await mesh.client.wait(job.name)
        assert ended.state == Job.STATE_FAILED
        assert _reasons(attempts) == ["MODEL_SERVER_LOST", "MODEL_SERVER_UNAVAILABLE"]
        assert "there is no model server at its address" in ended.error.message
        assert mesh.behaviour.calls == {}, "a later stage was asked although there are no stems"
        assert not ended.artifacts
        assert not ended.report.HasField("separation")
        assert [path.name for path in (tmp_path / "store").rglob("*vocals*")] == []


@pytest.mark.asyncio
async def test_a_job_recovers_when_its_server_is_back(
    server: TritonServer, tmp_path: Path, attempts: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle of a song, and the server comes back later than a window waits for it: the separation is
    tried again as a whole until it is there, the job succeeds, and its stems sum to the song.
    """
    monkeypatch.setattr("services.orchestrator.job_context.RETRY_DELAYS_SECONDS", (0.5,) * 200)
    async with _mesh(server, tmp_path / "store") as mesh:
        job = await _separating(mesh, 921)
        await asyncio.to_thread(server.kill)
        while "MODEL_SERVER_UNAVAILABLE" not in _reasons(attempts):
            await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        ended = await mesh.client.wait(job.name)
        assert ended.state == Job.STATE_SUCCEEDED, ended.error.message
        assert _reasons(attempts)[0] == "MODEL_SERVER_LOST"
        assert ended.report.separation.engine.backend == "triton"
        await _assert_stems_are_whole(mesh, ended, 921)
