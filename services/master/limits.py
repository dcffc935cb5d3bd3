"""What a target costs at most, and how the limiter gets there: guard-rails and limiter by loudness, whatever the intent
is called.

A master at -14 LUFS loses nothing to its limiter; each further decibel is paid for in crest factor and in limiting.
So both rails move with the target, along straight lines:

    target, LUFS             -14 and below   -10    -8 and above
    mean limiting, dB                    3     4     5
    crest factor, dB                     8     6     5

A target is a wish: where a rail stops the loop, loudness stays short of it and the report says by how much.

From -13 LUFS on a stroke's whole reduction is released over 120 ms instead of dipped within one. That lowers what
rings behind the stroke, which makes the stroke stand out further (crest) for the same loudness; what it takes from the
onset's own rise, the lifted onsets of `density` give back. Below that the limiter touches single strokes, and a dip
leaves everything around them as it was. Where peaks would stand further over the ceiling than 4.5 dB, releases would
keep the whole song down, so dips come back in, up to their usual share at 8 dB.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from outboard.audio.analysis import Analysis
from services.master.character import Character
from services.master.settings import GuardRails, Limiter

LOUD_LUFS = -13.0
"""From this target on a master counts as loud."""
CREST_TO_SPEND_DB = 2.0
"""A song that comes with a crest factor near the rail or below may still lose this."""
REFERENCE_EQUALIZER_LIMIT_DB = 9.0
"""Guard-rail of the equaliser where a mix is matched to references."""

_RELEASE_MS = 120.0
_DIPPED_AGAIN_DB = (4.5, 8.0)
_TARGETS_LUFS = (-14.0, -10.0, -8.0)
_LIMITING_DB = (3.0, 4.0, 5.0)
_CREST_DB = (8.0, 6.0, 5.0)


def guard_rails(analysis: Analysis, target_lufs: float | None, *, matched: bool) -> GuardRails:
    """The rails of a master.

    Args:
        analysis: of the mix.
        target_lufs: loudness to come; None: not known, or none is aimed at.
        matched: to references, whose spectrum may be further off.
    """
    crest_db = _at(target_lufs, _CREST_DB)
    if analysis.crest_factor_db is not None:
        crest_db = min(crest_db, max(analysis.crest_factor_db - CREST_TO_SPEND_DB, 0.0))
    rails = GuardRails(average_limiting_db=_at(target_lufs, _LIMITING_DB), crest_factor_db=crest_db)
    return replace(rails, equalizer_db=REFERENCE_EQUALIZER_LIMIT_DB) if matched else rails


def rails_note(target_lufs: float, rails: GuardRails) -> str:
    """The rails of loudness in a sentence."""
    allowed = f"at most {rails.average_limiting_db:.1f} dB of limiting on average"
    if rails.crest_factor_db is not None:
        allowed += f" and a crest factor of at least {rails.crest_factor_db:.1f} dB"
    return f"On the way to {target_lufs:.1f} LUFS {allowed} are allowed."


def for_known_target(rails: GuardRails, target_lufs: float) -> GuardRails:
    """Rails that were decided without a target, once a reference's loudness is it; edited ones stay."""
    if rails.average_limiting_db != _LIMITING_DB[0] or rails.crest_factor_db is None:
        return rails
    crest_db = min(rails.crest_factor_db, _at(target_lufs, _CREST_DB))
    return replace(rails, average_limiting_db=_at(target_lufs, _LIMITING_DB), crest_factor_db=crest_db)


def limiter(analysis: Analysis, song: Character, target_lufs: float | None, ceiling_dbtp: float) -> Limiter:
    """How the limiter moves on the way to a target."""
    if target_lufs is None or target_lufs < LOUD_LUFS:
        return Limiter()
    over_db = peaks_over_db(analysis, target_lufs, ceiling_dbtp)
    share = float(np.interp(over_db, _DIPPED_AGAIN_DB, (0.0, Limiter().dip_share)))
    return Limiter(lookahead_ms=1.5, release_ms=round(_RELEASE_MS * song.release, 1), dip_share=round(share, 3))


def peaks_over_db(analysis: Analysis, target_lufs: float, ceiling_dbtp: float) -> float:
    """How far the highest peak would stand over the ceiling at the target; 0 for what has no loudness."""
    if analysis.integrated_lufs is None or analysis.true_peak_dbtp is None:
        return 0.0
    return analysis.true_peak_dbtp + target_lufs - analysis.integrated_lufs - ceiling_dbtp


def _at(target_lufs: float | None, values: tuple[float, ...]) -> float:
    return values[0] if target_lufs is None else float(np.interp(target_lufs, _TARGETS_LUFS, values))
