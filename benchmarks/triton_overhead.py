"""What the way through a Triton server costs: one window of the full-size network there, and called directly.

    python -m benchmarks.triton_overhead [--quick] [--json]

Both sides run the same seeded weights in float32 on this CPU, by turns; the least of several rounds counts. Wall clock
compares whole windows only on an idle machine. The other rows stand on a busy one too: processor time of all processes
together, and the wall clock of the way alone, with a model of the same shapes that computes nothing, as a share of the
time that a window takes when it has its cores for itself. Needs `make triton models`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from demucs.htdemucs import HTDemucs

from benchmarks.rows import Row, at_most, exit_code, parser, show
from outboard.models.htdemucs import network
from outboard.models.htdemucs.transform import CHANNELS, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import FOUR_SOURCES, VARIANTS
from outboard.models.triton import SEPARATION, TritonInference
from outboard.models.triton_server import TritonServer
from outboard.settings import TritonSettings

_REPOSITORY = Path(__file__).resolve().parents[1] / "services" / "separator" / "model_repository"
_MODEL = "htdemucs"
_GOALS = {"gRPC": 1.02, "shared memory": 1.01}
_PATIENCE_SECONDS = 600.0
_EMPTY = """
import torch
import triton_python_backend_utils as triton
from torch.utils.dlpack import from_dlpack


class TritonPythonModel:
    def initialize(self, args):
        self._stems = torch.zeros((1, 4, 2, 343980))

    def execute(self, requests):
        for request in requests:
            from_dlpack(triton.get_input_tensor_by_name(request, "mix").to_dlpack())
        return [triton.InferenceResponse([triton.Tensor.from_dlpack("stems", self._stems)]) for _ in requests]
"""


def _write_weights(models: Path) -> HTDemucs:
    made = network.seeded(FOUR_SOURCES)
    (models / _MODEL).mkdir(parents=True)
    network.save(made, models / _MODEL / f"{VARIANTS[_MODEL].signature}.safetensors")
    return made


def _write_empty_model(repository: Path) -> None:
    """A model of the same name and configuration that computes nothing."""
    (repository / _MODEL / "1").mkdir(parents=True)
    (repository / _MODEL / "1" / "model.py").write_text(_EMPTY)
    configuration = (_REPOSITORY / _MODEL / "configs" / "cpu.pbtxt").read_text()
    (repository / _MODEL / "config.pbtxt").write_text(configuration)


@contextmanager
def _served(repository: Path, models: Path, log: Path) -> Iterator[dict[str, Callable[[np.ndarray], np.ndarray]]]:
    """Ways through a server that has loaded the model: over the wire, and through shared memory."""
    variables = {"OUTBOARD_MODELS": str(models)}
    with TritonServer(
        repository, log, models=[_MODEL], environment=variables, start_seconds=_PATIENCE_SECONDS
    ) as server:
        clients = {
            way: TritonInference(
                TritonSettings(
                    address=server.address, shared_memory=way == "shared memory", deadline_seconds=_PATIENCE_SECONDS
                ),
                SEPARATION,
            )
            for way in _GOALS
        }
        yield {way: _through(client) for way, client in clients.items()}
        for client in clients.values():
            client.close()


def _through(client: TritonInference) -> Callable[[np.ndarray], np.ndarray]:
    return lambda mix: client.infer(_MODEL, {"mix": mix}).result()["stems"]


def _directly(core: network.Core) -> Callable[[np.ndarray], np.ndarray]:
    windowed = network.Windowed(core)

    def run(mix: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            stems: np.ndarray = windowed(torch.from_numpy(mix)).numpy()
        return stems

    return run


@dataclass
class _Cost:
    """Least time of a call so far: by the wall clock, and of the processors."""

    wall_seconds: float = np.inf
    processor_seconds: float = np.inf


def _processor_seconds(process: int | None = None) -> float:
    """User and system time of this process and all below it that run."""
    root = Path("/proc", str(process or os.getpid()))
    try:
        fields = (root / "stat").read_text().rpartition(")")[2].split()
        below = [child for task in (root / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # it has just ended
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_processor_seconds(int(child)) for child in below)


def _costs(ways: dict[str, Callable[[np.ndarray], np.ndarray]], rounds: int) -> dict[str, _Cost]:
    """What a window costs each way, taken by turns, there and back, after one round that does not count."""
    mix = np.random.default_rng(0).uniform(-0.5, 0.5, (1, CHANNELS, SEGMENT_FRAMES)).astype(np.float32)
    costs = {name: _Cost() for name in ways}
    for number in range(rounds + 1):
        # Whoever comes after another finds its threads still awake.
        for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
            processor, started = _processor_seconds(), time.perf_counter()
            way(mix)
            wall, cost = time.perf_counter() - started, costs[name]
            if number:
                cost.wall_seconds = min(cost.wall_seconds, wall)
                cost.processor_seconds = min(cost.processor_seconds, _processor_seconds() - processor)
    return costs


def rows(rounds: int) -> Iterator[Row]:
    """Three rows per way: the whole window by the wall clock and in processor time, and the way alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        direct = _directly(network.Core(_write_weights(folder / "models")))
        with _served(_REPOSITORY, folder / "models", folder / "log") as ways:
            whole = _costs({"direct": direct, **ways}, rounds)
        _write_empty_model(folder / "empty")
        with _served(folder / "empty", folder / "models", folder / "empty.log") as ways:
            alone = _costs(ways, 5 * rounds)
    theirs = whole["direct"]
    undisturbed_seconds = theirs.processor_seconds / torch.get_num_threads()
    for way, goal in _GOALS.items():
        ours = whole[way]
        yield at_most(f"through Triton, {way} / direct", ours.wall_seconds, theirs.wall_seconds, "s", goal)
        yield at_most(
            f"through Triton, {way} / direct: processor", ours.processor_seconds, theirs.processor_seconds, "s", goal
        )
        share = round(goal - 1.0, 2)
        yield at_most(f"the way alone, {way} / direct", alone[way].wall_seconds, undisturbed_seconds, "s", share)


def main() -> int:
    """Prints the rows; 1 where a goal is missed."""
    options = parser(__doc__).parse_args()
    measured = list(rows(2 if options.quick else 8))
    show(measured, as_json=options.json)
    return exit_code(measured)


if __name__ == "__main__":
    sys.exit(main())
