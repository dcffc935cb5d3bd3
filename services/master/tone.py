"""The tone of a master: how far the spectrum is from its target, and the equalisers that take some of that back.

Static and dynamic equalisation share the work. What is off all the time is the linear-phase curve's, which never moves
further than a few decibels; what is off at moments (mud between 200 and 500 Hz, harshness at 3 to 6 and 8 to 12 kHz) is
met by dynamic bands whose thresholds lie at the band's own share of the whole, so that they rest while it is in
balance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis import Analysis, BandLevel
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.filters import band_pass, response_db
from outboard.audio.processors import CurvePoint, DynamicEqualizer, LinearPhaseEqualizer, Processor
from services.master.character import Character
from services.master.profile import MasterProfile

_RUMBLE = (CurvePoint(2.0, -80.0), CurvePoint(10.0, -24.0), CurvePoint(20.0, -4.0), CurvePoint(30.0, 0.0))
_SMOOTHING_OCTAVES = 0.4  # standard deviation: single notes are not tone
_EMPTY_DB = 18.0  # a third of an octave so far under its target is cut off, not quiet, and says nothing of tone
_FURTHEST_DB = 12.0
_AUDIBLE_DB = 0.1
_SUB_HERTZ, _AIR_HERTZ = 60.0, 6000.0
_HIGHEST_SHARE = 0.45  # of the sample rate: nothing is done closer to Nyquist


@dataclass(frozen=True)
class _Fault:
    """A band that is faulty at moments."""

    label: str
    hertz: float
    q: float
    edges_hertz: tuple[float, float]
    attack_ms: float
    release_ms: float


_MUD = _Fault("mud", 320.0, 1.0, (160.0, 640.0), 30.0, 200.0)
_HARSH = _Fault("harshness", 4200.0, 1.2, (2500.0, 7000.0), 5.0, 100.0)
_SIZZLE = _Fault("harshness at the top", 9800.0, 2.0, (8000.0, 12000.0), 5.0, 100.0)
_SHIMMER = _Fault("shimmer", 9800.0, 2.0, (6500.0, 13000.0), 5.0, 100.0)
_RATIO = 3.0
_EDGE_GAIN = 0.5  # of a cut's surroundings at its edges


def tone(
    analysis: Analysis, profile: MasterProfile, song: Character, intensity: float, notes: list[str]
) -> list[Processor]:
    """The equalisers of a master.

    Args:
        analysis: of the mix.
        profile: limits and targets.
        song: its character: a voice keeps its presence.
        intensity: 0 to 1; at 0 only rumble is filtered.
        notes: receives a sentence for each decision.
    """
    curve = _tonal_curve(analysis.third_octaves, profile, intensity)
    notes += _curve_notes(curve)
    bands = []
    for fault, index, most_db in _faults(analysis, profile, song):
        if index <= 0.0 or fault.hertz > _HIGHEST_SHARE * analysis.sample_rate_hertz or not analysis.third_octaves:
            continue
        cut_db = intensity * index * most_db
        if cut_db < _AUDIBLE_DB:
            continue
        if fault not in (_HARSH, _SIZZLE):
            curve = _with_cut(curve, fault, 0.5 * cut_db)
        bands.append(_band(fault, cut_db, analysis))
        notes.append(f"{fault.label.capitalize()} was measured ({index:.2f}): up to {-cut_db:+.1f} dB at its moments.")
    points = _RUMBLE + tuple(CurvePoint(hertz, gain) for hertz, gain in sorted(curve.items()) if hertz > 30.0)
    processors = [Processor("tone", LinearPhaseEqualizer(points))]
    if bands:
        processors.append(Processor("moments", DynamicEqualizer(tuple(bands))))
    return processors


def _tonal_curve(levels: Sequence[BandLevel], profile: MasterProfile, intensity: float) -> dict[float, float]:
    """Gain in dB by frequency: part of what the smoothed spectrum is off beyond the tolerance."""
    if not levels:
        return {}
    hertz = np.array([math.sqrt(band.low_hertz * band.high_hertz) for band in levels])
    off = np.array([band.deviation_db for band in levels]) - profile.target_offsets_db(hertz)
    there = off > -_EMPTY_DB
    smooth = _smoothed(hertz, np.clip(off, -_FURTHEST_DB, _FURTHEST_DB), there.astype(np.float64))
    beyond = np.maximum(np.abs(smooth) - profile.tolerance_db, 0.0)
    gains = np.clip(
        -np.sign(smooth) * profile.correction * beyond, -profile.equalizer_limit_db, profile.equalizer_limit_db
    )
    gains = np.where(hertz < _SUB_HERTZ, np.minimum(gains, profile.sub_boost_limit_db), gains)
    gains = np.where(hertz > _AIR_HERTZ, np.minimum(gains, profile.air_boost_limit_db), gains)
    return {float(f): float(gain) for f, gain in zip(hertz, intensity * gains, strict=True)}


def _smoothed(
    hertz: NDArray[np.float64], values: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    octaves = np.log2(hertz)
    weights = counts * np.exp(-0.5 * ((octaves[:, None] - octaves[None, :]) / _SMOOTHING_OCTAVES) ** 2)
    smooth: NDArray[np.float64] = weights @ values / np.maximum(weights.sum(axis=1), 1e-9)
    return smooth


def _curve_notes(curve: dict[float, float]) -> list[str]:
    """A sentence for every stretch of the curve with one sign."""
    notes = []
    stretch: list[tuple[float, float]] = []
    for hertz, gain in [*sorted(curve.items()), (math.inf, 0.0)]:
        if stretch and (abs(gain) < _AUDIBLE_DB or gain * stretch[-1][1] < 0.0):
            at, most = max(stretch, key=lambda point: abs(point[1]))
            notes.append(f"The spectrum around {at:.0f} Hz is off its target: {most:+.1f} dB.")
            stretch = []
        if abs(gain) >= _AUDIBLE_DB:
            stretch.append((hertz, gain))
    return notes or ["The spectrum is within tolerance of its target: only DC and rumble are filtered."]


def _faults(analysis: Analysis, profile: MasterProfile, song: Character) -> list[tuple[_Fault, float, float]]:
    """Each fault with how severe it is, 0 to 1, and its deepest cut."""
    tolerance = profile.index_tolerance
    presence = _excess(analysis.third_octaves, _HARSH, profile)
    top = (_SHIMMER, _over(analysis.shimmer_index, tolerance), profile.shimmer_cut_db)
    sizzle = (_SIZZLE, _excess(analysis.third_octaves, _SIZZLE, profile), profile.harsh_cut_db)
    return [
        (_MUD, _over(analysis.mud_index, tolerance), profile.mud_cut_db),
        (_HARSH, presence, profile.harsh_cut_db * song.voice),
        max(top, sizzle, key=lambda fault: fault[1] * fault[2]),  # both act on the same band: one is enough
    ]


def _over(index: float | None, tolerance: float) -> float:
    return index if index is not None and index > tolerance else 0.0


def _excess(levels: Sequence[BandLevel], fault: _Fault, profile: MasterProfile) -> float:
    """How far a region stands above its target, as a share of twice the tolerance."""
    low, high = fault.edges_hertz
    inside = [band for band in levels if low <= math.sqrt(band.low_hertz * band.high_hertz) <= high]
    if not inside:
        return 0.0
    off = float(np.mean([band.deviation_db for band in inside])) - float(
        profile.target_offsets_db(np.array([fault.hertz]))[0]
    )
    return min(max(off / (2.0 * profile.tolerance_db + 1e-9), 0.0), 1.0)


def _with_cut(curve: dict[float, float], fault: _Fault, cut_db: float) -> dict[float, float]:
    """The curve with at least a cut at the fault's centre, which fades to its surroundings at its edges."""
    low, high = fault.edges_hertz
    shaped = {}
    for hertz, gain in curve.items():
        if low < hertz < high:
            side = math.log(hertz / fault.hertz) / math.log((low if hertz < fault.hertz else high) / fault.hertz)
            gain = min(gain, -cut_db * (1.0 - side))
        shaped[hertz] = gain
    return shaped


def _band(fault: _Fault, cut_db: float, analysis: Analysis) -> DynamicBandSettings:
    """A dynamic band that acts when more of the whole falls into it than on average."""
    levels = analysis.third_octaves
    centres = np.array([math.sqrt(band.low_hertz * band.high_hertz) for band in levels])
    weights_db = response_db(
        band_pass(fault.hertz, fault.q, analysis.sample_rate_hertz), centres, analysis.sample_rate_hertz
    )
    share = sum(10.0 ** ((band.level_db + weight) / 10.0) for band, weight in zip(levels, weights_db, strict=True))
    return DynamicBandSettings(
        frequency_hertz=fault.hertz,
        q=fault.q,
        ratio=_RATIO,
        range_db=-cut_db,
        relative_threshold_db=10.0 * math.log10(max(share, 1e-12)),
        attack_ms=fault.attack_ms,
        release_ms=fault.release_ms,
    )
