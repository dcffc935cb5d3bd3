"""How fast the HTDemucs engines are on this machine, beside ``demucs.api.Separator`` with the same weights.

Weights are seeded random ones of the published size: speed does not depend on their values. Both sides take turns on
the same song, so that a busy machine slows both, and the fastest turns are compared. Processor time says the same where
other programs take the cores away. Upstream's memory grows with the
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
from outboard.models.htdemucs.choice import arithmetic, described, prepare
from outboard.models.htdemucs.transform import SAMPLE_RATE_HERTZ, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import FOUR_SOURCES
from outboard.models.local import LocalInference
from outboard.models.registry import find
from services.separator.engines import Audio, EngineInfo, SeparationSettings, SongFacts
from services.separator.hybrid import OVERLAP, Deployment, HybridEngine, Network
from services.separator.separate import separate
from services.separator.windows import stride_of

SPEEDS = {"exact": None, "balanced": 2.0, "fast": 3.0}
UPSTREAM = "upstream"
TURNS = 6
FACTS = SongFacts(mean=0.0, deviation=0.1)
SAMPLING_SECONDS = 0.05
_NOISE = np.random.default_rng(0)


@dataclass(frozen=True)
class Turn:
    """One song through one side: seconds in all, to the first stems, and of all processors together."""

    seconds: float
    first_seconds: float
    processor_seconds: float


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
    started, worked = time.perf_counter(), time.process_time()
    first = 0.0
    for _ in separate(blocks, SAMPLE_RATE_HERTZ, SeparationSettings(speed=speed), FACTS, engines={"htdemucs": engine}):
        first = first or time.perf_counter() - started
    return Turn(time.perf_counter() - started, first, time.process_time() - worked)


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
    prepare(find("htdemucs"), root)
    inferences = {speed: LocalInference(arithmetic("htdemucs", speed, root), root) for speed in SPEEDS}
    song = np.concatenate(list(noise(windows * stride_of(SEGMENT_FRAMES, OVERLAP))), axis=1)
    for speed, inference in inferences.items():
        ours(inference, speed, iter([song[:, : SEGMENT_FRAMES // 2]]))
    taken: dict[str, list[Turn]] = {name: [] for name in [*SPEEDS, UPSTREAM]}
    for _ in range(turns):
        started, worked = time.perf_counter(), time.process_time()
        separator.separate_tensor(torch.from_numpy(song.copy()))
        seconds = time.perf_counter() - started
        taken[UPSTREAM].append(Turn(seconds, seconds, time.process_time() - worked))
        for speed, inference in inferences.items():
            taken[speed].append(ours(inference, speed, iter([song])))
    print(f"htdemucs: {described('htdemucs', root)}", file=sys.stderr)
    return _compared(taken, windows, song.shape[1] / SAMPLE_RATE_HERTZ)


def _compared(taken: dict[str, list[Turn]], windows: int, seconds: float) -> list[rows.Row]:
    best = {name: min(turn.seconds for turn in turns) for name, turns in taken.items()}
    work = {name: min(turn.processor_seconds for turn in turns) for name, turns in taken.items()}
    found = []
    for speed, goal in SPEEDS.items():
        found.append(faster(f"htdemucs, {speed}", seconds / best[speed], seconds / best[UPSTREAM], goal))
        name = f"htdemucs, {speed}, by processor time"
        found.append(faster(name, seconds / work[speed], seconds / work[UPSTREAM], None))
    # The first three quarters of a window are finished with it.
    first = min(turn.first_seconds for turn in taken["balanced"])
    return [*found, rows.at_most("time to the first stems / of a window", first, best["balanced"] / windows, "s", 1.5)]


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
    ours(
        LocalInference(arithmetic("htdemucs", "balanced", root), root),
        "balanced",
        noise(round(minutes * 60 * SAMPLE_RATE_HERTZ)),
    )
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
        found = compared(weights, root, 2 if arguments.quick else 4, 3 if arguments.quick else TURNS)
    rows.show(found, as_json=arguments.json)
    remembered = memory(0.5 if arguments.quick else 3.0)
    rows.show(remembered, as_json=arguments.json)
    return rows.exit_code([*found, *remembered])


if __name__ == "__main__":
    sys.exit(main(rows.parser(__doc__).parse_args()))
