"""The stereo field of a master: mono bass, and sides that mono listeners can bear."""

from __future__ import annotations

import math

from outboard.audio.analysis import Analysis
from outboard.audio.processors import Processor, StereoWidth
from services.master.profile import MasterProfile

_MONO_ENOUGH = 0.98
_NARROWING = 0.5
_SMALLEST_CHANGE = 0.02


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
