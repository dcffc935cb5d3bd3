"""Dynamics and stereo field of a master: what is spent, and what is left alone.

Compression takes from dynamics that are there: a song that is dense already gets none. A loud master gives up crest
factor anyway, so it is told where: what rings is lowered a little and onsets are lifted, before the limiter decides.
"""

from __future__ import annotations

import math

from outboard.audio.analysis import Analysis
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    Compressor,
    MultibandCompressor,
    Processor,
    Saturator,
    StereoWidth,
    TransientShaper,
)
from services.master.limits import LOUD_LUFS, peaks_over_db
from services.master.profile import MasterProfile

# Upper edge (0: the last), attack and release: low bands need the longer times.
_BANDS = ((120.0, 60.0, 220.0), (800.0, 40.0, 160.0), (5000.0, 25.0, 120.0), (0.0, 15.0, 100.0))
_LOWEST_BAND_HERTZ = 20.0
_KNEE_DB = 8.0
_PARALLEL_RATIO, _PARALLEL_DEPTH_DB, _PARALLEL_MAKEUP_DB = 4.0, 12.0, 6.0
_BASS_HERTZ = 150.0  # saturation leaves what is below alone
_SATURATED_PEAK_DB = -3.0  # where the peaks come to lie on the saturator's curve
_ONSET_HERTZ, _ONSET_MS = 800.0, 40.0  # above it strokes stand out of any mix; how long one lasts
_FULL_PUNCH_DB = 6.0  # peaks that would stand so far over the ceiling get the whole punch
_AUDIBLE_DB = 0.1
_MONO_ENOUGH = 0.98
_NARROWING = 0.5
_SMALLEST_CHANGE = 0.02


def dynamics(
    analysis: Analysis,
    profile: MasterProfile,
    intensity: float,
    target_lufs: float | None,
    ceiling_dbtp: float,
    notes: list[str],
) -> list[Processor]:
    """Compressors, saturation and transient shaping, in this order.

    Args:
        analysis: of the mix.
        profile: thresholds and amounts.
        intensity: 0 to 1; at 0 nothing is done.
        target_lufs: loudness to come; None: none is aimed at.
        ceiling_dbtp: of the limiter to come.
        notes: receives a sentence for each decision.
    """
    crest, rms = analysis.crest_factor_db, analysis.rms_dbfs
    if analysis.integrated_lufs is None or crest is None or rms is None or intensity <= 0.0:
        return []
    flat = analysis.flat_dynamics_index
    spent = flat is not None and flat > profile.index_tolerance
    processors = []
    if _lively(analysis, profile) and not spent and profile.compressor_ratio > 1.0:
        ratio = 1.0 + (profile.compressor_ratio - 1.0) * intensity
        notes.append(
            f"A loudness range of {analysis.loudness_range_lu:.1f} LU is evened out with a ratio of {ratio:.2f}."
        )
        processors.append(Processor("glue", _multiband(analysis, rms, ratio)))
    else:
        notes.append(f"Its dynamics are left alone (crest factor {crest:.1f} dB).")
    if profile.parallel_mix > 0.0 and not spent:
        notes.append("A compressed copy is mixed in underneath.")
        processors.append(Processor("parallel", _parallel(rms, profile.parallel_mix * intensity)))
    if target_lufs is not None and target_lufs >= LOUD_LUFS:
        over_db = peaks_over_db(analysis, target_lufs, ceiling_dbtp)
        processors += _loud(analysis, profile, intensity, over_db, spent, notes)
    return processors


def field(
    analysis: Analysis, profile: MasterProfile, intensity: float, lowest_correlation: float, notes: list[str]
) -> list[Processor]:
    """Mono bass, and sides no louder than mono listeners can bear.

    Args:
        lowest_correlation: of left and right, which the master must keep.
    """
    ratio = analysis.mid_side_ratio_db
    if analysis.channels != 2 or ratio is None or intensity <= 0.0:
        return []
    low = analysis.low_correlation
    mono_below = profile.mono_below_hertz if low is not None and low < _MONO_ENOUGH else 0.0
    gain = 1.0
    if ratio > profile.side_limit_db:
        gain = 10.0 ** (-_NARROWING * intensity * (ratio - profile.side_limit_db) / 20.0)
    # With channels of equal power the correlation is (M - S) / (M + S): the sides may be so loud and no louder.
    loudest_db = 10.0 * math.log10((1.0 - lowest_correlation) / (1.0 + lowest_correlation))
    gain = min(gain, 10.0 ** ((loudest_db - ratio) / 20.0)) if ratio > loudest_db else gain
    if mono_below > 0.0:
        notes.append(f"Below {mono_below:.0f} Hz the sides are rolled off: the bass is mono.")
    if gain < 1.0 - _SMALLEST_CHANGE:
        notes.append(f"The sides stand at {ratio:.1f} dB against the middle: they are lowered to {gain:.0%}.")
    else:
        gain = 1.0
    if gain == 1.0 and mono_below == 0.0:
        return []
    return [Processor("field", StereoWidth(side_gain=gain, mono_below_hertz=mono_below))]


def _lively(analysis: Analysis, profile: MasterProfile) -> bool:
    loudness_range, crest = analysis.loudness_range_lu, analysis.crest_factor_db
    wide = loudness_range is not None and loudness_range > profile.lively_range_lu
    return wide and crest is not None and crest >= profile.lively_crest_db and bool(analysis.third_octaves)


def _multiband(analysis: Analysis, rms_dbfs: float, ratio: float) -> MultibandCompressor:
    """Four bands, each with its threshold at its own mean level: only the loud parts pass."""
    low = _LOWEST_BAND_HERTZ
    bands = []
    for high, attack_ms, release_ms in _BANDS:
        inside = [
            10.0 ** (band.level_db / 10.0)
            for band in analysis.third_octaves
            if low <= math.sqrt(band.low_hertz * band.high_hertz) < (high or math.inf)
        ]
        level = rms_dbfs + 10.0 * math.log10(max(sum(inside), 1e-9))
        settings = CompressorSettings(level, ratio, knee_db=_KNEE_DB, attack_ms=attack_ms, release_ms=release_ms)
        bands.append(CompressorBand(high, settings))
        low = high
    return MultibandCompressor(tuple(bands))


def _parallel(rms_dbfs: float, mix: float) -> Compressor:
    return Compressor(
        threshold_db=rms_dbfs - _PARALLEL_DEPTH_DB,
        ratio=_PARALLEL_RATIO,
        attack_ms=5.0,
        release_ms=150.0,
        makeup_db=_PARALLEL_MAKEUP_DB,
        mix=mix,
    )


def _loud(
    analysis: Analysis, profile: MasterProfile, intensity: float, over_db: float, spent: bool, notes: list[str]
) -> list[Processor]:
    processors = []
    peak = analysis.true_peak_dbtp
    if profile.saturation_mix > 0.0 and not spent and peak is not None:
        notes.append("Saturation above the bass adds density before the limiter.")
        drive = min(max(_SATURATED_PEAK_DB - peak, -24.0), 48.0)
        kind = Saturator("tape", drive, profile.saturation_mix * intensity, low_hertz=_BASS_HERTZ)
        processors.append(Processor("density", kind))
    # What the limiter will not take need not be given.
    share = intensity * min(max(over_db / _FULL_PUNCH_DB, 0.0), 1.0)
    attack, sustain = share * profile.punch_attack_db, share * profile.punch_sustain_db
    if max(attack, -sustain) >= _AUDIBLE_DB:
        notes.append(
            f"Above {_ONSET_HERTZ:.0f} Hz onsets are lifted by up to {attack:.1f} dB and what rings lowered by up to "
            f"{-sustain:.1f} dB: strokes stand out of what the limiter makes dense."
        )
        shaper = TransientShaper(attack, sustain, attack_ms=_ONSET_MS, low_hertz=_ONSET_HERTZ)
        processors.append(Processor("punch", shaper))
    return processors
