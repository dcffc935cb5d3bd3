"""Dynamics of a master: what is spent, and what is left alone.

Compression takes from dynamics that are there: a song that is dense already gets none. A loud master gives up crest
factor anyway, so it is told where: harmonics fill each band from 150 Hz up, what rings is lowered a little and onsets
are lifted, before the limiter decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from outboard.audio.analysis import Analysis
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    Compressor,
    MultibandCompressor,
    Processor,
    Saturator,
    TransientShaper,
)
from services.master.character import Character
from services.master.limits import LOUD_LUFS, peaks_over_db
from services.master.profile import MasterProfile


@dataclass(frozen=True)
class _Band:
    """A band: upper edge (0: the last), attack and release of its compressor, and whether it is the voice's own."""

    high_hertz: float
    attack_ms: float
    release_ms: float
    sung: bool = False


# Low bands need the longer times.
_BANDS = (_Band(120.0, 60.0, 220.0), _Band(800.0, 40.0, 160.0), _Band(5000.0, 25.0, 120.0, True), _Band(0, 15.0, 100.0))
_LOWEST_BAND_HERTZ = 20.0
_KNEE_DB = 8.0
_PARALLEL_RATIO, _PARALLEL_DEPTH_DB, _PARALLEL_MAKEUP_DB = 4.0, 12.0, 6.0
# What is saturated, each by itself; bass is left alone.
_SATURATED = (("low", 150.0, 800.0), ("middle", 800.0, 5000.0), ("top", 5000.0, math.inf))
_SUNG = "middle"
_HIGHEST_SHARE = 0.4  # of the sample rate: a band that begins above is none
_SATURATED_PEAK_DB = -3.0  # where a band's peaks come to lie on the saturator's curve
_ONSET_HERTZ, _ONSET_MS = 800.0, 40.0  # above it strokes stand out of any mix; how long one lasts
_FULL_PUNCH_DB = 6.0  # peaks that would stand so far over the ceiling get the whole punch
_AUDIBLE_DB = 0.1


def dynamics(
    analysis: Analysis,
    profile: MasterProfile,
    song: Character,
    intensity: float,
    target_lufs: float | None,
    ceiling_dbtp: float,
    notes: list[str],
) -> list[Processor]:
    """Compressors, saturation and transient shaping, in this order.

    Args:
        analysis: of the mix.
        profile: thresholds and amounts.
        song: its character.
        intensity: 0 to 1; at 0 nothing is done.
        target_lufs: loudness to come; None: none is aimed at.
        ceiling_dbtp: of the limiter to come.
        notes: receives a sentence for each decision.
    """
    crest, rms = analysis.crest_factor_db, analysis.rms_dbfs
    if analysis.integrated_lufs is None or crest is None or rms is None or intensity <= 0.0:
        return []
    processors = []
    if _lively(analysis, profile) and not song.spent and profile.compressor_ratio > 1.0:
        ratio = 1.0 + (profile.compressor_ratio - 1.0) * intensity
        notes.append(
            f"A loudness range of {analysis.loudness_range_lu:.1f} LU is evened out with a ratio of {ratio:.2f}."
        )
        processors.append(Processor("glue", _multiband(analysis, song, rms, ratio)))
    elif not song.spent:
        notes.append(f"Its dynamics are left alone (crest factor {crest:.1f} dB).")
    if profile.parallel_mix > 0.0 and not song.spent:
        mix = profile.parallel_mix * intensity
        notes.append(
            f"A compressed copy is mixed in underneath, {mix:.0%} of the whole: body without flattened strokes."
        )
        processors.append(Processor("parallel", _parallel(rms, mix)))
    if target_lufs is not None and target_lufs >= LOUD_LUFS:
        over_db = peaks_over_db(analysis, target_lufs, ceiling_dbtp)
        processors += _saturation(analysis, profile, song, intensity, notes)
        processors += _punch(profile, song, intensity, over_db, notes)
    return processors


def _lively(analysis: Analysis, profile: MasterProfile) -> bool:
    loudness_range, crest = analysis.loudness_range_lu, analysis.crest_factor_db
    wide = loudness_range is not None and loudness_range > profile.lively_range_lu
    return wide and crest is not None and crest >= profile.lively_crest_db and bool(analysis.third_octaves)


def _multiband(analysis: Analysis, song: Character, rms_dbfs: float, ratio: float) -> MultibandCompressor:
    """Four bands, each with its threshold at its own mean level: only the loud parts pass."""
    low = _LOWEST_BAND_HERTZ
    bands = []
    for band in _BANDS:
        settings = CompressorSettings(
            rms_dbfs + _share_db(analysis, low, band.high_hertz or math.inf),
            1.0 + (ratio - 1.0) * (song.voice if band.sung else 1.0),
            knee_db=_KNEE_DB,
            attack_ms=band.attack_ms * song.attack,
            release_ms=band.release_ms,
        )
        bands.append(CompressorBand(band.high_hertz, settings))
        low = band.high_hertz
    return MultibandCompressor(tuple(bands))


def _share_db(analysis: Analysis, low_hertz: float, high_hertz: float) -> float:
    """Power of a band over that of the whole."""
    inside = [
        10.0 ** (band.level_db / 10.0)
        for band in analysis.third_octaves
        if low_hertz <= math.sqrt(band.low_hertz * band.high_hertz) < high_hertz
    ]
    return 10.0 * math.log10(max(sum(inside), 1e-9))


def _parallel(rms_dbfs: float, mix: float) -> Compressor:
    return Compressor(
        threshold_db=rms_dbfs - _PARALLEL_DEPTH_DB,
        ratio=_PARALLEL_RATIO,
        attack_ms=5.0,
        release_ms=150.0,
        makeup_db=_PARALLEL_MAKEUP_DB,
        mix=mix,
    )


def _saturation(
    analysis: Analysis, profile: MasterProfile, song: Character, intensity: float, notes: list[str]
) -> list[Processor]:
    """A saturator for each band, driven until the band's own peaks lie in the bend."""
    peak = analysis.true_peak_dbtp
    if profile.saturation_mix <= 0.0 or song.spent or peak is None or not analysis.third_octaves:
        return []
    edge = _HIGHEST_SHARE * analysis.sample_rate_hertz
    processors, told = [], []
    for name, low, high in _SATURATED:
        if low >= edge:
            continue
        mix = profile.saturation_mix * intensity * (song.voice if name == _SUNG else 1.0)
        drive = min(max(_SATURATED_PEAK_DB - peak - _share_db(analysis, low, high), -24.0), 48.0)
        kind = Saturator("tape", drive, mix, low_hertz=low, high_hertz=high if high < edge else None)
        processors.append(Processor(f"density_{name}", kind))
        told.append(f"{low:.0f} Hz by {mix:.0%}")
    notes.append(f"Saturation adds density before the limiter, band by band: from {', from '.join(told)}.")
    return processors


def _punch(
    profile: MasterProfile, song: Character, intensity: float, over_db: float, notes: list[str]
) -> list[Processor]:
    # What the limiter will not take need not be given.
    share = intensity * song.strokes * min(max(over_db / _FULL_PUNCH_DB, 0.0), 1.0)
    attack, sustain = share * profile.punch_attack_db, share * profile.punch_sustain_db
    if max(attack, -sustain) < _AUDIBLE_DB:
        return []
    notes.append(
        f"Above {_ONSET_HERTZ:.0f} Hz onsets are lifted by up to {attack:.1f} dB and what rings lowered by up to "
        f"{-sustain:.1f} dB: strokes stand out of what the limiter makes dense."
    )
    shaper = TransientShaper(attack, sustain, attack_ms=_ONSET_MS, low_hertz=_ONSET_HERTZ)
    return [Processor("punch", shaper)]
