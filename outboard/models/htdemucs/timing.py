"""``python -m outboard.models.htdemucs.timing VARIANT BACKEND PRECISION``: seconds of one window on this processor."""

from __future__ import annotations

import sys
import time

import numpy as np

from outboard.models.htdemucs import transform
from outboard.models.htdemucs.backends import Arithmetic, load_core
from outboard.models.htdemucs.variants import VARIANTS

_ROUNDS = 3


def main() -> int:
    """Prints the least of some rounds, after one that does not count."""
    name, backend, precision = sys.argv[1:]
    compute, frames = load_core(VARIANTS[name], Arithmetic(backend, "cpu", precision))
    mix = np.random.default_rng(0).standard_normal((1, transform.CHANNELS, frames)).astype(np.float32)
    spectrogram = transform.spectrogram(mix)
    taken = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        compute(mix, spectrogram)
        taken.append(time.perf_counter() - started)
    print(min(taken[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
