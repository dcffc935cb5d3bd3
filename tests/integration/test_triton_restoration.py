"""AudioSR in the production repository, on the real server and beside separation, with small seeded weights."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("audiosr") is None:
    pytest.skip("the package audiosr is not installed: make models", allow_module_level=True)

from outboard.audio.wave_header import HEADER_BYTES, float_wave_header  # noqa: E402 - torch may be absent
from outboard.client import failure  # noqa: E402
from outboard.errors import FailedPrecondition  # noqa: E402
from outboard.models.audiosr import network  # noqa: E402
from outboard.models.audiosr.door import SHORTEST_FRAMES, WEIGHTS, WINDOW_FRAMES, Controls  # noqa: E402
from outboard.models.audiosr.served import INVENTORY, SIGNATURES, client  # noqa: E402
from outboard.models.audiosr.windows import Windows  # noqa: E402
from outboard.models.triton import TritonInference  # noqa: E402
from outboard.models.triton_server import TritonServer  # noqa: E402
from outboard.settings import Settings, TritonSettings  # noqa: E402
from outboard.testing import in_process  # noqa: E402
from outboard.v1 import audio_pb2, restorer_service_pb2  # noqa: E402
from outboard.v1.job_service_pb2 import Job  # noqa: E402
from services.restorer import __main__ as restorer_main  # noqa: E402
from tests.integration.orchestrator_bench import bench  # noqa: E402
from tests.integration.triton_toys import needs_triton, statistics  # noqa: E402
from tests.unit.test_restore_drawing import RATE, band_db, cut, full_band  # noqa: E402

pytestmark = needs_triton

_SERVICES = Path(__file__).resolve().parents[2] / "services"
_REPOSITORIES = [_SERVICES / name / "model_repository" for name in ("separator", "restorer")]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with those of audiosr, and without those of audiosr_speech."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "audiosr").mkdir()
    network.save(network.seeded(seed=3), folder / "audiosr" / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("triton") / "log"
    variables = {"OUTBOARD_MODELS": str(weights), "OMP_NUM_THREADS": "1"}
    with TritonServer(_REPOSITORIES, log, models=["audiosr"], environment=variables, exit_seconds=5) as running:
        yield running


def _window(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (1, WINDOW_FRAMES)).astype(np.float32)


def _inputs(seed: int) -> dict[str, np.ndarray]:
    controls = Controls(2**60 + seed, 2 * SHORTEST_FRAMES, 8_000.0, 2, 3.5).packed()[None]
    return {"window": _window(seed), "controls": controls}


def test_windows_of_different_jobs_share_batches_and_keep_their_sound(server: TritonServer, weights: Path) -> None:
    """Windows of two clients are computed in common batches, as the server's statistics show, and each comes out as the
    networks called directly make it, to -100 dBFS.
    """
    direct = Windows(network.load(weights / "audiosr" / WEIGHTS))
    given = [_inputs(seed) for seed in range(2)]
    expected = [direct(torch.from_numpy(each["window"]), each["controls"]).numpy() for each in given]
    clients = [client(TritonSettings(address=server.address)) for _ in range(2)]
    before = statistics(server, "audiosr")
    futures = [each.infer("audiosr", inputs) for inputs in given for each in clients]
    for index, future in enumerate(futures):
        error = np.max(np.abs(future.result(timeout=100)["audio"] - expected[index // 2]))
        error_db = 20 * np.log10(max(float(error), 1e-12))
        assert error_db < -100, f"window {index}: {error_db:.1f} dBFS"
    after = statistics(server, "audiosr")
    executions = after.execution_count - before.execution_count
    assert after.inference_count - before.inference_count == len(futures)
    assert executions < len(futures), f"{executions} executions for {len(futures)} windows"
    for each in clients:
        each.close()


def test_the_server_tells_what_it_has(server: TritonServer) -> None:
    """Digest and precision are known without loading networks; missing weights have their reason and command, in the
    list and when they are asked for.
    """
    served = client(TritonSettings(address=server.address))
    view = served.view()
    assert len(view.weights_digest("audiosr")) == 64
    assert view.precision("audiosr") == "fp32"
    problem = view.weights_problem("audiosr_speech")
    assert problem is not None
    assert problem.reason == "MODEL_WEIGHTS_MISSING"
    assert "outboard models pull audiosr_speech" in problem.message
    with pytest.raises(FailedPrecondition) as caught:
        served.check("audiosr_speech", timeout_seconds=100)
    assert caught.value.reason == "MODEL_WEIGHTS_MISSING"
    served.close()


@pytest.mark.asyncio
async def test_a_job_has_a_stem_drawn_by_the_server_once(server: TritonServer, tmp_path: Path) -> None:
    """A stem that was cut off at 8 kHz goes through a job that names audiosr: it has more above the cutoff afterwards,
    and the report tells the engine, that Triton computed it, and the digest of the server's weights. The same job
    again is served from the store: no window goes to the server.
    """
    stem = cut(full_band(4.0))
    stem[1] = 0.0  # a silent channel is not sent
    data = float_wave_header(stem.shape[1], 2, RATE) + stem.T.astype("<f4").tobytes()
    # A model that has not answered for a minute, as on a busy machine, is tried with a window that would be counted.
    settings = Settings(triton=TritonSettings(address=server.address, probe_seconds=3600.0))
    step = restorer_service_pb2.RestorationStep(engine="audiosr", amount=1.0, diffusion_steps=10)
    wanted = Job(restoration=restorer_service_pb2.RestorationSettings(steps=[step]))
    counts = [statistics(server, "audiosr").inference_count]
    async with (
        in_process(restorer_main.build(settings), settings) as restorer,
        bench(tmp_path / "store", restorer=restorer.address) as mesh,
    ):
        upload = await mesh.client.upload(data)
        wanted.stems.stems.add(name="drums", upload=upload.name, role=audio_pb2.ROLE_DRUMS)
        jobs = []
        for _ in range(2):
            jobs.append(await mesh.client.wait((await mesh.client.create_job(wanted)).name))
            assert jobs[-1].state == Job.STATE_SUCCEEDED, failure(jobs[-1])
            counts.append(statistics(server, "audiosr").inference_count)
        found = next(artifact for artifact in jobs[0].artifacts if artifact.name.endswith("/stems/drums.wav"))
        drawn = np.frombuffer((await mesh.client.read(found))[HEADER_BYTES:], "<f4").reshape(-1, 2).T
    report = jobs[0].report.restorations["drums"]
    assert [(engine.name, engine.backend, engine.precision) for engine in report.engines] == [
        ("audiosr", "triton", "fp32")
    ]
    served = client(settings.triton)
    assert report.engines[0].weights_digest == served.view().weights_digest("audiosr")
    served.close()
    assert not report.failed_engines
    assert not [warning for warning in report.warnings if warning.code == "RESTORATION_FAILED"]
    assert report.found.bandwidth_hertz == pytest.approx(8_000, abs=400)
    gain_db = band_db(drawn[:1], 8_500, 12_000) - band_db(stem[:1], 8_500, 12_000)
    assert gain_db > 10, f"{gain_db:.1f} dB above the cutoff"
    assert jobs[0].name != jobs[1].name
    assert counts[1] - counts[0] == 1, f"{counts[1] - counts[0]} windows for one that sounds"
    assert counts[2] == counts[1], f"{counts[2] - counts[1]} windows were drawn again"
    assert jobs[1].report.restorations["drums"] == report


def test_networks_make_room_when_nobody_asks_and_come_back(server: TritonServer) -> None:
    """A model without a window for a while is unloaded, so that separation has the GPU's memory; the next window has it
    loaded again.
    """
    settings = TritonSettings(address=server.address, probe_seconds=0.2)
    served = TritonInference(settings, SIGNATURES, inventory=INVENTORY, unload_seconds=0.5)
    first = served.infer("audiosr", _inputs(1)).result(timeout=100)["audio"].copy()
    deadline = time.monotonic() + 30
    while "successfully unloaded 'audiosr'" not in server.log_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "successfully unloaded 'audiosr'" in server.log_text()
    again = served.infer("audiosr", _inputs(1)).result(timeout=100)["audio"]
    assert np.array_equal(first, again)
    served.close()
