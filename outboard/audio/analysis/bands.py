"""The long-term spectrum: levels by band and third of an octave against a target, its upper end, and the noise floor.

**Target.** Released music is pink noise (equal energy per octave) with less at both ends: the target rises by 3 dB
per octave from 20 to 60 Hz, is pink to 100 Hz and falls by 1.5 dB per octave above. Levels are relative to the energy
from 20 Hz to 16 kHz (or to Nyquist, for audio and target alike), so that gain does not matter.

**Bandwidth.** The highest frequency at which the mean power spectrum is within 80 dB of its highest point.

**Noise floor.** The level that 95 % of the frames of 85 ms exceed.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from outboard.audio.analysis.result import BandLevel
from outboard.audio.spectrum import SpectrumBatch

_EDGES_HERTZ = (20.0, 60.0, 200.0, 500.0, 2000.0, 6000.0, 16000.0)
_THIRD = 10.0**0.05  # half a third of an octave, base ten as in IEC 61260-1
_THIRDS_HERTZ = tuple(1000.0 * 10.0 ** (k / 10.0) for k in range(-15, 13))
# (from hertz, to hertz, slope in dB per octave on top of pink)
_TARGET = ((20.0, 60.0, 3.0), (60.0, 100.0, 0.0), (100.0, 24000.0, -1.5))
_BANDWIDTH_DEPTH = 1e-8  # 80 dB
_LEVELS_LOW_DB, _LEVELS_STEP_DB, _LEVELS_COUNT = -140.0, 0.1, 1600  # histogram of frame levels, -140 to +20 dBFS
_FLOOR_SHARE = 0.05


class LongTermSpectrum:
    """Mean power spectrum of a stream of spectra, and a histogram of the frames' levels."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        self._bin_hertz = bin_hertz
        self._power = np.zeros(bins)
        self._levels = np.zeros(_LEVELS_COUNT, np.int64)

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        self._power += batch.power.sum(axis=0, dtype=np.float64)
        levels_db = 10 * np.log10(batch.power.sum(axis=1, dtype=np.float64) + 1e-30)
        places = np.clip((levels_db - _LEVELS_LOW_DB) / _LEVELS_STEP_DB, 0, _LEVELS_COUNT - 1).astype(np.int64)
        self._levels += np.bincount(places, minlength=_LEVELS_COUNT)

    @property
    def noise_floor_dbfs(self) -> float | None:
        """See the module; None where it is under -140 dBFS."""
        place = int(np.searchsorted(np.cumsum(self._levels), _FLOOR_SHARE * self._levels.sum()))
        return _LEVELS_LOW_DB + _LEVELS_STEP_DB * place if 0 < place < _LEVELS_COUNT else None

    @property
    def bandwidth_hertz(self) -> float | None:
        """See the module; None for silence."""
        largest = float(self._power.max())
        if largest <= 0.0:
            return None
        return float(np.flatnonzero(self._power >= largest * _BANDWIDTH_DEPTH)[-1] * self._bin_hertz)

    @property
    def band_levels(self) -> tuple[BandLevel, ...]:
        """See the module; bands that begin over Nyquist are left out; empty for silence."""
        return self._levels_against_target(list(pairwise(_EDGES_HERTZ)))

    @property
    def third_octaves(self) -> tuple[BandLevel, ...]:
        """See `Analysis`."""
        return self._levels_against_target([(hertz / _THIRD, hertz * _THIRD) for hertz in _THIRDS_HERTZ])

    def _levels_against_target(self, bands: list[tuple[float, float]]) -> tuple[BandLevel, ...]:
        nyquist = self._bin_hertz * (len(self._power) - 1)
        lowest, highest = _EDGES_HERTZ[0], min(_EDGES_HERTZ[-1], nyquist)
        bands = [(low, min(high, nyquist)) for low, high in bands if low < nyquist]
        whole, whole_target = self._energy(lowest, highest), _target_energy(lowest, highest)
        if whole <= 0.0:
            return ()
        levels = []
        for low, high in bands:
            level = 10 * math.log10(max(self._energy(low, high) / whole, 1e-15))
            target = 10 * math.log10(_target_energy(low, high) / whole_target)
            levels.append(BandLevel(low, high, level, target, level - target))
        return tuple(levels)

    def _energy(self, low_hertz: float, high_hertz: float) -> float:
        """Energy of a band; bins that an edge cuts count by their share."""
        edges = np.clip(np.array([low_hertz, high_hertz]) / self._bin_hertz + 0.5, 0, len(self._power))
        cumulated = np.concatenate([[0.0], np.cumsum(self._power)])
        low, high = np.interp(edges, np.arange(len(cumulated)), cumulated)
        return float(high - low)


def _target_energy(low_hertz: float, high_hertz: float) -> float:
    """Integral of the target's density, ``f^(slope - 1)`` in each of its segments, joined without steps."""
    energy, density = 0.0, 1.0  # density per octave at the segment's beginning
    for begin, end, slope_db in _TARGET:
        exponent = slope_db / 10 / math.log10(2)
        low, high = max(low_hertz, begin), min(high_hertz, end)
        if high > low:
            spans = (high / begin) ** exponent - (low / begin) ** exponent
            energy += density * (spans / exponent if exponent else math.log(high / low))
        density *= (end / begin) ** exponent
    return energy
