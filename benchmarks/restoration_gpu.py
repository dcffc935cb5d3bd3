"""Time of AudioSR's networks on a GPU, as Triton's ``model.py`` runs them. Needs a GPU.

    python -m benchmarks.restoration_gpu [--quick] [--json] [--device DEVICE] [--tiny]

Windows of 5.12 and 10.24 s in batches of 1 to 8, from and to the CPU's memory, 10 to 50 diffusion steps with guidance
(two passes of the denoiser a step), in float32, TF32 and float16; seeded random weights of the published sizes (672
million parameters are needed) and of the small ones that tests use. The figure is seconds of audio per second; beside
it stands the signal-to-noise ratio to strict float32 on the same noise, which random weights make pessimistic, and the
peak of the GPU's memory. Nothing else computes AudioSR in batches, so there is no other side; upstream's own code is
held against these networks in ``tests/unit/test_audiosr_network.py``.

Without a GPU nothing is measured. ``--device cpu --tiny --quick`` tries the script itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.rows import Row, exit_code, parser, show
from outboard.models.audiosr import network
from outboard.models.audiosr.door import SAMPLE_RATE_HERTZ, SHORT_WINDOW_FRAMES, WINDOW_FRAMES, Controls
from outboard.models.audiosr.windows import PRECISIONS, Precision, Windows

BATCHES = (1, 2, 4, 8)
STEPS = (10, 25, 50)
_CUTOFF_HERTZ = 8_000.0
_GUIDANCE = 3.5
_MEBIBYTE = 2.0**20


def _inputs(batch: int, frames: int, steps: int) -> tuple[torch.Tensor, np.ndarray]:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (batch, WINDOW_FRAMES)).astype(np.float32)
    controls = [Controls(key, frames, _CUTOFF_HERTZ, steps, _GUIDANCE).packed() for key in range(batch)]
    return torch.from_numpy(noise), np.stack(controls)


def _snr_db(audio: torch.Tensor, reference: torch.Tensor) -> float:
    noise = (audio.double() - reference.double()).square().sum().clamp_min(1e-30)
    return float(10.0 * torch.log10(reference.double().square().sum() / noise))


def rows(device: str, architecture: network.Architecture, name: str, *, quick: bool) -> Iterator[Row]:
    """Speed, distance to float32 and memory for every precision, window, batch and number of steps."""
    networks = network.seeded(architecture).to(device)
    is_gpu = device != "cpu"
    precisions: tuple[Precision, ...] = PRECISIONS if is_gpu else PRECISIONS[:1]
    for frames in (SHORT_WINDOW_FRAMES,) if quick else (SHORT_WINDOW_FRAMES, WINDOW_FRAMES):
        seconds = frames / SAMPLE_RATE_HERTZ
        for steps in STEPS[:1] if quick else STEPS:
            reference = Windows(networks, "fp32")(*_inputs(1, frames, steps))
            for precision in precisions:
                compute = Windows(networks, precision)
                for batch in BATCHES[:2] if quick else BATCHES:
                    given = _inputs(batch, frames, steps)
                    answer = compute(*given)  # the first call does not count
                    if is_gpu:
                        torch.cuda.reset_peak_memory_stats(device)
                    started = time.perf_counter()
                    compute(*given)  # comes back on the CPU: nothing is left to wait for
                    took = time.perf_counter() - started
                    what = f"{name} {precision}, {seconds:.2f} s, batch {batch}, {steps} steps"
                    yield Row(f"{what}: speed", batch * seconds / took, None, None, "s of audio/s", None, None)
                    if batch == 1:
                        yield Row(f"{what}: to float32", _snr_db(answer, reference), None, None, "dB", None, None)
                    if is_gpu:
                        peak = torch.cuda.max_memory_allocated(device) / _MEBIBYTE
                        yield Row(f"{what}: memory", peak, None, None, "MiB", None, None)


def main() -> int:
    """Prints the rows."""
    options_parser = parser(__doc__)
    options_parser.add_argument("--device", default="cuda:0")
    options_parser.add_argument("--tiny", action="store_true", help="the small networks only")
    options = options_parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured (this benchmark is about nothing else)", file=sys.stderr)
        return 0
    sizes = {"tiny": network.TINY} if options.tiny else {"tiny": network.TINY, "full": network.FULL}
    measured = []
    for name, architecture in sizes.items():
        for row in rows(options.device, architecture, name, quick=options.quick):
            show([row], as_json=options.json)
            measured.append(row)
    return exit_code(measured)


if __name__ == "__main__":
    sys.exit(main())
