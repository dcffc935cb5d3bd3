"""A downward expander: what is quieter than a threshold is made quieter still; with a high ratio, a gate.

The mirror image of the compressor (``outboard.audio.dynamics``; D. Giannoulis, M. Massberg, J. Reiss, JAES 60(6),
2012): the level is read as power over 5 ms, and

    gain = max(range, (ratio - 1) (level - threshold))   below the threshold,   0 dB above

moves by one pole with the attack's time constant where it opens and the release's where it closes, and waits for the
hold before it begins to close, so that a decaying note does not chatter. All channels are moved by one gain; 0 dB is
exactly 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.dynamics import Delay, GainFigures, Gains, apply_gain, mean_powers, smoothing_coefficient
from outboard.audio.filters import Audio

_RMS_MS = 5.0
_FLOOR_POWER = 1e-14
_NULL_DB = 1e-9


@dataclass(frozen=True)
class ExpanderSettings:
    """All numbers of one expander.

    Attributes:
        threshold_db: level (dBFS, RMS) below which it acts.
        ratio: output over input change below the threshold, 1 (nothing) to 100 (a gate).
        range_db: most attenuation, negative.
        attack_ms: time constant of opening, behind a detector that averages over 5 ms.
        hold_ms: how long it stays open after the level has fallen.
        release_ms: time constant of closing.
        lookahead_ms: how far the gain runs ahead of the sound; this is the processor's latency.
        sidechain: name of the strip or bus that opens it, for the console that routes it; empty: itself.
    """

    threshold_db: float
    ratio: float = 2.0
    range_db: float = -12.0
    attack_ms: float = 1.0
    hold_ms: float = 20.0
    release_ms: float = 100.0
    lookahead_ms: float = 0.0
    sidechain: str = ""

    def __post_init__(self) -> None:
        if not self.ratio >= 1.0:
            raise ValueError(f"ratio must be at least 1, not {self.ratio}")
        if not self.range_db <= 0.0:
            raise ValueError(f"range_db must be at most 0, not {self.range_db}")


@njit(nogil=True, cache=True)
def _gain_curve(
    powers: Gains, curve: tuple[float, float, float], poles: tuple[float, float], hold: int, state: Gains, totals: Gains
) -> Gains:  # pragma: no cover - compiled
    """Gain in dB for every frame; ``state``: gain, frames left of the hold; ``totals``: sum, extreme, frames."""
    threshold_db, slope, range_db = curve
    attack, release = poles
    gains = np.empty(len(powers))
    gain, held = state[0], state[1]
    for i in range(len(powers)):
        level_db = 10.0 * math.log10(max(powers[i], _FLOOR_POWER))
        target = max(range_db, slope * (level_db - threshold_db)) if level_db < threshold_db else 0.0
        if target >= gain:
            held = hold
            gain = target + attack * (gain - target)
        elif held > 0.0:
            held -= 1.0
        else:
            gain = target + release * (gain - target)
        if abs(gain) < _NULL_DB:
            gain = 0.0
        gains[i] = gain
        totals[0] += gain
        totals[1] = min(totals[1], gain)
        totals[2] += 1.0
    state[0], state[1] = gain, held
    return gains


class Expander(GainFigures):
    """An expander at work; its output is ``latency_frames`` late; its mean gain counts the gaps that it lowers too."""

    def __init__(self, settings: ExpanderSettings, sample_rate_hertz: int, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.latency_frames = round(settings.lookahead_ms * sample_rate_hertz / 1000.0)
        self._curve = (float(settings.threshold_db), settings.ratio - 1.0, float(settings.range_db))
        self._poles = (
            smoothing_coefficient(settings.attack_ms, sample_rate_hertz),
            smoothing_coefficient(settings.release_ms, sample_rate_hertz),
        )
        self._hold = round(settings.hold_ms * sample_rate_hertz / 1000.0)
        self._rms = smoothing_coefficient(_RMS_MS, sample_rate_hertz)
        self._mean, self._state = np.zeros(1), np.zeros(2)
        self._delay = Delay(channels, self.latency_frames)

    def process(self, block: Audio, key: NDArray[Any] | None = None) -> Audio:
        """Processed copy of ``block`` (channels, frames); ``key``: the signal that opens it, itself when None."""
        powers = mean_powers(block if key is None else key, self._rms, self._mean)
        gains = _gain_curve(powers, self._curve, self._poles, self._hold, self._state, self._totals)
        out: Audio = apply_gain(self._delay.process(block), gains, 1.0, 1.0)
        return out
