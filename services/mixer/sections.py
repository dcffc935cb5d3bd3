"""Faders over time: in a section where a part stands far off its own place in the song, it is met a little.

Sections begin where the sound of the mix changes: the novelty of its level history, a checkerboard moved along its
self-similarity (J. Foote, *Automatic audio segmentation using a measure of audio novelty*, ICME 2000). In each, a
strip's level against the whole mix is held against the same over the whole song: what it is off beyond the tolerance
is met by a third, by no more than the preset's range. Arrangement is the song's business: what does not play in a
section is left alone, and a separated stem stays within its 3 dB of the song's balance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from services.mixer.brief import Brief
from services.mixer.console import EnvelopePoint, Strip
from services.mixer.masking import MOMENT_SECONDS, Levels, summed
from services.mixer.strips import MAX_MOVE_DB, is_bleed

SHORTEST_SECONDS = 10.0
_RAMP_SECONDS = 2.0
_ANSWER = 1.0 / 3.0
_LEAST_MOVE_DB = 0.25
# A strip plays in a section when it comes within this of its loudest.
_PLAYS_WITHIN_DB = 15.0
_PROMINENT = 1.0  # deviations over the mean novelty

Floats = NDArray[np.float64]


def faded(brief: Brief, strips: Sequence[Strip]) -> tuple[Strip, ...]:
    """The strips with their envelopes."""
    range_db = brief.amount * brief.preset["mix.sections.range_db"]
    known = [s for s in strips if s.stem in brief.heard and brief.analyses[s.stem].integrated_lufs is not None]
    if range_db < _LEAST_MOVE_DB or brief.settings.respect_user_gains or len(known) < 2:
        return tuple(strips)
    levels = {s.stem: np.asarray(brief.heard[s.stem].levels + np.float32(s.gain_db), np.float32) for s in known}
    whole = summed(list(levels.values()))
    starts = section_starts(whole)
    if len(starts) < 2:
        return tuple(strips)
    moves = {s.stem: _moves_db(brief, s, levels[s.stem], whole, starts, range_db) for s in known}
    told = [name for name, gains in moves.items() if any(gains)]
    if told:
        brief.note(f"{len(starts)} sections: {', '.join(told)} moved by up to {range_db:.1f} dB.")
    rate = next(iter(brief.analyses.values())).sample_rate_hertz
    return tuple(
        replace(s, envelope=_envelope(moves[s.stem], starts, rate)) if any(moves.get(s.stem, ())) else s for s in strips
    )


def section_starts(levels: Levels) -> list[int]:
    """Moments at which sections begin, the first 0."""
    size = int(SHORTEST_SECONDS / MOMENT_SECONDS)
    if len(levels) < 2 * size:
        return [0]
    step = max(1, round(1.0 / MOMENT_SECONDS))
    seconds = len(levels) // step
    features = np.maximum(levels[: seconds * step].astype(np.float64), -70.0).reshape(seconds, step, -1).mean(axis=1)
    features -= features.mean(axis=0)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
    novelty = _novelty(np.asarray(np.einsum("ik,jk->ij", features, features)), int(SHORTEST_SECONDS))
    least = float(novelty.mean() + _PROMINENT * novelty.std())
    found = [0]
    for at in np.argsort(-novelty):
        if novelty[at] < least:
            break
        if all(abs(int(at) - other) >= SHORTEST_SECONDS for other in (*found, seconds)):
            found.append(int(at))
    return [at * step for at in sorted(found)]


def _novelty(likeness: Floats, half: int) -> Floats:
    """How unlike what follows is to what came before, in a window of twice ``half`` around every second."""
    signs = np.sign(np.arange(-half, half) + 0.5)
    taper = np.hanning(2 * half + 2)[1:-1]
    kernel = np.outer(signs * taper, signs * taper)
    padded = np.pad(likeness, half, mode="edge")
    return np.array([float(np.sum(padded[k : k + 2 * half, k : k + 2 * half] * kernel)) for k in range(len(likeness))])


def _level_db(levels: Levels) -> float:
    return 10.0 * math.log10(float(np.mean(np.sum(10.0 ** (levels.astype(np.float64) / 10.0), axis=1))) + 1e-14)


def _moves_db(
    brief: Brief, strip: Strip, levels: Levels, whole: Levels, starts: Sequence[int], range_db: float
) -> list[float]:
    """Gain in every section."""
    tolerance = brief.preset["mix.sections.tolerance_db"]
    place = _level_db(levels) - _level_db(whole)
    pieces = list(zip(starts, [*starts[1:], len(whole)], strict=True))
    loudest = max(_level_db(levels[a:b]) for a, b in pieces)
    moves = []
    for a, b in pieces:
        off = _level_db(levels[a:b]) - _level_db(whole[a:b]) - place
        over = math.copysign(max(0.0, abs(off) - tolerance), off)
        move = -min(max(_ANSWER * over, -range_db), range_db)
        if _level_db(levels[a:b]) < loudest - _PLAYS_WITHIN_DB or abs(move) < _LEAST_MOVE_DB:
            move = 0.0
        if brief.separated:
            move = min(max(move, -MAX_MOVE_DB - strip.gain_db), MAX_MOVE_DB - strip.gain_db)
            move = 0.0 if move > 0.0 and is_bleed(brief, strip.stem) else move
        moves.append(round(move, 2))
    return moves


def _envelope(gains: Sequence[float], starts: Sequence[int], sample_rate_hertz: int) -> tuple[EnvelopePoint, ...]:
    """Steady within sections, two seconds from one to the next."""
    half = int(0.5 * _RAMP_SECONDS * sample_rate_hertz)
    points = [EnvelopePoint(0, gains[0])]
    for start, before, after in zip(starts[1:], gains[:-1], gains[1:], strict=True):
        at = int(start * MOMENT_SECONDS * sample_rate_hertz)
        points += [EnvelopePoint(at - half, before), EnvelopePoint(at + half, after)]
    return tuple(points)
