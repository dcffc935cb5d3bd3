"""The time-frequency grid: which window and hop at which sampling rate, and physical units on it.

Three resolutions look at the same song: the *base* one (about 85 ms), on which masks act; a *long* one (four times
as long), in which steady tones are lines and a voice, whose pitch never rests, is smeared; and a *short* one (a
quarter), in which strokes are lines across frequency. All have hops of a quarter of their window, so that their
centres coincide: step ``j`` is centred ``(j - 1) * hop`` after the first sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Length of the base window: long enough to part the partials of neighbouring notes, short enough for syllables.
BASE_WINDOW_SECONDS = 4096 / 48_000
HOPS_PER_WINDOW = 4
# How much longer (shorter) the long (short) window is.
RESOLUTION_RATIO = 4
# Steps that are masked at once. 64 steps at 48 kHz are 65536 frames.
BATCH_STEPS = 64


@dataclass(frozen=True)
class Grid:
    """The base grid at one sampling rate."""

    sample_rate_hertz: int

    @property
    def window_frames(self) -> int:
        """Power of two nearest to the wanted length."""
        return 1 << round(float(np.log2(BASE_WINDOW_SECONDS * self.sample_rate_hertz)))

    @property
    def hop_frames(self) -> int:
        return self.window_frames // HOPS_PER_WINDOW

    @property
    def batch_frames(self) -> int:
        """Frames by which the stream advances at once."""
        return BATCH_STEPS * self.hop_frames

    @property
    def bins(self) -> int:
        return self.window_frames // 2 + 1

    @property
    def hertz(self) -> NDArray[np.float64]:
        """Frequency of each bin, shape (bins,)."""
        return np.arange(self.bins, dtype=np.float64) * self.hertz_per_bin

    @property
    def hertz_per_bin(self) -> float:
        return self.sample_rate_hertz / self.window_frames

    def steps(self, seconds: float) -> int:
        """Steps in a time, at least 1."""
        return max(1, round(seconds * self.sample_rate_hertz / self.hop_frames))

    def width(self, hertz: float) -> int:
        """Bins in a frequency interval, at least 1."""
        return max(1, round(hertz / self.hertz_per_bin))
