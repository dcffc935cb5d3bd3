"""Decides all numbers of a master from measurements, and renders nothing.

A plan can be printed, edited and rendered again. It corrects only what was measured to be off: a song whose bands are
within tolerance is not equalised, one whose dynamics are already spent is not compressed. Every decision leaves a
sentence in the plan's notes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np

from outboard.audio.analysis import Analysis, BandLevel
from services.master.settings import (
    ENGINE_CHAIN,
    ENGINE_MATCH,
    ENGINE_PASSTHROUGH,
    Compressor,
    CurvePoint,
    DeliverableSpec,
    GuardRails,
    Limiter,
    LinearPhaseEqualizer,
    MasterPlan,
    MasterSettings,
    Processor,
    ReferenceMatch,
    check_settings,
)

INTENT_TARGET_LUFS = {"streaming": -14.0, "loud": -10.0, "custom": -14.0, "reference": None}
INTENT_CEILING_DBTP = -1.0
REFERENCE_EQUALIZER_LIMIT_DB = 9.0
"""Guard-rail of the equaliser where a mix is matched to references."""

_RUMBLE = (CurvePoint(2.0, -80.0), CurvePoint(10.0, -24.0), CurvePoint(20.0, -4.0), CurvePoint(30.0, 0.0))
_MUD_HERTZ, _MUD_EDGES_HERTZ = 320.0, (160.0, 640.0)
_SHIMMER_HERTZ, _SHIMMER_EDGES_HERTZ = 9500.0, (6500.0, 13000.0)
_AUDIBLE_DB = 0.05
_EQ_TAPS = 8191


@dataclass(frozen=True)
class MasterProfile:
    """The numbers of a sound profile that a master starts from; a preset may set each by its name with `master_` in
    front.

    Attributes:
        tolerance_db: deviation of a band from its target that is taste, not fault.
        correction: share of what lies beyond the tolerance that is taken back.
        equalizer_limit_db: furthest gain of the equaliser.
        sub_boost_limit_db: furthest lift of the band below 60 Hz, where generated songs hold noise and nothing else.
        air_boost_limit_db: furthest lift of the band above 6 kHz, for the same reason.
        mud_cut_db, shimmer_cut_db: cut at an index of 1.
        index_tolerance: pathology index up to which nothing is cut (released recordings reach it).
        compressor_ratio: of the gentle compression.
        lively_crest_db: crest factor from which there are dynamics to spend.
        lively_range_lu: loudness range above which a song is evened out a little.
    """

    tolerance_db: float = 4.0
    correction: float = 0.5
    equalizer_limit_db: float = 3.0
    sub_boost_limit_db: float = 0.0
    air_boost_limit_db: float = 1.0
    mud_cut_db: float = 3.0
    shimmer_cut_db: float = 3.0
    index_tolerance: float = 0.15
    compressor_ratio: float = 1.5
    lively_crest_db: float = 15.0
    lively_range_lu: float = 9.0

    @classmethod
    def from_values(cls, values: Mapping[str, float]) -> MasterProfile:
        """The defaults, with what a preset sets for the master in their place; other keys belong to other stages."""
        known = {field.name for field in fields(cls)}
        own = {key.removeprefix("master."): value for key, value in values.items() if key.startswith("master.")}
        return replace(cls(), **{key: value for key, value in own.items() if key in known})


def plan(analysis: Analysis, settings: MasterSettings, preset: Mapping[str, float] | None = None) -> MasterPlan:
    """All numbers of a master.

    Args:
        analysis: of the mix.
        settings: what the caller asks for; checked here.
        preset: numbers of a sound profile (see `MasterProfile`).

    Raises:
        InvalidInput: a setting out of range, or options that contradict each other.
    """
    check_settings(settings)
    profile = MasterProfile.from_values(preset or {})
    engine = settings.engine or (ENGINE_MATCH if settings.intent == "reference" else ENGINE_CHAIN)
    ceiling = settings.ceiling_dbtp if settings.ceiling_dbtp is not None else INTENT_CEILING_DBTP
    target, target_note = _target(analysis, settings, engine)
    notes = [target_note]
    chain: list[Processor] = []
    if engine == ENGINE_CHAIN:
        chain = [_equalizer(analysis, profile, settings.intensity / 100.0, notes)]
        chain += _compressor(analysis, profile, settings, notes)
    drive = target - analysis.integrated_lufs if target is not None and analysis.integrated_lufs is not None else 0.0
    match = ReferenceMatch(settings.intensity, settings.nearest_reference) if engine == ENGINE_MATCH else None
    return MasterPlan(
        intent=settings.intent,
        engine=engine,
        target_lufs=target,
        ceiling_dbtp=ceiling,
        chain=tuple(chain),
        drive_db=drive,
        limiter=Limiter(),
        guard_rails=GuardRails(equalizer_db=REFERENCE_EQUALIZER_LIMIT_DB) if match else GuardRails(),
        deliverables=settings.deliverables or (DeliverableSpec(name="master"),),
        seed=settings.seed,
        notes=tuple(notes),
        match=match,
    )


def _target(analysis: Analysis, settings: MasterSettings, engine: str) -> tuple[float | None, str]:
    if engine == ENGINE_PASSTHROUGH:
        return None, "Nothing is processed: the mix is delivered as it is."
    if analysis.integrated_lufs is None:
        return None, "The mix is silent or shorter than 400 ms: it has no loudness, so none is aimed at."
    if settings.target_lufs is not None:
        return settings.target_lufs, f"Loudness is brought to {settings.target_lufs:.1f} LUFS, as asked for."
    target = INTENT_TARGET_LUFS[settings.intent]
    if target is None:
        return None, "Loudness follows the reference."
    return (
        target,
        f"Loudness is brought from {analysis.integrated_lufs:.1f} to {target:.1f} LUFS for {settings.intent}.",
    )


def _equalizer(analysis: Analysis, profile: MasterProfile, intensity: float, notes: list[str]) -> Processor:
    """A smooth curve through the bands' corrections, with the rumble filter at its lower end."""
    gains = {_centre(band): intensity * _band_gain(band, profile) for band in analysis.band_levels}
    for hertz, gain in gains.items():
        if abs(gain) >= _AUDIBLE_DB:
            notes.append(f"The band around {hertz:.0f} Hz is off its target: {gain:+.1f} dB.")
    for name, hertz, edges, index, most in (
        ("mud", _MUD_HERTZ, _MUD_EDGES_HERTZ, analysis.mud_index, profile.mud_cut_db),
        ("shimmer", _SHIMMER_HERTZ, _SHIMMER_EDGES_HERTZ, analysis.shimmer_index, profile.shimmer_cut_db),
    ):
        if index is None or index <= profile.index_tolerance or hertz > 0.45 * analysis.sample_rate_hertz:
            continue
        cut = intensity * most * min(1.0, index)
        deepest = min([-cut] + [gain for centre, gain in gains.items() if edges[0] < centre < edges[1]])
        around = {edge: _between(gains, edge) for edge in edges}
        gains = {centre: gain for centre, gain in gains.items() if not edges[0] < centre < edges[1]}
        gains |= around | {hertz: deepest}
        notes.append(f"{name.capitalize()} was measured ({index:.2f}): {deepest:+.1f} dB around {hertz:.0f} Hz.")
    if all(abs(gain) < _AUDIBLE_DB for gain in gains.values()):
        notes.append("All bands are within tolerance: only DC and rumble are filtered.")
    points = _RUMBLE + tuple(CurvePoint(hertz, gain) for hertz, gain in sorted(gains.items()))
    return Processor(label="tone", kind=LinearPhaseEqualizer(points=points, taps=_EQ_TAPS))


def _between(gains: Mapping[float, float], hertz: float) -> float:
    """Half of what the curve through `gains` has at a frequency: the edge of a cut must not carry it outward."""
    if not gains:
        return 0.0
    centres = sorted(gains)
    curve = [gains[centre] for centre in centres]
    return 0.5 * float(np.interp(math.log(hertz), [math.log(centre) for centre in centres], curve))


def _band_gain(band: BandLevel, profile: MasterProfile) -> float:
    beyond = max(0.0, abs(band.deviation_db) - profile.tolerance_db)
    gain = -math.copysign(profile.correction * beyond, band.deviation_db)
    highest = profile.equalizer_limit_db
    if band.high_hertz <= 60.0:
        highest = profile.sub_boost_limit_db
    elif band.low_hertz >= 6000.0:
        highest = profile.air_boost_limit_db
    return min(max(gain, -profile.equalizer_limit_db), highest)


def _centre(band: BandLevel) -> float:
    return max(40.0, math.sqrt(band.low_hertz * band.high_hertz))


def _compressor(
    analysis: Analysis, profile: MasterProfile, settings: MasterSettings, notes: list[str]
) -> list[Processor]:
    """One gentle compressor, only where there are dynamics to spend."""
    crest, loudness_range = analysis.crest_factor_db, analysis.loudness_range_lu
    flat = analysis.flat_dynamics_index
    if analysis.integrated_lufs is None or crest is None:
        return []
    wide = loudness_range is not None and loudness_range > profile.lively_range_lu
    if (flat is not None and flat > profile.index_tolerance) or crest < profile.lively_crest_db or not wide:
        notes.append(f"Its dynamics are left alone (crest factor {crest:.1f} dB).")
        return []
    ratio = 1.0 + (profile.compressor_ratio - 1.0) * settings.intensity / 100.0
    if ratio <= 1.0:
        return []
    notes.append(f"A loudness range of {loudness_range:.1f} LU is evened out with a ratio of {ratio:.2f}.")
    # K-weighted loudness and RMS differ by about 3 dB on music; the threshold lies where only the loud parts pass.
    threshold = analysis.integrated_lufs
    kind = Compressor(threshold_db=threshold, ratio=ratio, knee_db=8.0, attack_ms=30.0, release_ms=250.0)
    return [Processor(label="glue", kind=kind)]
