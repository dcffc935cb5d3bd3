"""Level-dependent gain: a feed-forward compressor (and upward expander).

The compressor is the log-domain, return-to-zero design with branching attack and release of D. Giannoulis, M. Massberg
and J. Reiss, *Digital dynamic range compressor design: a tutorial and analysis*, JAES 60(6), 2012:

    level (peak or RMS, dB) -> static curve with a quadratic knee -> gain (dB) -> one-pole attack / release -> x

A time constant is the time in which the gain (in dB) covers 1 - 1/e = 63 % of a step. All state is carried per frame:
the result does not depend on how the stream is cut. Gain 0 dB multiplies by exactly 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.filters import Audio, SosFilter, butterworth_high_pass, butterworth_low_pass

Gains = NDArray[np.float64]
Frames = NDArray[np.int64]

# Silence, for the detector: -140 dBFS. Below it nothing is heard and the logarithm would run away.
_FLOOR_POWER = 1e-14
# Gains nearer to 0 dB than this are 0 dB: exact nulls, and no denormals in the release tail.
_NULL_DB = 1e-9
# Averages of gain change leave out frames whose level is below this: gaps would hide what happens while it plays.
_ACTIVE_DB = -60.0
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class CompressorSettings:
    """All numbers of one compressor.

    Attributes:
        threshold_db: level (dBFS) above which the gain changes.
        ratio: input change over output change above the threshold; over 1 compresses, 0.5 to 1 expands upward.
        knee_db: width of the quadratic bend around the threshold; 0 is a corner.
        attack_ms: time constant while the gain moves away from 0 dB.
        release_ms: time constant while it comes back.
        makeup_db: gain after compression.
        lookahead_ms: how far the gain runs ahead of the sound; this is the processor's latency.
        detector: ``peak`` (largest magnitude of any channel) or ``rms`` (mean power of the channels).
        mix: share of the processed signal; 1 is compression, in between is parallel compression, 0 a bypass.
        sidechain_high_pass_hertz: corner of a 2nd-order high-pass in the detector's path; None: none.
        sidechain_low_pass_hertz: corner of a 2nd-order low-pass there; None: none.
        sidechain: name of the strip or bus that drives the detector, for the console that routes it; empty: itself.
        rms_ms: averaging time constant of the ``rms`` detector.
        hold_ms: how long the ``peak`` detector keeps a peak; half the lowest note's period stops gain ripple.
        range_db: the gain never moves further than this from 0 dB.
    """

    threshold_db: float
    ratio: float
    knee_db: float = 6.0
    attack_ms: float = 10.0
    release_ms: float = 120.0
    makeup_db: float = 0.0
    lookahead_ms: float = 0.0
    detector: Literal["peak", "rms"] = "rms"
    mix: float = 1.0
    sidechain_high_pass_hertz: float | None = None
    sidechain_low_pass_hertz: float | None = None
    sidechain: str = ""
    rms_ms: float = 10.0
    hold_ms: float = 0.0
    range_db: float = 24.0

    def __post_init__(self) -> None:
        if not self.ratio >= 0.5:
            raise ValueError(f"ratio must be at least 0.5, not {self.ratio}")
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"mix must be in 0..1, not {self.mix}")
        if self.detector not in ("peak", "rms"):
            raise ValueError(f"detector must be 'peak' or 'rms', not {self.detector!r}")


@njit(nogil=True, cache=True)
def static_gain_db(level_db: float, threshold_db: float, slope: float, knee_db: float, range_db: float) -> float:
    """Gain of the static curve; ``slope`` is ``1 / ratio - 1`` (negative compresses)."""
    over = level_db - threshold_db
    if 2.0 * over <= -knee_db:
        return 0.0
    if 2.0 * over < knee_db:
        over = (over + knee_db / 2.0) ** 2 / (2.0 * knee_db)
    return float(min(max(slope * over, -range_db), range_db))


def smoothing_coefficient(time_ms: float, sample_rate_hertz: int) -> float:
    """Pole of the one-pole filter with that time constant; 0 ms follows at once."""
    return math.exp(-1000.0 / (time_ms * sample_rate_hertz)) if time_ms > 0 else 0.0


@njit(nogil=True, cache=True)
def _peak_powers(key: NDArray[Any], hold: int, values: Gains, ages: Frames, ends: Frames) -> Gains:
    """Largest squared magnitude of any channel over the last ``hold + 1`` frames: a monotonic queue in a ring."""
    channels, frames = key.shape
    size = len(values)
    powers = np.empty(frames)
    head, tail, now = ends[0], ends[1], ends[2]
    for i in range(frames):
        power = 0.0
        for c in range(channels):
            power = max(power, np.float64(key[c, i]) ** 2)
        while tail > head and values[(tail - 1) % size] <= power:
            tail -= 1
        values[tail % size], ages[tail % size] = power, now
        tail += 1
        while ages[head % size] < now - hold:
            head += 1
        now += 1
        powers[i] = values[head % size]
    ends[0], ends[1], ends[2] = head, tail, now
    return powers


@njit(nogil=True, cache=True)
def mean_powers(key: NDArray[Any], pole: float, state: Gains) -> Gains:
    """Mean power of the channels of ``key``, averaged by one pole; ``state`` (1,) is carried on."""
    channels, frames = key.shape
    powers = np.empty(frames)
    mean = state[0]
    for i in range(frames):
        power = 0.0
        for c in range(channels):
            power += np.float64(key[c, i]) ** 2
        mean = power / channels + pole * (mean - power / channels)
        if mean < 1e-30:
            mean = 0.0
        powers[i] = mean
    state[0] = mean
    return powers


@njit(nogil=True, cache=True)
def _gain_curve(
    levels_db: Gains,
    curve: tuple[float, float, float, float],
    attack: float,
    release: float,
    state: Gains,
    totals: Gains,
) -> Gains:
    """Gain in dB for every frame; ``totals`` gathers (sum, extreme, active frames) of the gain while it plays."""
    threshold_db, slope, knee_db, range_db = curve
    gains = np.empty(len(levels_db))
    gain = state[0]
    for i in range(len(levels_db)):
        level_db = levels_db[i]
        target = static_gain_db(level_db, threshold_db, slope, knee_db, range_db)
        pole = attack if abs(target) > abs(gain) else release
        gain = target + pole * (gain - target)
        if abs(gain) < _NULL_DB:
            gain = 0.0
        gains[i] = gain
        if level_db > _ACTIVE_DB:
            totals[0] += gain
            totals[2] += 1.0
        if abs(gain) > abs(totals[1]):
            totals[1] = gain
    state[0] = gain
    return gains


@njit(nogil=True, cache=True)
def apply_gain(block: NDArray[Any], gains_db: Gains, makeup: float, mix: float) -> Audio:
    """``block`` (channels, frames) times the gain of every frame, blended with itself; held within float32."""
    channels, frames = block.shape
    out = np.empty((channels, frames), np.float32)
    for i in range(frames):
        gain = 1.0
        if gains_db[i] != 0.0:
            gain = math.exp(gains_db[i] * 0.11512925464970228)  # 10 ** (dB / 20)
        gain = 1.0 + mix * (gain * makeup - 1.0)
        for c in range(channels):
            out[c, i] = min(max(block[c, i] * gain, -_FLOAT32_MAX), _FLOAT32_MAX)
    return out


class Delay:
    """Delays a stream by whole frames (zeros first)."""

    def __init__(self, channels: int, frames: int) -> None:
        self._kept = np.zeros((channels, frames), np.float32)

    def process(self, block: Audio) -> Audio:
        """As many frames as ``block`` has, from ``frames`` earlier."""
        size = self._kept.shape[1]
        if size == 0:
            return block
        joined = np.concatenate([self._kept, block], axis=1)
        self._kept = joined[:, joined.shape[1] - size :].copy()
        return joined[:, : block.shape[1]]


class GainFigures:
    """How far a processor has moved the sound so far: what its kernel adds up block by block, for its report."""

    def __init__(self) -> None:
        # Sum of the gains in dB, the furthest of them, frames that the sum counts.
        self._totals = np.zeros(3)

    @property
    def average_gain_db(self) -> float:
        """Mean gain in dB over the frames that count; 0 when none does."""
        return float(self._totals[0] / self._totals[2]) if self._totals[2] else 0.0

    @property
    def extreme_gain_db(self) -> float:
        """The gain furthest from 0 dB."""
        return float(self._totals[1])


class GainComputer(GainFigures):
    """Detector, static curve and ballistics: from a key signal to a gain in dB for every frame.

    The mean gain counts the frames in which the key was above -60 dBFS; negative: reduction.
    """

    def __init__(self, settings: CompressorSettings, sample_rate_hertz: int) -> None:
        super().__init__()
        self._curve = (
            float(settings.threshold_db),
            1.0 / settings.ratio - 1.0,
            float(settings.knee_db),
            float(settings.range_db),
        )
        self._attack = smoothing_coefficient(settings.attack_ms, sample_rate_hertz)
        self._release = smoothing_coefficient(settings.release_ms, sample_rate_hertz)
        self._peak = settings.detector == "peak"
        self._rms = smoothing_coefficient(settings.rms_ms, sample_rate_hertz)
        self._hold = round(settings.hold_ms * sample_rate_hertz / 1000.0)
        self._queue = np.zeros(self._hold + 2)
        self._ages = np.zeros(self._hold + 2, np.int64)
        self._ends = np.zeros(3, np.int64)
        self._mean, self._gain = np.zeros(1), np.zeros(1)

    def process(self, key: NDArray[Any]) -> Gains:
        """Gain in dB, shape ``(frames,)``, for the key signal ``(channels, frames)``."""
        if self._peak:
            return self.follow(_peak_powers(key, self._hold, self._queue, self._ages, self._ends))
        return self.follow(mean_powers(key, self._rms, self._mean))

    def follow(self, powers: Gains) -> Gains:
        """Gain in dB for a level that was detected elsewhere, as power ``(frames,)``."""
        # NumPy's logarithm of a whole block takes a twentieth of the time that a kernel takes frame by frame.
        levels_db = 10.0 * np.log10(np.maximum(powers, _FLOOR_POWER))
        gains: Gains = _gain_curve(levels_db, self._curve, self._attack, self._release, self._gain, self._totals)
        return gains


class Compressor:
    """A compressor (ratio over 1) or upward expander (ratio under 1), all channels moved by one gain.

    Its output is ``latency_frames`` late: feed that many more frames (zeros) and drop as many at the start.
    """

    def __init__(self, settings: CompressorSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self.latency_frames = round(settings.lookahead_ms * sample_rate_hertz / 1000.0)
        self._computer = GainComputer(settings, sample_rate_hertz)
        self._rate = sample_rate_hertz
        self._key_filter: SosFilter | None = None
        self._delay = Delay(channels, self.latency_frames)
        self._makeup = 10.0 ** (settings.makeup_db / 20.0)

    def process(self, block: Audio, key: NDArray[Any] | None = None) -> Audio:
        """Processed copy of ``block`` (channels, frames).

        Args:
            key: external sidechain of as many frames (any channels, the same every time); None: the block itself.
        """
        key = block if key is None else key
        if key.shape[1] != block.shape[1]:
            raise ValueError(f"sidechain has {key.shape[1]} frames, the block {block.shape[1]}")
        gains = self._computer.process(self._filtered(key))
        out: Audio = apply_gain(self._delay.process(block), gains, self._makeup, self.settings.mix)
        return out

    def _filtered(self, key: NDArray[Any]) -> NDArray[Any]:
        sections = []
        if self.settings.sidechain_high_pass_hertz is not None:
            sections.append(butterworth_high_pass(self.settings.sidechain_high_pass_hertz, self._rate))
        if self.settings.sidechain_low_pass_hertz is not None:
            sections.append(butterworth_low_pass(self.settings.sidechain_low_pass_hertz, self._rate))
        if not sections:
            return key
        if self._key_filter is None:  # only the first key tells how many channels it has
            self._key_filter = SosFilter(np.concatenate(sections), len(key))
        return self._key_filter.process(key)

    @property
    def average_gain_reduction_db(self) -> float:
        """Mean reduction in dB (positive) while the key was above -60 dBFS; negative for an expander.

        Of the blend, where only a share is compressed; the make-up is no part of it.
        """
        return -self._blended(self._computer.average_gain_db)

    @property
    def max_gain_reduction_db(self) -> float:
        """Largest reduction in dB so far (positive); negative for an expander. Of the blend, as the mean."""
        return -self._blended(self._computer.extreme_gain_db)

    def _blended(self, gain_db: float) -> float:
        mix = self.settings.mix
        if mix == 1.0:
            return gain_db
        return float(20.0 * math.log10(max(1.0 - mix + mix * 10.0 ** (gain_db / 20.0), 1e-7)))
