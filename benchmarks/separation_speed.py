"""How fast the HTDemucs engines are on this machine, beside ``demucs.api.Separator`` with the same weights.

Weights are seeded random ones of the published size: speed does not depend on their values. Both sides take turns on
the same song, so that a busy machine slows both, and the fastest turns are compared. Upstream's memory grows with the
song; ours is held to the peak of a song a tenth as long.

    python -m benchmarks.separation_speed [--quick] [--json]
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows
from outboard.models.htdemucs.transform import SAMPLE_RATE_HERTZ, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import FOUR_SOURCES
from outboard.models.local import LocalInference
from services.separator.engines import Audio, EngineInfo, SeparationSettings, SongFacts
from services.separator.hybrid import OVERLAP, Deployment, HybridEngine, Network
from services.separator.separate import separate
from services.separator.windows import stride_of

SPEEDS = {"exact": None, "balanced": 2.0, "fast": 3.0}
TURNS = 3
FACTS = SongFacts(mean=0.0, deviation=0.1)
SAMPLING_SECONDS = 0.05
_NOISE = np.random.default_rng(0)


@dataclass(frozen=True)
class Turn:
    """One song through one side: seconds in all, and to the first stems."""

    seconds: float
    first_seconds: float


def write_weights(root: Path, *, tiny: bool) -> Path:
    """A model folder with a seeded network."""
    from outboard.models.htdemucs import network

    path = root / "htdemucs" / "955717e8.safetensors"
    path.parent.mkdir(parents=True)
    network.save(network.seeded(FOUR_SOURCES, 1, network.TINY if tiny else network.FULL), path)
    return path


def noise(frames: int) -> Iterator[Audio]:
    """A song in blocks; its memory is the block's."""
    while frames > 0:
        block = _NOISE.standard_normal((2, min(frames, 65_536)), dtype=np.float32) * np.float32(0.1)
        frames -= block.shape[1]
        yield block


def ours(inference: LocalInference, speed: str, blocks: Iterator[Audio]) -> Turn:
    """One song through the streaming engine."""
    how = inference.arithmetic
    deployment = Deployment(inference.infer, how.backend, how.device, how.precision)
    info = EngineInfo("htdemucs", 1, stem_counts=(2, 4))
    engine = HybridEngine(info, (Network("htdemucs", FOUR_SOURCES),), lambda known: known, lambda speed: deployment)
    started = time.perf_counter()
    first = 0.0
    for _ in separate(blocks, SAMPLE_RATE_HERTZ, SeparationSettings(speed=speed), FACTS, engines={"htdemucs": engine}):
        first = first or time.perf_counter() - started
    return Turn(time.perf_counter() - started, first)


def theirs(weights: Path) -> Any:
    """``demucs.api.Separator`` around the same network; what it would fetch is handed to it."""
    from demucs import api
    from demucs.apply import BagOfModels

    from outboard.models.htdemucs import network

    class Local(api.Separator):
        def _load_model(self) -> None:
            self._model = BagOfModels([network.load(weights, FOUR_SOURCES)])
            self._audio_channels, self._samplerate = 2, SAMPLE_RATE_HERTZ

    return Local(device="cpu", shifts=0, overlap=0.25, split=True)


def compared(weights: Path, root: Path, windows: int, turns: int) -> list[rows.Row]:
    """Throughput and time to the first stems."""
    import torch

    separator = theirs(weights)
    inferences = {speed: LocalInference(speed, root) for speed in SPEEDS}
    song = np.concatenate(list(noise(windows * stride_of(SEGMENT_FRAMES, OVERLAP))), axis=1)
    for speed, inference in inferences.items():
        ours(inference, speed, iter([song[:, : SEGMENT_FRAMES // 2]]))
    best = dict.fromkeys([*SPEEDS, "upstream"], float("inf"))
    first = dict.fromkeys(SPEEDS, float("inf"))
    for _ in range(turns):
        started = time.perf_counter()
        separator.separate_tensor(torch.from_numpy(song.copy()))
        best["upstream"] = min(best["upstream"], time.perf_counter() - started)
        for speed, inference in inferences.items():
            turn = ours(inference, speed, iter([song]))
            best[speed] = min(best[speed], turn.seconds)
            first[speed] = min(first[speed], turn.first_seconds)
    seconds = song.shape[1] / SAMPLE_RATE_HERTZ
    found = [
        faster(
            f"htdemucs, {speed}: seconds of song per second", seconds / best[speed], seconds / best["upstream"], goal
        )
        for speed, goal in SPEEDS.items()
    ]
    # Stems of the first three quarters of a window need that window only.
    per_window = best["balanced"] / windows
    return [*found, rows.at_most("time to the first stems / time of a window", first["balanced"], per_window, "s", 1.5)]


def faster(name: str, ours_speed: float, theirs_speed: float, goal: float | None) -> rows.Row:
    """A row whose ratio must not be below the goal."""
    ratio = ours_speed / theirs_speed
    return rows.Row(name, ours_speed, theirs_speed, ratio, "x real time", goal, None if goal is None else ratio >= goal)


def peak_mebibytes(root: Path, minutes: float) -> float:
    """Highest anonymous memory of a process of its own that separates so many minutes."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return float(pool.apply(_peak, (root, minutes)))


def _peak(root: Path, minutes: float) -> float:
    peak = 0.0
    ended = threading.Event()

    def sample() -> None:
        nonlocal peak
        while not ended.wait(SAMPLING_SECONDS):
            fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            now = sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 1024
            peak = max(peak, now)

    watching = threading.Thread(target=sample, daemon=True)
    watching.start()
    ours(LocalInference("balanced", root), "balanced", noise(round(minutes * 60 * SAMPLE_RATE_HERTZ)))
    ended.set()
    watching.join()
    return peak


def memory(minutes: float) -> list[rows.Row]:
    """A song ten times as long, through a network that is quick: windows and stems are as large as ever."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_weights(root, tiny=True)
        short, long = peak_mebibytes(root, minutes), peak_mebibytes(root, 10 * minutes)
    return [rows.at_most(f"peak memory: {10 * minutes:g} min / {minutes:g} min", long, short, "MiB", 1.10)]


def main(arguments: argparse.Namespace) -> int:
    """Prints the rows; 0 where every goal holds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        weights = write_weights(root, tiny=False)
        found = compared(weights, root, 2 if arguments.quick else 6, 1 if arguments.quick else TURNS)
    rows.show(found, as_json=arguments.json)
    remembered = memory(0.5 if arguments.quick else 3.0)
    rows.show(remembered, as_json=arguments.json)
    return rows.exit_code([*found, *remembered])


if __name__ == "__main__":
    sys.exit(main(rows.parser(__doc__).parse_args()))
