"""Throughput of the network that Triton serves on a GPU, against upstream's separation on the same GPU. Needs a GPU.

    python -m benchmarks.separation_gpu [--quick] [--json] [--device DEVICE] [--tiny]

Ours: windows of 7.8 s in batches of 1 to 16 as ``model.py`` runs them, from and to the CPU's memory, at each precision,
run as it is, compiled, and as CUDA graphs. Theirs: ``demucs.apply.apply_model`` (split, overlap 0.25, no shifts) on
a song, with torch's default arithmetic, counted in the windows that it computes. The same seeded weights on both sides;
the signal-to-noise ratio is to upstream's network in strict float32.

Without a GPU nothing is measured. ``--device cpu --tiny`` tries the script itself on a small network.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs

from benchmarks.rows import Row, exit_code, parser, show
from outboard.models.htdemucs import network
from outboard.models.htdemucs.transform import CHANNELS, SAMPLE_RATE_HERTZ, SEGMENT_FRAMES
from outboard.models.htdemucs.variants import FOUR_SOURCES
from outboard.models.triton_torch import PRECISIONS, Core, Precision, Windows

BATCH_SIZES = (1, 2, 4, 8, 16)
GOAL_SPEEDUP = 5.0
GOAL_DB = 40.0
_OVERLAP = 0.25
_HOP_FRAMES = round(SEGMENT_FRAMES * (1.0 - _OVERLAP))


def _noise(frames: int, batch: int, seed: int) -> torch.Tensor:
    """Pink-ish noise of shape (batch, 2, frames): the running sum leaks, so that lows carry most of the energy."""
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn((batch, CHANNELS, frames), generator=generator)
    return 0.1 * (white + torch.roll(white, 1, -1) + torch.roll(white, 2, -1))


def _seconds(run: Callable[[], object], device: str, rounds: int) -> float:
    """Mean time of a call, after one that does not count."""
    run()
    _wait(device)
    started = time.perf_counter()
    for _ in range(rounds):
        run()
    _wait(device)
    return (time.perf_counter() - started) / rounds


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _upstream_windows_per_second(model: HTDemucs, device: str, song_seconds: float, rounds: int) -> float:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = True
    song = _noise(round(song_seconds * SAMPLE_RATE_HERTZ), 1, 1)
    windows = math.ceil(song.shape[-1] / _HOP_FRAMES)

    def run() -> Any:
        return apply_model(model, song, shifts=0, split=True, overlap=_OVERLAP, device=device)

    return windows / _seconds(run, device, rounds)


def _reference(model: HTDemucs, device: str, mix: torch.Tensor) -> torch.Tensor:
    """Upstream's stems in strict float32, window by window."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        return torch.cat([model(window[None].to(device)).cpu() for window in mix])


def _snr_db(stems: torch.Tensor, reference: torch.Tensor) -> float:
    noise = (stems.double() - reference.double()).square().sum().clamp_min(1e-30)
    return float(10.0 * torch.log10(reference.double().square().sum() / noise))


def _ways(device: str) -> Sequence[str]:
    return ("eager",) if device == "cpu" else ("eager", "compiled", "graphs")


def _windows(core: network.Core, device: str, precision: Precision, batch: int, way: str) -> Windows:
    made: Core = torch.compile(core) if way == "compiled" else core
    return Windows(made, device, precision, (batch,), cuda_graphs=way == "graphs")


def rows(device: str, *, tiny: bool, quick: bool) -> Iterator[Row]:
    """Throughput and signal-to-noise ratio per precision, way and batch size; last the best that is good enough."""
    model = network.seeded(FOUR_SOURCES, architecture=network.TINY if tiny else network.FULL).to(device)
    batches = (1, 4) if quick else BATCH_SIZES
    rounds = 2 if quick else 10
    mix = _noise(SEGMENT_FRAMES, max(batches), 0)
    theirs = _upstream_windows_per_second(model, device, 30.0 if quick else 180.0, 1 if quick else 3)
    reference = _reference(model, device, mix)
    network.keep_positions()
    core = network.Core(model)  # cuts the model's last layers: upstream has had its turn
    best = 0.0
    for precision in PRECISIONS if device != "cpu" else PRECISIONS[:1]:
        for way in _ways(device):
            for batch in batches:
                windows = _windows(core, device, precision, batch, way)
                name = f"{precision} {way}, batch {batch}"
                snr_db = _snr_db(windows(mix[:batch]), reference[:batch])
                ours = batch / _seconds(lambda run=windows, size=batch: run(mix[:size]), device, rounds)  # type: ignore[misc]
                yield Row(f"{name}: throughput", ours, theirs, ours / theirs, "windows/s", None, None)
                yield Row(f"{name}: to upstream", snr_db, None, None, "dB", None, None)
                best = max(best, ours) if snr_db >= GOAL_DB else best
    ratio = best / theirs
    yield Row(f"best of at least {GOAL_DB:g} dB", best, theirs, ratio, "windows/s", GOAL_SPEEDUP, ratio >= GOAL_SPEEDUP)


def main() -> int:
    """Prints the rows; 1 where the goal is missed."""
    options_parser = parser(__doc__)
    options_parser.add_argument("--device", default="cuda:0")
    options_parser.add_argument("--tiny", action="store_true", help="a small network, to try the script itself")
    options = options_parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no GPU here: nothing was measured (this benchmark is about nothing else)", file=sys.stderr)
        return 0
    measured = []
    for row in rows(options.device, tiny=options.tiny, quick=options.quick):
        show([row], as_json=options.json)
        measured.append(row)
    return exit_code(measured) if options.device != "cpu" else 0


if __name__ == "__main__":
    sys.exit(main())
