"""Transient shaper: lifts or lowers the onsets of sounds and what rings after them, whatever their level.

Differential envelopes (the principle of SPL's Transient Designer): a fast and a slow follower of the same level
differ only where the level changes. At an onset the fast one is ahead; in a decay it is below. The difference in dB,
held within ±1 over ``FULL_DB``, steers the gain:

    attack:  fast rises in 1 ms, slow rises in ``attack_ms``; both fall together
    sustain: fast falls in 20 ms, slow falls in ``sustain_ms``; both rise together

Level changes of the whole programme move both followers, so the processor does not care how loud the music is.

With `low_hertz` only what lies above it (second-order Butterworth high-pass h) is followed and moved:
y = x + (g - 1) h. A stroke that hardly shows in the level of a bass-heavy mix stands out there, and lifting its top
costs few peaks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.dynamics import GainFigures, Gains, apply_gain, smoothing_coefficient
from outboard.audio.filters import Audio, SosFilter, butterworth_high_pass, to_float32

# Lead of the fast follower over the slow one at which the full gain is given.
FULL_DB = 12.0
# Smaller differences are the ripple of a steady tone's own power.
_DEAD_DB = 1.0
_RIPPLE_MS = 2.0
_FAST_RISE_MS = 1.0
_FAST_FALL_MS = 20.0
_COMMON_FALL_MS = 60.0
# The gain itself is smoothed by this much: steps would click.
_SMOOTH_MS = 1.0
_FLOOR_POWER = 1e-7
_HIGHEST_SHARE = 0.45  # of the sample rate: the highest corner
_ACTIVE_POWER = 1e-6


@dataclass(frozen=True)
class TransientSettings:
    """All numbers of one transient shaper.

    Attributes:
        attack_db: gain of onsets, -12 to 12.
        sustain_db: gain of decays, -12 to 12.
        attack_ms: how long an onset lasts: time constant of the level that it is held against.
        sustain_ms: time constant with which the level falls that a decay is held against.
        low_hertz: only what lies above this is heard and moved, at most 20000; None: all of it.
    """

    attack_db: float = 0.0
    sustain_db: float = 0.0
    attack_ms: float = 20.0
    sustain_ms: float = 200.0
    low_hertz: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("attack_db", self.attack_db), ("sustain_db", self.sustain_db)):
            if not -12.0 <= value <= 12.0:
                raise ValueError(f"{name} must be in -12..12, not {value}")
        if self.low_hertz is not None and not 0.0 < self.low_hertz <= 20_000.0:
            raise ValueError(f"low_hertz must be above 0 and at most 20000, not {self.low_hertz}")


@njit(nogil=True, cache=True)
def _shape(block: Audio, amounts: Gains, poles: Gains, state: Gains, totals: Gains) -> Gains:
    """Gain in dB per frame; state: attack fast, attack slow, sustain fast, sustain slow, smoothed power, gain."""
    channels, frames = block.shape
    gains = np.empty(frames)
    fast_rise, slow_rise, common_fall, fast_fall, slow_fall, smooth, ripple = poles
    for i in range(frames):
        power = _FLOOR_POWER
        for c in range(channels):
            power += np.float64(block[c, i]) ** 2 / channels
        power = power + ripple * (state[4] - power)
        state[4] = power
        for k in range(4):
            if k < 2:
                pole = (fast_rise if k == 0 else slow_rise) if power > state[k] else common_fall
            else:
                pole = fast_rise if power > state[k] else (fast_fall if k == 2 else slow_fall)
            state[k] = power + pole * (state[k] - power)
        attack = min(max((10.0 * np.log10(state[0] / state[1]) - _DEAD_DB) / (FULL_DB - _DEAD_DB), 0.0), 1.0)
        sustain = min(max((10.0 * np.log10(state[3] / state[2]) - _DEAD_DB) / (FULL_DB - _DEAD_DB), 0.0), 1.0)
        target = amounts[0] * attack + amounts[1] * sustain
        gain = target + smooth * (state[5] - target)
        if abs(gain) < 1e-9:
            gain = 0.0
        state[5] = gain
        gains[i] = gain
        if power > _ACTIVE_POWER:
            totals[0] += gain
            totals[2] += 1.0
        if abs(gain) > abs(totals[1]):
            totals[1] = gain
    return gains


class TransientShaper(GainFigures):
    """One transient shaper at work; latency 0; all channels moved by one gain; amounts of 0 dB change nothing.

    Above 0.45 of the sample rate there is no band to move: the signal passes.
    The mean gain counts what lies above -60 dBFS.
    """

    def __init__(self, settings: TransientSettings, sample_rate_hertz: int, channels: int = 2) -> None:
        super().__init__()
        self.settings = settings
        times_ms = (
            _FAST_RISE_MS,
            settings.attack_ms,
            _COMMON_FALL_MS,
            _FAST_FALL_MS,
            settings.sustain_ms,
            _SMOOTH_MS,
            _RIPPLE_MS,
        )
        self._poles = np.array([smoothing_coefficient(ms, sample_rate_hertz) for ms in times_ms])
        self._amounts = np.array([settings.attack_db, settings.sustain_db])
        self._state = np.array([_FLOOR_POWER] * 5 + [0.0])
        self._band: SosFilter | None = None
        if settings.low_hertz is not None:
            if settings.low_hertz > _HIGHEST_SHARE * sample_rate_hertz:
                self._amounts[:] = 0.0
            else:
                self._band = SosFilter(butterworth_high_pass(settings.low_hertz, sample_rate_hertz), channels)

    def process(self, block: Audio) -> Audio:
        """Processed copy of ``block`` (channels, frames)."""
        if not self._amounts.any():
            return block
        band = block if self._band is None else to_float32(self._band.process(block))
        gains: NDArray[np.float64] = _shape(band, self._amounts, self._poles, self._state, self._totals)
        if self._band is None:
            out: Audio = apply_gain(block, gains, 1.0, 1.0)
            return out
        return to_float32(block.astype(np.float64) + (apply_gain(band, gains, 1.0, 1.0) - band))
