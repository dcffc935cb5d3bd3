"""Finds the gain into the limiter that brings a song to its loudness target, without rendering anything.

Loudness after limiting is the gated mean of K-weighted power times the squared gain. The gain curve moves slowly
against the audio, so weighting power that was measured once, per control step, by the curve's square predicts the
loudness of the render to a few hundredths of a LU. Trying a gain then costs a gain curve at a sixth of a kilohertz-rate
and a sum, not a render; what little the prediction misses is measured on the render itself and taken out in a second
one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.filters import SosFilter
from outboard.audio.limiter import LimiterSettings, mean_reduction_db, reduction_curve
from outboard.audio.loudness import channel_weights, k_weighting
from outboard.audio.peak_envelope import STEP_FRAMES
from outboard.audio.spool import Spool

Progress = Callable[[float], None]

_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = 10.0
_HOPS_PER_WINDOW = 4
_HOPS_PER_BLOCK = 64
_MOST_TRIALS = 12
_CLOSE_ENOUGH_LU = 0.01


@dataclass(frozen=True)
class Drive:
    """A gain into the limiter and what it leads to.

    Attributes:
        gain_db: in front of the limiter.
        reduction_db: (1, steps), the limiter's curve.
        lufs: predicted loudness; None where there is none.
        average_limiting_db: mean of the curve.
        held_back_by: name of the guard-rail that stopped it short of the target; empty where none did.
    """

    gain_db: float
    reduction_db: NDArray[np.float32]
    lufs: float | None
    average_limiting_db: float
    held_back_by: str = ""


class EnergyMeter:
    """K-weighted power of a stream per control step, summed over channels with BS.1770's weights.

    Feed blocks whose lengths are multiples of the step, but for the last.
    """

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        rows = k_weighting(sample_rate_hertz)
        self._filter = SosFilter(np.insert(rows, 3, 1.0, axis=1), channels)
        self._weights = channel_weights(channels)[:, None]

    def process(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """(1, steps) float32: sum of weighted squares of each step."""
        weighted = self._filter.process(block)
        power = np.sum(self._weights * np.square(weighted, dtype=np.float64), axis=0)
        missing = -power.size % STEP_FRAMES
        steps = np.pad(power, (0, missing)).reshape(-1, STEP_FRAMES).sum(axis=1)
        energies: NDArray[np.float32] = steps[None, :].astype(np.float32)
        return energies


@dataclass(frozen=True)
class LoudnessModel:
    """What the loop knows of a song: peaks and K-weighted energies per control step, both (1, steps) and mapped."""

    peaks: NDArray[np.float32]
    energies: NDArray[np.float32]
    sample_rate_hertz: int
    limiter: LimiterSettings
    spool_factory: Callable[[int], Spool]

    def drive(self, gain_db: float, progress: Progress | None = None) -> Drive:
        """What a gain into the limiter leads to."""
        curve = reduction_curve(self.peaks, self.sample_rate_hertz, gain_db, self.limiter, self.spool_factory, progress)
        return Drive(gain_db, curve, self._loudness(gain_db, curve), mean_reduction_db(curve))

    def _loudness(self, gain_db: float, curve: NDArray[np.float32]) -> float | None:
        hop_steps = round(0.1 * self.sample_rate_hertz / STEP_FRAMES)
        size = hop_steps * _HOPS_PER_BLOCK
        hops = []
        for start in range(0, curve.shape[1] - hop_steps + 1, size):
            gains = 10.0 ** ((gain_db - curve[0, start : start + size].astype(np.float64)) / 10.0)
            energy = gains * self.energies[0, start : start + size]
            whole = energy.size // hop_steps * hop_steps
            hops.append(energy[:whole].reshape(-1, hop_steps).sum(axis=1))
        if not hops:
            return None
        return gated_lufs(np.concatenate(hops), hop_steps * STEP_FRAMES)


def gated_lufs(hop_energies: NDArray[np.float64], hop_frames: int) -> float | None:
    """Integrated loudness (ITU-R BS.1770-4) from the weighted energies of consecutive hops of 100 ms; None where
    unmeasurable.
    """
    if hop_energies.size < _HOPS_PER_WINDOW:
        return None
    windows = np.convolve(hop_energies, np.ones(_HOPS_PER_WINDOW), mode="valid") / (_HOPS_PER_WINDOW * hop_frames)
    loud = windows[windows > 10.0 ** ((_ABSOLUTE_GATE_LUFS - _OFFSET_LUFS) / 10.0)]
    if not loud.size:
        return None
    gate = loud.mean() * 10.0 ** (-_RELATIVE_GATE_LU / 10.0)
    return _OFFSET_LUFS + 10.0 * math.log10(float(loud[loud > gate].mean()))


def find_drive(
    model: LoudnessModel, start_gain_db: float, target_lufs: float, most_limiting_db: float, progress: Progress
) -> Drive:
    """The gain whose predicted loudness is the target, or the highest one that keeps mean limiting within its
    guard-rail.

    Loudness grows with gain by at most 1 LU per dB, so stepping by what is missing approaches from below; mean limiting
    grows with gain too, so once the rail is passed, halving the interval between the last gain within and the first
    beyond finds it.
    """
    within: Drive | None = None
    beyond: float | None = None
    gain = start_gain_db
    for trial in range(_MOST_TRIALS):
        drive = model.drive(gain)
        progress((trial + 1) / _MOST_TRIALS)
        if drive.average_limiting_db > most_limiting_db:
            beyond = gain
            # Below the loudest peak nothing is limited at all: the way back is never longer than the mean limiting
            # itself.
            lowest = within.gain_db if within is not None else gain - 2.0 * drive.average_limiting_db
            gain = 0.5 * (lowest + beyond)
            continue
        within = drive
        if drive.lufs is None or abs(target_lufs - drive.lufs) < _CLOSE_ENOUGH_LU:
            break
        gain = drive.gain_db + (target_lufs - drive.lufs)
        if beyond is not None and gain >= beyond:
            gain = 0.5 * (drive.gain_db + beyond)
        if beyond is not None and beyond - drive.gain_db < 0.02:
            break
    if (
        within is None
    ):  # a song that stands far above the ceiling already: the rail cannot be kept at any loudness near it
        within = model.drive(gain)
    if within.lufs is not None and within.lufs < target_lufs - 0.1 and beyond is not None:
        return Drive(
            within.gain_db, within.reduction_db, within.lufs, within.average_limiting_db, "average_limiting_db"
        )
    return within
