"""Levels from the samples themselves: RMS, offset, clipping, correlation, and how flat the dynamics are.

**Flat-dynamics index.** The crest (peak over RMS, all channels) of every second, half overlapped; seconds 30 dB under
the mean power are left out. The index is ``1 / (1 + exp((C - 9.9) / 0.55))`` with C the median crest in decibels:
released recordings keep 11 dB and more from second to second (under 0.1), what was pressed into a limiter stays under
10 dB. A ratio of levels, so gain does not matter. None under one second.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
from numba import njit
from numpy.typing import NDArray

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

_FULL_SCALE = 0.9998
_CLIPPED_RUN = 3
_FLAT_CREST_DB, _FLAT_WIDTH_DB = 9.9, 0.55
_ACTIVE_POWER = 1e-3  # of the mean power: what lies under is a pause

# Indices of the running sums in `LevelMeter._sums`.
_LEFT, _RIGHT, _LEFT_SQUARED, _RIGHT_SQUARED, _PRODUCT = range(5)


@njit(nogil=True, cache=True)
def _accumulate(
    block: Float32Array,
    sums: Float64Array,
    runs: NDArray[np.int64],
    window: Float64Array,
    window_frames: int,
    out: Float64Array,
) -> int:  # pragma: no cover - compiled
    """Add a block (channels, frames): sums, clipped runs, and (peak, energy) of each window that ends in it.

    runs (channels + 1,): signed length of the current run at full scale per channel; last, samples in runs so far.
    window (3,): peak, energy and frames of the current window. out (n, 2): finished windows; returns how many.
    """
    channels, frames = block.shape
    done = 0
    for frame in range(frames):
        left = np.float64(block[0, frame])
        right = np.float64(block[channels - 1, frame])
        sums[0] += left
        sums[1] += right
        sums[2] += left * left
        sums[3] += right * right
        sums[4] += left * right
        for channel in range(channels):
            value = block[channel, frame]
            sign = 1 if value >= _FULL_SCALE else (-1 if value <= -_FULL_SCALE else 0)
            run = runs[channel] + sign if sign * runs[channel] >= 0 and sign != 0 else sign
            runs[channel] = run
            if abs(run) == _CLIPPED_RUN:
                runs[channels] += _CLIPPED_RUN
            elif abs(run) > _CLIPPED_RUN:
                runs[channels] += 1
        window[0] = max(window[0], abs(left), abs(right))
        window[1] += left * left + right * right
        window[2] += 1
        if window[2] == window_frames:
            out[done, 0], out[done, 1] = window[0], window[1]
            window[:] = 0.0
            done += 1
    return done


class LevelMeter:
    """Streaming sums over samples; readings do not depend on how the stream was cut."""

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        self._channels = channels
        self._frames = 0
        self._sums = np.zeros(5)
        self._runs = np.zeros(channels + 1, np.int64)
        self._window = np.zeros(3)
        self._window_frames = sample_rate_hertz // 2
        self._peaks = array("d")  # per half second
        self._energies = array("d")

    def process(self, block: Float32Array) -> None:
        """Take the next block, float32 (channels, frames), one or two channels, contiguous."""
        out = np.empty((block.shape[1] // self._window_frames + 1, 2))
        done = _accumulate(block, self._sums, self._runs, self._window, self._window_frames, out)
        self._frames += block.shape[1]
        self._peaks.extend(out[:done, 0])
        self._energies.extend(out[:done, 1])

    @property
    def mean_square(self) -> float:
        """Mean square over all channels; 0 for nothing."""
        return float(self._sums[_LEFT_SQUARED] + self._sums[_RIGHT_SQUARED]) / 2 / max(self._frames, 1)

    @property
    def clipped_samples(self) -> int:
        """Samples in runs of three or more at full scale."""
        return int(self._runs[-1])

    @property
    def dc_offset(self) -> tuple[float, ...]:
        """Mean of each channel."""
        return tuple(float(value) / max(self._frames, 1) for value in self._sums[: self._channels])

    @property
    def mono_mean(self) -> float | None:
        """Mean of (L+R)/2; None for nothing."""
        return float(self._sums[_LEFT] + self._sums[_RIGHT]) / 2 / self._frames if self._frames else None

    @property
    def mono_deviation(self) -> float | None:
        """Standard deviation of (L+R)/2, divided by frames - 1; None under two frames."""
        if self._frames < 2:
            return None
        total = float(self._sums[_LEFT] + self._sums[_RIGHT]) / 2
        squares = float(self._sums[_LEFT_SQUARED] + self._sums[_RIGHT_SQUARED] + 2 * self._sums[_PRODUCT]) / 4
        return math.sqrt(max(0.0, squares - total * total / self._frames) / (self._frames - 1))

    @property
    def correlation(self) -> float | None:
        """Of left and right, -1 to 1; None for one channel and where a channel is silent."""
        energy = float(self._sums[_LEFT_SQUARED] * self._sums[_RIGHT_SQUARED])
        if self._channels == 1 or energy <= 0.0:
            return None
        return max(-1.0, min(1.0, float(self._sums[_PRODUCT]) / math.sqrt(energy)))

    @property
    def mid_and_side(self) -> tuple[float, float]:
        """Energies of (L+R)/2 and (L-R)/2, summed over frames."""
        both = float(self._sums[_LEFT_SQUARED] + self._sums[_RIGHT_SQUARED])
        product = float(self._sums[_PRODUCT])
        return max(0.0, (both + 2 * product) / 4), max(0.0, (both - 2 * product) / 4)

    @property
    def flat_dynamics_index(self) -> float | None:
        """See the module; None under one second or for silence."""
        peaks, energies = np.array(self._peaks), np.array(self._energies)
        if len(peaks) < 2:
            return None
        peaks = np.maximum(peaks[:-1], peaks[1:])
        powers = (energies[:-1] + energies[1:]) / (4 * self._window_frames)
        active = powers > _ACTIVE_POWER * powers.mean()
        if not active.any():
            return None
        crest_db = float(np.median(20 * np.log10(peaks[active]) - 10 * np.log10(powers[active])))
        return 1.0 / (1.0 + math.exp((crest_db - _FLAT_CREST_DB) / _FLAT_WIDTH_DB))
