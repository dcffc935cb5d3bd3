"""Decides how a mix becomes like its references, and renders nothing: equaliser curves for mid and side, a level curve
for each band's dynamics, and the loudness to end at.

- *Spectrum*: the difference of the third-octave spectra, each relative to its song's loudness, within 9 dB. A common
  offset is free (loudness is matched in the end), so the one is taken that leaves the smallest difference.
- *Width*: the side has a curve of its own; it is never lifted over the mid by more than the side guard-rail.
- *Dynamics*: quantile mapping, per band: what the mix's level is during x % of the time becomes what the references'
  level is during x % of the time. The curve through those points is bounded in gain and slope, so that neither noise is
  raised nor a passage pumped, and it is centred so that the band's mean power stays: the equaliser is not undone.

Several references count alike: their decibels are averaged, band by band and quantile by quantile.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio.loudness import k_weighting
from outboard.audio.song_profile import CENTRES_HERTZ, FLOOR_DB, SongProfile, splits_for
from services.master.settings import DynamicsBand, LevelPoint, MatchBand, ReferenceMatch

Levels = NDArray[np.float64]

_OFFSETS_DB = np.arange(-6.0, 6.01, 0.25)
_EMPTY_DB, _FAINT_DB = -75.0, -60.0  # against loudness: nothing there, and little there: noise is not lifted
_DEEPEST_DB, _HIGHEST_DB = -8.0, 5.0
_FADE_DB = 12.0  # below the lowest quantile, over which a lift ends
_FLATTEST, _STEEPEST = 0.4, 2.0  # slope of output level over input level
HIGHEST_SHARE = 0.45
"""Of the sample rate: bands above hold the resampler's edge."""


def average(profiles: Sequence[SongProfile]) -> SongProfile:
    """One profile that stands for several songs; the width is that of those that have one."""
    wide = [profile for profile in profiles if profile.is_stereo] or list(profiles)
    mid = np.mean([profile.mid_db for profile in profiles], axis=0)
    bands = min(len(profile.level_db) for profile in profiles)
    return replace(
        profiles[0],
        channels=max(profile.channels for profile in profiles),
        lufs=float(np.mean([profile.lufs for profile in profiles if profile.lufs is not None])),
        mid_db=mid,
        side_db=mid + np.mean([profile.width_db for profile in wide], axis=0),
        level_db=np.mean([profile.level_db[:bands] for profile in profiles], axis=0),
    )


def fit(
    mix: SongProfile,
    goal: SongProfile,
    sample_rate_hertz: int,
    *,
    intensity: float,
    equalizer_limit_db: float,
    side_gain_limit: float,
    lowest_correlation: float,
) -> ReferenceMatch:
    """All numbers of a match.

    Args:
        mix: measured; with a loudness.
        goal: the reference, or several averaged.
        sample_rate_hertz: of the mix.
        intensity: 0 to 1, share of every difference that is taken back.
        equalizer_limit_db: furthest gain of mid and side.
        side_gain_limit: highest factor on the side against the mid.
        lowest_correlation: of left and right, that the result may have.
    """
    inside = HIGHEST_SHARE * sample_rate_hertz > CENTRES_HERTZ
    most_lift = equalizer_limit_db * np.clip((mix.mid_db - _EMPTY_DB) / (_FAINT_DB - _EMPTY_DB), 0.0, 1.0)
    mid = _spectrum_gains(mix, goal, intensity, equalizer_limit_db, most_lift * inside)
    side = _side_gains(mix, goal, intensity, mid, equalizer_limit_db, 20.0 * math.log10(side_gain_limit))
    side -= narrowing_db(mix, mid, side, lowest_correlation)
    shift = loudness_shift_db(mix.mid_db, mid)
    bands = tuple(
        MatchBand(
            frequency_hertz=float(CENTRES_HERTZ[index]),
            mid_gain_db=float(mid[index]),
            side_gain_db=float(side[index]),
            before_db=float(mix.mid_db[index]),
            target_db=float(goal.mid_db[index]),
            after_db=float(mix.mid_db[index] + mid[index] - shift),
        )
        for index in np.flatnonzero(inside)
    )
    return ReferenceMatch(bands=bands, dynamics=_dynamics(mix, goal, sample_rate_hertz, intensity))


def _spectrum_gains(
    mix: SongProfile, goal: SongProfile, intensity: float, limit_db: float, most_lift: Levels
) -> Levels:
    """Gains whose result, at equal loudness, lies nearest to the goal."""
    wanted = intensity * (goal.mid_db - mix.mid_db)
    found, least = np.zeros_like(wanted), math.inf
    for offset in _OFFSETS_DB:
        gains = np.clip(wanted + offset, -limit_db, most_lift)
        left = float(np.abs(gains - loudness_shift_db(mix.mid_db, gains) - wanted).mean()) + 1e-3 * abs(offset)
        if left < least:
            found, least = gains, left
    return found


def _side_gains(
    mix: SongProfile, goal: SongProfile, intensity: float, mid: Levels, limit_db: float, most_over_mid_db: float
) -> Levels:
    if not (mix.is_stereo and goal.is_stereo):
        return mid.copy()
    moved = np.clip(intensity * (goal.width_db - mix.width_db), -limit_db, most_over_mid_db)
    return np.clip(mid + moved, -limit_db, limit_db)


def narrowing_db(mix: SongProfile, mid: Levels, side: Levels, lowest_correlation: float) -> float:
    """What the whole side must come down for the correlation of the result: (m - s) / (m + s) for powers m and s."""
    power_mid = float(np.sum(10.0 ** ((mix.mid_db + mid) / 10.0)))
    power_side = float(np.sum(10.0 ** ((mix.side_db + side) / 10.0)))
    most = power_mid * (1.0 - lowest_correlation) / (1.0 + lowest_correlation)
    return max(0.0, 10.0 * math.log10(max(power_side, 1e-30) / max(most, 1e-30)))


def loudness_shift_db(spectrum_db: Levels, gains_db: Levels) -> float:
    """How much louder (K-weighted) a spectrum is with the gains."""
    power = 10.0 ** ((spectrum_db + _K_DB) / 10.0)
    return float(10.0 * np.log10(np.sum(power * 10.0 ** (gains_db / 10.0)) / max(float(np.sum(power)), 1e-30)))


def _k_weights_db() -> Levels:
    turns = np.exp(-2j * np.pi * CENTRES_HERTZ / 48_000)
    gains = np.ones_like(turns)
    for b0, b1, b2, a1, a2 in k_weighting(48_000):
        gains *= (b0 + b1 * turns + b2 * turns**2) / (1.0 + a1 * turns + a2 * turns**2)
    return np.asarray(20.0 * np.log10(np.abs(gains)))


_K_DB = _k_weights_db()


def _dynamics(mix: SongProfile, goal: SongProfile, rate: int, intensity: float) -> tuple[DynamicsBand, ...]:
    edges = (0.0, *splits_for(rate), 0.5 * rate)
    bands = []
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        points: tuple[LevelPoint, ...] = ()
        if index < len(goal.level_db) and min(mix.band_mean_db[index], goal.band_mean_db[index]) > FLOOR_DB:
            points = _level_curve(mix.level_db[index], goal.level_db[index], intensity)
        bands.append(DynamicsBand(low, high, float(mix.band_mean_db[index]), points))
    return tuple(bands)


def _level_curve(levels: Levels, wanted: Levels, intensity: float) -> tuple[LevelPoint, ...]:
    """Gain over level (relative to the band's mean power): bounded quantile mapping, built outward from the middle."""
    gains = np.clip(intensity * (wanted - levels), _DEEPEST_DB, _HIGHEST_DB)
    middle = levels.size // 2
    flattest, steepest = intensity * (_FLATTEST - 1.0), intensity * (_STEEPEST - 1.0)
    for index in range(middle + 1, levels.size):
        step = levels[index] - levels[index - 1]
        gains[index] = np.clip(gains[index], gains[index - 1] + flattest * step, gains[index - 1] + steepest * step)
    for index in range(middle - 1, -1, -1):
        step = levels[index + 1] - levels[index]
        gains[index] = np.clip(gains[index], gains[index + 1] - steepest * step, gains[index + 1] - flattest * step)
    kept = np.append(True, np.diff(levels) > 0.05)
    points = [LevelPoint(float(level), float(gain)) for level, gain in zip(levels[kept], gains[kept], strict=True)]
    # Under what plays 95 % of the time lie pauses, fades and noise: they are not lifted with it.
    return (LevelPoint(points[0].level_db - _FADE_DB, min(points[0].gain_db, 0.0)), *points)
