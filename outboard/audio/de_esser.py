"""De-esser: turns the top of a voice down while a sibilant stands out, and only then.

    y = x + (g - 1) * H(x),   g = 10 ** (gain / 20),   H = s / (s + 1): a first-order high-pass

which is ``(g s + 1) / (s + 1)``: an exact shelf for every ``g``, whose filter never moves. The gain follows the power
above the corner (Butterworth, 2nd order) over the voice's own level, which rises at once and falls in 1.5 s: a sibilant
is loud *for this voice*, whatever its level, and a breath is not. Curve and ballistics are the compressor's
(``outboard.audio.dynamics``). At rest it changes no sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from outboard.audio.dynamic_eq import blend
from outboard.audio.dynamics import CompressorSettings, Delay, GainComputer, Gains, mean_powers, smoothing_coefficient
from outboard.audio.filters import Audio, SosFilter, butterworth_high_pass

# Averaging of the powers, and how slowly the voice's level falls.
_BAND_MS = 3.0
_FALL_MS = 1_500.0
_KNEE_DB = 3.0
# A signal quieter than this (-60 dBFS) is no voice.
_SILENT_POWER = 1e-6


@dataclass(frozen=True)
class DeEsserSettings:
    """All numbers of one de-esser.

    Attributes:
        frequency_hertz: corner above which sibilants lie.
        threshold_db: power above the corner over the voice's level, in dB, from which it acts.
        ratio: input change over output change above the threshold, over 1.
        range_db: furthest gain, negative.
        attack_ms: time constant away from 0 dB, behind a detector that averages over 3 ms.
        release_ms: time constant back.
        lookahead_ms: how far the gain runs ahead of the sound; this is the processor's latency.
    """

    frequency_hertz: float = 5_500.0
    threshold_db: float = -10.0
    ratio: float = 4.0
    range_db: float = -6.0
    attack_ms: float = 1.0
    release_ms: float = 40.0
    lookahead_ms: float = 2.0

    def __post_init__(self) -> None:
        if not self.ratio >= 1.0:
            raise ValueError(f"ratio must be at least 1, not {self.ratio}")
        if not self.range_db <= 0.0:
            raise ValueError(f"range_db must be at most 0, not {self.range_db}")


@njit(nogil=True, cache=True)
def voice_levels(powers: Gains, fall: float, state: Gains) -> Gains:  # pragma: no cover - compiled
    """The level that a voice has had lately, as power; ``state`` (1,) is carried on."""
    levels = np.empty(len(powers))
    level = state[0]
    for i in range(len(powers)):
        level = max(powers[i], powers[i] + fall * (level - powers[i]))
        if level < 1e-30:
            level = 0.0
        levels[i] = level
    state[0] = level
    return levels


class SibilanceMeter:
    """Power above a corner over the voice's level, frame by frame: what the de-esser acts on and planners measure."""

    def __init__(self, frequency_hertz: float, sample_rate_hertz: int, channels: int) -> None:
        self._filter = SosFilter(butterworth_high_pass(frequency_hertz, sample_rate_hertz), channels)
        self._band = smoothing_coefficient(_BAND_MS, sample_rate_hertz)
        self._fall = smoothing_coefficient(_FALL_MS, sample_rate_hertz)
        self._band_mean, self._whole_mean, self._level = np.zeros(1), np.zeros(1), np.zeros(1)

    def process(self, block: Audio) -> Gains:
        """The ratio as power, ``(frames,)``; 0 where no voice is."""
        powers = mean_powers(self._filter.process(block), self._band, self._band_mean)
        whole = mean_powers(block, self._band, self._whole_mean)
        levels = voice_levels(whole, self._fall, self._level)
        return np.where(levels > _SILENT_POWER, powers / np.maximum(levels, _SILENT_POWER), 0.0)


class DeEsser:
    """A de-esser at work, ``latency_frames`` late; all channels are moved by one gain."""

    def __init__(self, settings: DeEsserSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self.latency_frames = round(settings.lookahead_ms * sample_rate_hertz / 1000.0)
        self._meter = SibilanceMeter(settings.frequency_hertz, sample_rate_hertz, channels)
        self._top = SosFilter(butterworth_high_pass(settings.frequency_hertz, sample_rate_hertz, 1), channels)
        self._delay = Delay(channels, self.latency_frames)
        self._computer = GainComputer(
            CompressorSettings(
                threshold_db=settings.threshold_db,
                ratio=settings.ratio,
                knee_db=_KNEE_DB,
                attack_ms=settings.attack_ms,
                release_ms=settings.release_ms,
                range_db=-settings.range_db,
            ),
            sample_rate_hertz,
        )

    def process(self, block: Audio) -> Audio:
        """Processed copy of ``block`` (channels, frames)."""
        gains = self._computer.follow(self._meter.process(block))
        late = self._delay.process(block)
        out: Audio = blend(late, self._top.process(np.asarray(late, np.float64)), gains, 1.0)
        return out

    @property
    def average_gain_db(self) -> float:
        """Mean gain of the top in dB while there was any."""
        return self._computer.average_gain_db

    @property
    def extreme_gain_db(self) -> float:
        """Furthest gain of the top in dB so far."""
        return self._computer.extreme_gain_db
