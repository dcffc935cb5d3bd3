"""A chorus: copies whose delay swings, so that one part sounds like several.

Each side hears two copies, a quarter of a turn apart, and the two sides are an eighth apart:

    delay(t) = base + depth * (1 + sin(2 pi rate t + phase)) / 2

read between the samples by a cubic Hermite curve (J. Dattorro, *Effect design, part 2*, JAES 45(10), 1997, on delays
that move). The swing is a function of the frame's number: the result does not depend on how the stream is cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.filters import Audio, to_float32

_BASE_MS = 8.0
_SPARE_FRAMES = 4


@dataclass(frozen=True)
class ChorusSettings:
    """All numbers of one chorus.

    Attributes:
        rate_hertz: of the swing, 0.01 to 10.
        depth_ms: how far the delay swings, 0 to 20.
        mix: share of the copies in the sum with the dry sound, 0 to 1.
    """

    rate_hertz: float = 0.6
    depth_ms: float = 3.0
    mix: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.depth_ms <= 20.0:
            raise ValueError(f"depth_ms must be in 0..20, not {self.depth_ms}")
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"mix must be in 0..1, not {self.mix}")


@njit(nogil=True, cache=True)
def _copies(
    block: Audio, ring: NDArray[np.float64], numbers: tuple[float, float, float], at: NDArray[np.int64]
) -> NDArray[np.float64]:  # pragma: no cover - compiled
    """Mean of the copies (2, frames); ``numbers``: base and depth in frames, turns a frame; ``at``: frames so far."""
    base, depth, turn = numbers
    frames, size = block.shape[1], ring.shape[1]
    out = np.empty((2, frames))
    for i in range(frames):
        now = at[0] + i
        turns = (now * turn) % 1.0
        for c in range(2):
            ring[c, now % size] = block[c, i]
            total = 0.0
            for voice in range(2):
                swing = math.sin(2.0 * math.pi * (turns + 0.25 * voice + 0.125 * c))
                late = base + 0.5 * depth * (1.0 + swing)
                whole = int(late)
                t = late - whole
                a = ring[c, (now - whole + 1) % size]
                b = ring[c, (now - whole) % size]
                d = ring[c, (now - whole - 1) % size]
                e = ring[c, (now - whole - 2) % size]
                slope_b, slope_d = 0.5 * (d - a), 0.5 * (e - b)
                bend = 2.0 * (b - d) + slope_b + slope_d
                total += b + t * (slope_b + t * (d - b - slope_b - bend + t * bend))
            out[c, i] = 0.5 * total
    at[0] += frames
    return out


class Chorus:
    """A chorus at work on stereo blocks; latency 0. With a mix of 0 it is not there."""

    def __init__(self, settings: ChorusSettings, sample_rate_hertz: int) -> None:
        self.settings = settings
        per_ms = sample_rate_hertz / 1000.0
        self._numbers = (_BASE_MS * per_ms, settings.depth_ms * per_ms, settings.rate_hertz / sample_rate_hertz)
        self._ring = np.zeros((2, int((_BASE_MS + settings.depth_ms) * per_ms) + _SPARE_FRAMES))
        self._at = np.zeros(1, np.int64)

    def process(self, block: Audio) -> Audio:
        """As many frames as the stereo ``block`` ``(2, frames)`` has."""
        if self.settings.mix == 0.0:
            return block
        wet = _copies(block, self._ring, self._numbers, self._at)
        return to_float32(self.settings.mix * wet + (1.0 - self.settings.mix) * block)
