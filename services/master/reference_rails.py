"""Brings what matchering has matched within the guard-rails of lifts, sides and correlation, which it does not know.

What it did is measured: the third-octave spectra of mid and side, relative to loudness, after against before. Where a
band was lifted further than allowed, or the side further than the middle by more than its factor, an equaliser of mid
and side takes the excess back; where correlation asks for it, the whole side comes down. Nothing is ever lifted, and a
match within the rails is returned as it is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import part
from outboard.audio.song_profile import CENTRES_HERTZ, SongProfile, measure_profile, splits_for
from outboard.audio.spool import Spool
from services.master.chain_rules import Treatment
from services.master.reference_fit import HIGHEST_SHARE, loudness_shift_db, narrowing_db
from services.master.reference_render import render_match
from services.master.settings import DynamicsBand, GuardRails, MatchBand, ReferenceMatch

Array = NDArray[np.float32]
Levels = NDArray[np.float64]

_PRESENT_DB = -90.0  # against loudness: what is fainter cannot be said to be lifted
_MARGIN_DB = 0.2  # between two centres the curve is interpolated
_AUDIBLE_DB = 0.05
_MOST_ROUNDS = 30
_MOST_RENDERS = 4
_FURTHEST_DB = 60.0


@dataclass(frozen=True)
class Bounded:
    """A match within the rails, what it does to the mix, and a sentence."""

    array: Array
    treatment: Treatment
    note: str


def bounded(
    mix: SongProfile,
    array: Array,
    sample_rate_hertz: int,
    rails: GuardRails,
    spool_factory: Callable[[int], Spool],
    progress: Callable[[float], None],
) -> Bounded:
    """A matched song within the rails.

    Args:
        mix: as it was before.
        array: the matched mix, (1 or 2, frames), may be mapped.
        sample_rate_hertz: of both.
        rails: limits of lifts, side gain and correlation.
        spool_factory: makes an empty spool of that many channels.
        progress: told the fraction done; may raise.
    """
    with spool_factory(len(splits_for(sample_rate_hertz)) + 1) as levels:
        measured = measure_profile(array, sample_rate_hertz, levels, part(progress, 0.0, 1.0 / (_MOST_RENDERS + 1)))
        mid, side = _excess(mix, measured, rails)
        if not _matters(mid, side):
            note = "Matchering's match keeps the guard-rails of lifts, sides and correlation by itself."
            return Bounded(array, _treatment(mix, measured), note)
        done = array
        for render in range(1, _MOST_RENDERS + 1):
            share = part(progress, render / (_MOST_RENDERS + 1), (render + 1) / (_MOST_RENDERS + 1))
            found = ReferenceMatch(bands=_bands(mid, side, sample_rate_hertz), dynamics=_at_rest(sample_rate_hertz))
            with spool_factory(array.shape[0]) as spool:
                render_match(array, sample_rate_hertz, found, levels.array, spool, part(share, 0.0, 0.6))
                done = spool.array
            measured = measure_profile(done, sample_rate_hertz, progress=part(share, 0.6, 1.0))
            more_mid, more_side = _excess(mix, measured, rails)
            if not _matters(more_mid, more_side):
                break
            # Between bands of very different gains the filter is smoother than the curve: what is left is added.
            mid, side = mid + more_mid, side + more_side
        note = (
            f"Guard-rails take back up to {-mid.min():.1f} dB of matchering's match on the mid signal and up to "
            f"{-side.min():.1f} dB on the sides."
        )
        return Bounded(done, _treatment(mix, measured), note)


def _matters(mid: Levels, side: Levels) -> bool:
    return max(-float(mid.min()), -float(side.min())) >= _AUDIBLE_DB


def _lifts(mix: SongProfile, after: SongProfile) -> tuple[Levels, Levels]:
    """Per band, what mid and side were lifted by against loudness; nothing where the mix has nothing."""
    mid = np.where(mix.mid_db > _PRESENT_DB, after.mid_db - mix.mid_db, -math.inf)
    sides = mix.is_stereo & (mix.side_db > _PRESENT_DB)
    return mid, np.where(sides, after.side_db - mix.side_db, -math.inf)


def _excess(mix: SongProfile, matched: SongProfile, rails: GuardRails) -> tuple[Levels, Levels]:
    """Gains of mid and side, at most 0, that bring the match within the rails.

    What is cut is missing from loudness, against which lifts count: cutting goes on until it does not matter any more.
    """
    limit = rails.equalizer_db - _MARGIN_DB
    over_mid = 20.0 * math.log10(max(rails.side_gain, 1e-6)) - _MARGIN_DB
    mid_lift, side_lift = _lifts(mix, matched)
    mid = np.zeros_like(mix.mid_db)
    for _ in range(_MOST_ROUNDS):
        softer = loudness_shift_db(matched.mid_db, mid)
        more = np.maximum(mid_lift + mid - softer - limit, 0.0)
        mid = mid - more
        if more.max() < _AUDIBLE_DB:
            break
    softer = loudness_shift_db(matched.mid_db, mid)
    highest = np.minimum(limit + softer, np.maximum(mid_lift + mid, -_FURTHEST_DB) + over_mid)
    side = -np.maximum(side_lift - highest, 0.0)
    if matched.is_stereo:
        side = side - narrowing_db(matched, mid, side, rails.correlation)
    return mid, side


def _bands(mid: Levels, side: Levels, rate: int) -> tuple[MatchBand, ...]:
    inside = np.flatnonzero(HIGHEST_SHARE * rate > CENTRES_HERTZ)
    return tuple(MatchBand(float(CENTRES_HERTZ[k]), float(mid[k]), float(side[k])) for k in inside)


def _at_rest(rate: int) -> tuple[DynamicsBand, ...]:
    edges = (0.0, *splits_for(rate), 0.5 * rate)
    return tuple(DynamicsBand(low, high, 0.0) for low, high in itertools.pairwise(edges))


def _treatment(mix: SongProfile, after: SongProfile) -> Treatment:
    mid, side = _lifts(mix, after)
    lift = max(float(mid.max()), float(side.max()), 0.0)
    wider = np.where(np.isfinite(side), side - np.maximum(mid, -200.0), 0.0)
    return Treatment(lift, 10.0 ** (float(wider.max()) / 20.0) if mix.is_stereo else None)
