"""A stereo echo: a delay line a side, with damping in the loop.

    line' = in + feedback * F(line)        out = line        F: one-pole low-pass, then one-pole high-pass

Each repeat is darker and thinner than the one before, as from tape (J. Dattorro, *Effect design, part 2*, JAES 45(10),
1997, for the loop). With ping-pong the middle of the input enters the left line and each line feeds the other one.
All state is carried per frame: the result does not depend on how the stream is cut.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.filters import Audio, to_float32

_TINY = 1e-30
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EchoSettings:
    """All numbers of one echo.

    Attributes:
        time_ms: between repeats, 1 to 5000.
        feedback: level of each repeat against the one before, 0 to 0.95.
        damping_hertz: corner of the low-pass in the loop.
        ping_pong: whether repeats alternate sides.
        low_cut_hertz: corner of the high-pass in the loop.
        mix: share of the echoes in the sum with the dry sound; 1 on an effect bus.
    """

    time_ms: float
    feedback: float = 0.3
    damping_hertz: float = 4_000.0
    ping_pong: bool = False
    low_cut_hertz: float = 150.0
    mix: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.time_ms <= 5_000.0:
            raise ValueError(f"time_ms must be in 1..5000, not {self.time_ms}")
        if not 0.0 <= self.feedback <= 0.95:
            raise ValueError(f"feedback must be in 0..0.95, not {self.feedback}")
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"mix must be in 0..1, not {self.mix}")


@njit(nogil=True, cache=True)
def _repeat(
    block: Audio,
    lines: Floats,
    numbers: tuple[float, float, float],
    ping_pong: bool,
    at: NDArray[np.int64],
    kept: Floats,
) -> Floats:  # pragma: no cover - compiled
    """What comes out of the lines (2, frames); ``kept``: low-pass and high-pass of each side, carried on."""
    feedback, low_pole, high_pole = numbers
    frames, size = block.shape[1], lines.shape[1]
    out = np.empty((2, frames))
    now = at[0]
    for i in range(frames):
        for c in range(2):
            out[c, i] = lines[c, now]
            # The low-pass, then what is left of it over its own slow mean.
            low = out[c, i] + low_pole * (kept[c, 0] - out[c, i])
            mean = low + high_pole * (kept[c, 1] - low)
            kept[c, 0] = low if abs(low) > _TINY else 0.0
            kept[c, 1] = mean if abs(mean) > _TINY else 0.0
        left, right = np.float64(block[0, i]), np.float64(block[1, i])
        if ping_pong:
            lines[0, now] = 0.5 * (left + right) + feedback * (kept[1, 0] - kept[1, 1])
            lines[1, now] = feedback * (kept[0, 0] - kept[0, 1])
        else:
            lines[0, now] = left + feedback * (kept[0, 0] - kept[0, 1])
            lines[1, now] = right + feedback * (kept[1, 0] - kept[1, 1])
        now = now + 1 if now + 1 < size else 0
    at[0] = now
    return out


class Echo:
    """An echo at work on stereo blocks; latency 0. With a mix of 0 it is not there."""

    def __init__(self, settings: EchoSettings, sample_rate_hertz: int) -> None:
        self.settings = settings
        low, high = (
            math.exp(-2.0 * math.pi * min(hertz, 0.45 * sample_rate_hertz) / sample_rate_hertz)
            for hertz in (settings.damping_hertz, settings.low_cut_hertz)
        )
        self._numbers = (settings.feedback, low, high)
        self._lines = np.zeros((2, max(1, round(settings.time_ms * sample_rate_hertz / 1000.0))))
        self._at, self._kept = np.zeros(1, np.int64), np.zeros((2, 2))

    def process(self, block: Audio) -> Audio:
        """As many frames as the stereo ``block`` ``(2, frames)`` has."""
        if self.settings.mix == 0.0:
            return block
        wet = _repeat(block, self._lines, self._numbers, self.settings.ping_pong, self._at, self._kept)
        return to_float32(self.settings.mix * wet + (1.0 - self.settings.mix) * block)
