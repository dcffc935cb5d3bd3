"""The separation networks in the production repository, on the real server, with small seeded weights."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
network = pytest.importorskip("outboard.models.htdemucs.network")

from outboard.errors import FailedPrecondition  # noqa: E402 - torch may be absent
from outboard.models.htdemucs.transform import SEGMENT_FRAMES  # noqa: E402
from outboard.models.htdemucs.variants import FOUR_SOURCES, VARIANTS  # noqa: E402
from outboard.models.triton import SEPARATION, TritonInference  # noqa: E402
from outboard.models.triton_server import TritonServer  # noqa: E402
from outboard.settings import TritonSettings  # noqa: E402
from tests.integration.triton_toys import computing_seconds, needs_triton, statistics  # noqa: E402

pytestmark = needs_triton

_REPOSITORY = Path(__file__).resolve().parents[2] / "services" / "separator" / "model_repository"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: htdemucs whole, htdemucs_6s with the weights of another, of htdemucs_ft only the bass."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("htdemucs", "htdemucs_6s", "htdemucs_ft_bass"):
        path = folder / VARIANTS[name].model / f"{VARIANTS[name].signature}.safetensors"
        path.parent.mkdir()
        network.save(network.seeded(FOUR_SOURCES, 3, network.TINY), path)
    return folder


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    log = tmp_path_factory.mktemp("triton") / "log"
    variables = {"OUTBOARD_MODELS": str(weights), "OMP_NUM_THREADS": "1"}
    with TritonServer(_REPOSITORY, log, models=["htdemucs"], environment=variables, exit_seconds=5) as running:
        yield running


def _mix(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (1, 2, SEGMENT_FRAMES)).astype(np.float32)


def test_windows_of_different_jobs_share_batches_and_keep_their_sound(server: TritonServer, weights: Path) -> None:
    """Windows of two clients are computed in common batches, as the server's statistics show, and each comes out as the
    network called directly makes it, to -100 dBFS.
    """
    path = weights / "htdemucs" / f"{VARIANTS['htdemucs'].signature}.safetensors"
    direct = network.Windowed(network.Core(network.load(path, FOUR_SOURCES)))
    mixes = [_mix(seed) for seed in range(2)]
    with torch.inference_mode():
        expected = [direct(torch.from_numpy(mix)).numpy() for mix in mixes]
    settings = TritonSettings(address=server.address)
    clients = [TritonInference(settings, SEPARATION), TritonInference(settings, SEPARATION)]
    before = statistics(server, "htdemucs")
    futures = [client.infer("htdemucs", {"mix": mix}) for mix in mixes for client in clients]
    for index, future in enumerate(futures):
        error = np.max(np.abs(future.result(timeout=100)["stems"] - expected[index // 2]))
        error_db = 20 * np.log10(max(float(error), 1e-12))
        assert error_db < -100, f"window {index}: {error_db:.1f} dBFS"
    after = statistics(server, "htdemucs")
    executions = after.execution_count - before.execution_count
    assert after.inference_count - before.inference_count == len(futures)
    assert executions < len(futures), f"{executions} executions for {len(futures)} windows"
    for client in clients:
        client.close()


def test_two_networks_take_turns(server: TritonServer) -> None:
    """Windows of two networks that wait at the same time: by the server's statistics no two batches of them are
    computed at once (the rate limiter's resource holds one back), and neither network waits for all of the other's.
    """
    client = TritonInference(TritonSettings(address=server.address, in_flight=12), SEPARATION)
    names = ("htdemucs", "htdemucs_ft_bass")
    for name in names:
        client.check(name, timeout_seconds=100)
    before = [statistics(server, name) for name in names]
    ended: dict[str, list[float]] = {name: [] for name in names}
    began = time.monotonic()
    futures = []
    for seed in range(5):  # one more than a batch may have
        for name in names:
            future = client.infer(name, {"mix": _mix(seed)})
            future.add_done_callback(lambda _, name=name: ended[name].append(time.monotonic()))
            futures.append(future)
    for future in futures:
        future.result(timeout=100)
    wall = max(map(max, ended.values())) - began
    after = [statistics(server, name) for name in names]
    spent = [computing_seconds(now) - computing_seconds(then) for now, then in zip(after, before, strict=True)]
    executions = [now.execution_count - then.execution_count for now, then in zip(after, before, strict=True)]
    assert min(executions) >= 2, f"{executions} batches"
    # Side by side, each would spend nearly all of the time.
    assert sum(spent) <= wall, f"{spent[0]:.2f} s and {spent[1]:.2f} s of computing in {wall:.2f} s"
    first, second = ended.values()
    assert min(first) < max(second)
    assert min(second) < max(first)
    client.close()


@pytest.mark.parametrize(
    ("model", "reason"),
    [("htdemucs_6s", "MODEL_WEIGHTS_OF_OTHER_MODEL"), ("htdemucs_ft_drums", "MODEL_WEIGHTS_MISSING")],
)
def test_wrong_and_missing_weights_keep_their_reason(server: TritonServer, model: str, reason: str) -> None:
    """What the code of a model says about its weights reaches the client as the same error as on one machine."""
    client = TritonInference(TritonSettings(address=server.address), SEPARATION)
    with pytest.raises(FailedPrecondition) as caught:
        client.check(model, timeout_seconds=100)
    assert caught.value.reason == reason
    client.close()
