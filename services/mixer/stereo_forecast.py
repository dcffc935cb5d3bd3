"""How wide a separated song still is behind its strips, and where it leans: a forecast from measurements.

The mix's stereo field is planned on what will arrive there, not on the song: what strips took from their sides, or from
a part that carries the song's sides, must not be taken twice. Parts of one song are partly alike (a separator leaves
some of each in the others), so neither their powers nor their amplitudes simply add. The song itself tells how alike:
with ``e_i`` the energy of a part in a band, the energy of their sum at gains ``g_i`` is

    E = sum g_i^2 e_i + r ((sum g_i sqrt e_i)^2 - sum g_i^2 e_i),

with one coherence ``r`` for all pairs of the band: that which gives the song's own energy where all gains are 1. It
holds for the mid and for the side. Their product, which is a lean, changes by each part's own share of it.

Counted are widths, faders, buses and what the balance's forecast counts of equalisers and sidechains; not counted is
what follows a strip's own level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis import Analysis, StereoBand
from outboard.audio.processors import StereoWidth
from services.mixer.balance import strip_gains_db
from services.mixer.brief import Brief
from services.mixer.console import Bus, Strip
from services.mixer.masking import CENTRES_HERTZ

# Nothing is narrower: the analysis ends there as well.
_LEAST = 1e-6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FieldBand:
    """A third of an octave of a sum: energies of its mid and side, and how far it leans (see `StereoBand`)."""

    low_hertz: float
    high_hertz: float
    mid: float
    side: float
    lean: float


@dataclass(frozen=True)
class Field:
    """Width and place of a sum.

    Attributes:
        bands: thirds of an octave from 150 Hz.
        rest_mid: energy of the mid outside of them.
        rest_side: of the side.
    """

    bands: tuple[FieldBand, ...]
    rest_mid: float
    rest_side: float

    @property
    def mean_db(self) -> float:
        """Side over mid in dB, mean of the bands."""
        return float(np.mean([_decibels(band.side / band.mid) for band in self.bands]))

    @property
    def whole_db(self) -> float:
        """Side over mid of the whole in dB."""
        side = self.rest_side + sum(band.side for band in self.bands)
        return _decibels(side / (self.rest_mid + sum(band.mid for band in self.bands)))


def after_strips(brief: Brief, song: Analysis, strips: Sequence[Strip], buses: Sequence[Bus]) -> Field | None:
    """The field of the strips' sum; None for a song whose width cannot be told."""
    if song.mid_side_ratio_db is None or not song.stereo_bands or not _power(song):
        return None
    parts = [brief.analyses[strip.stem] for strip in strips]
    moves = strip_gains_db(brief, strips, buses)
    faders = {bus.name: bus.gain_db for bus in buses}
    fixed = [strip.gain_db + faders.get(strip.bus, 0.0) for strip in strips]
    widths = np.array([_side_gain(strip) for strip in strips])

    def gains(hertz: float) -> Floats:
        nearest = int(np.argmin(np.abs(np.array(CENTRES_HERTZ) - hertz)))
        moved = [float(moves[strip.stem][nearest]) if strip.stem in moves else 0.0 for strip in strips]
        return np.asarray(10.0 ** (np.add(fixed, moved) / 20.0), np.float64)

    bands = tuple(
        _band(band, song, parts, gains(math.sqrt(band.low_hertz * band.high_hertz)), widths)
        for band in song.stereo_bands
    )
    low, outside = gains(CENTRES_HERTZ[0]), np.array([_outside(part, song.stereo_bands) for part in parts])
    rest = _outside(song, song.stereo_bands)
    return Field(
        bands,
        rest_mid=_sum_energy(outside[:, 0], rest[0], low),
        rest_side=_sum_energy(outside[:, 1], rest[1], low * widths),
    )


def _outside(part: Analysis, bands: Sequence[StereoBand]) -> tuple[float, float]:
    """Energies of mid and side that lie in no band."""
    own = {one.low_hertz: one for one in part.stereo_bands}
    mid, side = _split(_power(part), 0.0 if part.mid_side_ratio_db is None else _ratio(part.mid_side_ratio_db))
    for band in bands:
        within = own.get(band.low_hertz)
        more = _split(_band_power(part, band), 0.0 if within is None else _ratio(within.mid_side_ratio_db))
        mid, side = mid - more[0], side - more[1]
    return max(mid, 0.0), max(side, 0.0)


def _band(band: StereoBand, song: Analysis, parts: Sequence[Analysis], mids: Floats, widths: Floats) -> FieldBand:
    own = [next((one for one in part.stereo_bands if one.low_hertz == band.low_hertz), None) for part in parts]
    ratios = [0.0 if one is None else _ratio(one.mid_side_ratio_db) for one in own]
    energies = np.array([_split(_band_power(part, band), ratio) for part, ratio in zip(parts, ratios, strict=True)])
    before = _split(max(_band_power(song, band), 1e-30), _ratio(band.mid_side_ratio_db))
    mid = max(_sum_energy(energies[:, 0], before[0], mids), 1e-40)
    side = max(_sum_energy(energies[:, 1], before[1], mids * widths), _LEAST * mid)
    leans = np.array([0.0 if one is None else one.lean for one in own])
    both = band.lean * before[0] + float(np.sum((mids**2 * widths - 1.0) * leans * energies[:, 0]))
    # No lean is beyond what mid and side allow.
    most = max(min(math.sqrt(mid * side), mid), abs(band.lean) * mid)
    return FieldBand(band.low_hertz, band.high_hertz, mid, side, min(max(both, -most), most) / mid)


def _sum_energy(energies: Floats, whole: float, gains: Floats) -> float:
    """See the module; a coherence that no sum of so many parts can have is brought to the nearest that one can."""
    if not np.any(energies > 0.0):
        return whole
    shares = energies / float(np.sum(energies))

    def crossing(factors: Floats) -> float:
        amplitudes = factors * np.sqrt(shares)
        return float(np.sum(amplitudes)) ** 2 - float(np.sum(amplitudes**2))

    pairs = crossing(np.ones(len(shares)))
    coherence = (whole / float(np.sum(energies)) - 1.0) / pairs if pairs > 1e-9 else 0.0
    coherence = min(max(coherence, -0.9 / max(len(shares) - 1, 1)), 1.0)
    found = float(np.sum(gains**2 * shares)) + coherence * crossing(gains)
    return whole * max(found, 0.0) / (1.0 + coherence * pairs)


def _side_gain(strip: Strip) -> float:
    """Factor on the strip's side signal, of all its widths."""
    kinds = [processor.kind for processor in strip.chain if not processor.bypass]
    return math.prod(kind.side_gain for kind in kinds if isinstance(kind, StereoWidth))


def _split(power: float, ratio: float) -> tuple[float, float]:
    """Energies of mid and side."""
    return power / (1.0 + ratio), power * ratio / (1.0 + ratio)


def _ratio(decibels: float) -> float:
    return float(10.0 ** (decibels / 10.0))


def _decibels(ratio: float) -> float:
    return 10.0 * math.log10(max(ratio, _LEAST))


def _power(part: Analysis) -> float:
    return 0.0 if part.rms_dbfs is None else _ratio(part.rms_dbfs)


def _band_power(part: Analysis, band: StereoBand) -> float:
    """Power in a band that lies across the analysis's own thirds, each taken as even over log frequency."""
    share = 0.0
    for third in part.third_octaves:
        inside = math.log(min(third.high_hertz, band.high_hertz) / max(third.low_hertz, band.low_hertz))
        share += _ratio(third.level_db) * max(inside, 0.0) / math.log(third.high_hertz / third.low_hertz)
    return _power(part) * share
