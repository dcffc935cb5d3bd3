"""Whole songs through the separator's engine and the real Triton server, with faults on the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
network = pytest.importorskip("outboard.models.htdemucs.network")

from outboard.errors import OutboardError  # noqa: E402 - torch may be absent
from outboard.models.htdemucs.variants import FOUR_SOURCES, VARIANTS  # noqa: E402
from outboard.models.triton_server import TritonServer  # noqa: E402
from outboard.settings import Settings, TritonSettings  # noqa: E402
from services.separator.deployment import engines  # noqa: E402
from services.separator.engines import Audio, Engine, SeparationReport, SeparationSettings, SongFacts  # noqa: E402
from services.separator.separate import list_engines, separate  # noqa: E402
from tests.integration.triton_toys import model_process, needs_triton, statistics  # noqa: E402

pytestmark = needs_triton

_REPOSITORY = Path(__file__).resolve().parents[2] / "services" / "separator" / "model_repository"
_RATE_HERTZ = 44_100
_SETTINGS = SeparationSettings(engine="htdemucs")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server with small seeded weights of htdemucs, and of no other model."""
    folder = tmp_path_factory.mktemp("triton")
    weights = folder / "models" / "htdemucs" / f"{VARIANTS['htdemucs'].signature}.safetensors"
    weights.parent.mkdir(parents=True)
    network.save(network.seeded(FOUR_SOURCES, 3, network.TINY), weights)
    variables = {"OUTBOARD_MODELS": str(folder / "models"), "OMP_NUM_THREADS": "1"}
    with TritonServer(
        _REPOSITORY, folder / "log", models=["htdemucs"], environment=variables, exit_seconds=5
    ) as running:
        yield running


def _engines(server: TritonServer, restart_seconds: float) -> Mapping[str, Engine]:
    return engines(Settings(triton=TritonSettings(address=server.address, restart_seconds=restart_seconds)))


def _song(seconds: int) -> Audio:
    return np.random.default_rng(0).uniform(-0.4, 0.4, (2, seconds * _RATE_HERTZ)).astype(np.float32)


class _Listener:
    """Separates a song, and says when its first stems have come."""

    def __init__(self, known: Mapping[str, Engine]) -> None:
        self._known = known
        self.has_begun = threading.Event()
        self.frames = 0

    def run(self, song: Audio) -> tuple[dict[str, Audio], SeparationReport]:
        facts = SongFacts(mean=0.0, deviation=float(np.std(song)))
        stream = separate([song], _RATE_HERTZ, _SETTINGS, facts, frames=song.shape[1], engines=self._known)
        pieces: list[dict[str, Audio]] = []
        while True:
            try:
                pieces.append(next(stream))
            except StopIteration as end:
                stems = {name: np.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]}
                return stems, end.value
            self.frames += next(iter(pieces[-1].values())).shape[1]
            self.has_begun.set()


def test_songs_survive_a_crash_of_the_model_and_share_its_batches(server: TritonServer) -> None:
    """Two songs at once are in common batches; when the model's process is killed under them, both are finished by its
    successor, and sound as if nothing had happened.
    """
    known = _engines(server, 30.0)
    song = _song(14)
    listeners = [_Listener(known), _Listener(known)]
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(listener.run, song) for listener in listeners]
        assert listeners[0].has_begun.wait(60)
        first = statistics(server, "htdemucs")
        os.kill(model_process(server, "htdemucs"), signal.SIGKILL)
        (one, report), (other, _) = [job.result(timeout=110) for job in running]
    second = statistics(server, "htdemucs")
    windows = first.inference_count + second.inference_count
    executions = first.execution_count + second.execution_count
    assert executions < windows, f"{executions} executions for {windows} windows"
    assert (report.engine.name, report.engine.backend, report.engine.precision) == ("htdemucs", "triton", "fp32")
    residual_db = 20 * np.log10(np.max(np.abs(sum(one.values()) - song)))
    assert residual_db < -90, f"{residual_db:.1f} dBFS"
    for name, stem in one.items():
        distance_db = 20 * np.log10(max(float(np.max(np.abs(stem - other[name]))), 1e-9))
        assert distance_db < -100, f"{name}: {distance_db:.1f} dBFS between two runs in different batches"


def test_engines_without_weights_on_the_server_are_listed_with_the_reason(server: TritonServer) -> None:
    """The engine whose weights the server lacks is listed as unavailable with MODEL_WEIGHTS_MISSING, the other one as
    available and with the digest of the server's weights and the precision of its configuration: a job that names none
    gets one that works, and results are named after what computes them.
    """
    known = _engines(server, 30.0)
    infos = {info.name: info for info in list_engines(known)}
    assert infos["htdemucs_ft"].unavailable_error == "MODEL_WEIGHTS_MISSING"
    assert "outboard models pull htdemucs_ft" in infos["htdemucs_ft"].unavailable_reason
    assert infos["htdemucs"].available
    assert len(infos["htdemucs"].weights_digest) == 64
    assert infos["htdemucs"].precision == "fp32"


def test_a_server_that_dies_ends_the_song_with_an_error(server: TritonServer) -> None:
    """When the server dies in the middle of a song and does not come back, the song fails with MODEL_SERVER_LOST: there
    is no report, and the frames that came are fewer than the song's.
    """
    known = _engines(server, 1.5)
    song = _song(36)
    listener = _Listener(known)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(listener.run, song)
        assert listener.has_begun.wait(60)
        server.kill()
        error = running.exception(timeout=60)
    assert isinstance(error, OutboardError)
    assert error.reason == "MODEL_SERVER_LOST"
    assert listener.frames < song.shape[1]
    info = {info.name: info for info in list_engines(known)}["htdemucs"]
    assert (info.available, info.unavailable_error) == (False, "MODEL_SERVER_UNAVAILABLE")
