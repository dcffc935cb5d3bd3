"""Dynamic equaliser: a bell whose gain follows the level in its own band, or in another signal's.

    y = x + (g - 1) * B(x),   g = 10 ** (gain / 20)

with ``B`` the constant-peak band-pass of the RBJ cookbook: at gain 0 dB the output is the input exactly, at its centre
the gain is ``g`` exactly, and moving ``g`` moves no filter coefficient (no zipper noise, nothing can become unstable).
The gain comes from the compressor's own curve and ballistics (``outboard.audio.dynamics``), so a band cuts while its
level is above the threshold and does nothing at all below it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.dynamics import CompressorSettings, Delay, GainComputer, Gains, mean_powers, smoothing_coefficient
from outboard.audio.filters import Audio, SosFilter, band_pass

# Averaging of band and whole when the one is weighed against the other: a few periods of 200 Hz.
_RELATIVE_MS = 40.0
# A signal quieter than this (-70 dBFS) has no balance worth mending.
_SILENT_POWER = 1e-7
_KNEE_DB = 4.0
_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class DynamicBandSettings:
    """All numbers of one band.

    Attributes:
        frequency_hertz: centre.
        q: centre over width between the -3 dB points of the band.
        ratio: input change over output change above the threshold, over 1.
        range_db: furthest gain; negative cuts, positive lifts.
        threshold_db: level in the band (dBFS, RMS) above which it acts; ignored where ``relative_threshold_db`` is set.
        relative_threshold_db: level of the band over the level of the whole key, in dB, above which it acts: what a
            congested moment is, however loud it is.
        attack_ms: time constant away from 0 dB, behind a detector that averages over 10 ms (40 ms where band and
            whole are weighed).
        release_ms: time constant back.
        sidechain: name of the strip or bus that drives it, for the console that routes it; empty: itself.
        shape: ``peak`` is the only shape so far.
        lookahead_ms: how far the gain runs ahead of the sound; this is the band's latency.
    """

    frequency_hertz: float
    q: float
    ratio: float
    range_db: float
    threshold_db: float = 0.0
    relative_threshold_db: float | None = None
    attack_ms: float = 20.0
    release_ms: float = 150.0
    sidechain: str = ""
    shape: Literal["peak"] = "peak"
    lookahead_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.shape != "peak":
            raise ValueError(f"a dynamic band has the shape 'peak', not {self.shape!r}")
        if not self.ratio >= 1.0:
            raise ValueError(f"ratio must be at least 1, not {self.ratio}")


@njit(nogil=True, cache=True)
def blend(block: NDArray[Any], band: NDArray[np.float64], gains_db: Gains, sign: float) -> Audio:
    """``block + (g - 1) * band`` (channels, frames), ``g`` from ``sign`` times the gain of every frame in dB."""
    channels, frames = band.shape
    out = np.empty((channels, frames), np.float32)
    for i in range(frames):
        part = 0.0
        if gains_db[i] != 0.0:
            part = np.exp(sign * gains_db[i] * 0.11512925464970228) - 1.0  # 10 ** (dB / 20) - 1
        for c in range(channels):
            out[c, i] = min(max(block[c, i] + part * band[c, i], -_FLOAT32_MAX), _FLOAT32_MAX)
    return out


class DynamicBand:
    """One band at work, ``latency_frames`` late; all channels are moved by one gain."""

    def __init__(self, settings: DynamicBandSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self._sos = band_pass(settings.frequency_hertz, settings.q, sample_rate_hertz)
        self._band = SosFilter(self._sos, channels)
        self._key_band: SosFilter | None = None
        self.latency_frames = round(settings.lookahead_ms * sample_rate_hertz / 1000.0)
        self._late = Delay(channels, self.latency_frames)
        self._late_band = SosFilter(self._sos, channels)
        relative = settings.relative_threshold_db
        # The curve always computes a reduction; a lifting band turns its sign.
        self._sign = -1.0 if settings.range_db > 0 else 1.0
        self._computer = GainComputer(
            CompressorSettings(
                threshold_db=settings.threshold_db if relative is None else relative,
                ratio=settings.ratio,
                knee_db=_KNEE_DB,
                attack_ms=settings.attack_ms,
                release_ms=settings.release_ms,
                range_db=abs(settings.range_db),
            ),
            sample_rate_hertz,
        )
        self._pole = smoothing_coefficient(_RELATIVE_MS, sample_rate_hertz)
        self._band_mean, self._whole_mean = np.zeros(1), np.zeros(1)

    def process(self, block: Audio, key: NDArray[Any] | None = None) -> Audio:
        """Processed copy of ``block`` (channels, frames); ``key``: the signal that drives it, itself when None."""
        band = self._band.process(np.asarray(block, np.float64))
        if key is None:
            key, key_band = block, band
        else:
            if self._key_band is None:  # only the first key tells how many channels it has
                self._key_band = SosFilter(self._sos, len(key))
            key_band = self._key_band.process(np.asarray(key, np.float64))
        if self.settings.relative_threshold_db is None:
            gains = self._computer.process(key_band)
        else:
            powers = mean_powers(key_band, self._pole, self._band_mean)
            whole = mean_powers(key, self._pole, self._whole_mean)
            gains = self._computer.follow(
                np.where(whole > _SILENT_POWER, powers / np.maximum(whole, _SILENT_POWER), 0.0)
            )
        if self.latency_frames:
            block = self._late.process(block)
            band = self._late_band.process(np.asarray(block, np.float64))
        out: Audio = blend(block, band, gains, self._sign)
        return out

    @property
    def average_gain_db(self) -> float:
        """Mean gain at the centre in dB while the key played."""
        return self._sign * self._computer.average_gain_db

    @property
    def extreme_gain_db(self) -> float:
        """Furthest gain at the centre in dB so far."""
        return self._sign * self._computer.extreme_gain_db
