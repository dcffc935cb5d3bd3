"""``python -m outboard.models.htdemucs.timing VARIANT BACKEND PRECISION``: seconds of one window on this processor."""

from __future__ import annotations

import sys
import time

import numpy as np

from outboard.models.htdemucs import transform
from outboard.models.htdemucs.backends import Arithmetic
from outboard.models.local import LocalInference

_ROUNDS = 3


def main() -> int:
    """Prints the least of some rounds, after one that does not count."""
    name, backend, precision = sys.argv[1:]
    inference = LocalInference(Arithmetic(backend, "cpu", precision))
    frames = inference.segment_frames(name)
    mix = np.random.default_rng(0).standard_normal((1, transform.CHANNELS, frames)).astype(np.float32)
    taken = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        inference.infer(name, {"mix": mix}).result()
        taken.append(time.perf_counter() - started)
    inference.close()
    print(min(taken[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
