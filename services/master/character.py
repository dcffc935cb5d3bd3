"""What kind of song it is, as far as a plan asks: how densely it is struck, how far a voice carries it, whether its
dynamics are spent, and what its sound profile wants. Each becomes a number that scales treatment, and a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from outboard.audio.analysis import Analysis
from services.master.profile import OFFSET_HERTZ, MasterProfile

# Voice's share of what is heard: instrumental music stays under the first, from the second on the voice is the song.
_VOICE_SHARES = (0.15, 0.4)
_SPARSE_PER_SECOND, _MOVING_PER_SECOND, _DENSE_PER_SECOND, _DENSEST_PER_SECOND = 1.0, 2.0, 5.0, 10.0
_SHORTEST_RELEASE = 0.5
_LONGEST_ATTACK = 1.6
_VOICE_SPARED = 0.5


@dataclass(frozen=True)
class Character:
    """Factors on what the plan would do to any song; 1 changes nothing.

    Attributes:
        strokes: on the lift of onsets: what is hardly struck has none to lift.
        release: on the limiter's release in loud masters: the next stroke must not meet the last one's.
        attack: on attacks of compression: strokes that come often are let through.
        voice: on all that bends the voice's own band (compression, saturation, cuts of presence).
        spent: whether the dynamics are flat already, so that nothing is compressed or saturated.
    """

    strokes: float = 1.0
    release: float = 1.0
    attack: float = 1.0
    voice: float = 1.0
    spent: bool = False


def character(analysis: Analysis, profile: MasterProfile, notes: list[str]) -> Character:
    """The character of a song; what was not measured changes nothing.

    Args:
        analysis: of the mix.
        profile: its tolerance for flat dynamics, and its wishes.
        notes: receives a sentence for each.
    """
    notes.append(_wishes(profile))
    strokes = release = attack = voice = 1.0
    if (onsets := analysis.onsets_per_second) is not None:
        strokes = float(np.interp(onsets, (0.0, _SPARSE_PER_SECOND), (0.0, 1.0)))
        release = float(np.interp(onsets, (_DENSE_PER_SECOND, _DENSEST_PER_SECOND), (1.0, _SHORTEST_RELEASE)))
        attack = float(np.interp(onsets, (_MOVING_PER_SECOND, _DENSEST_PER_SECOND), (1.0, _LONGEST_ATTACK)))
        notes.append(_struck(onsets, release))
    if (dominance := analysis.vocal_dominance) is not None:
        voice = float(np.interp(dominance, _VOICE_SHARES, (1.0, _VOICE_SPARED)))
        notes.append(_sung(dominance, voice))
    flat = analysis.flat_dynamics_index
    spent = flat is not None and flat > profile.index_tolerance
    if flat is not None:
        told = "are spent: it is neither compressed nor saturated" if spent else "are not spent"
        notes.append(f"Its dynamics {told} (flat-dynamics index {flat:.2f}, from {profile.index_tolerance:.2f} on).")
    return Character(strokes, release, attack, voice, spent)


def _wishes(profile: MasterProfile) -> str:
    offsets = profile.target_offsets_db(OFFSET_HERTZ)
    wishes = [
        f"{gain:+.1f} dB around {hertz:.0f} Hz" for hertz, gain in zip(OFFSET_HERTZ, offsets, strict=True) if gain
    ]
    if profile.saturation_mix > 0.0:
        wishes.append("saturation in loud masters")
    if profile.parallel_mix > 0.0:
        wishes.append("a compressed copy underneath")
    asked = f"asks for {', '.join(wishes)}" if wishes else "asks for nothing beyond the common spectrum"
    return f"The sound profile {asked}."


def _struck(onsets: float, release: float) -> str:
    if onsets < _SPARSE_PER_SECOND:
        return f"{onsets:.1f} sounds begin per second: there are few onsets to lift."
    if release < 1.0:
        return f"{onsets:.1f} sounds begin per second: gains move faster, so that each finds them at rest."
    return f"{onsets:.1f} sounds begin per second: there is room between them for gains to recover."


def _sung(dominance: float, voice: float) -> str:
    if voice < 1.0:
        return f"A voice makes {dominance:.0%} of what is heard: its band is moved by {voice:.0%} of what it would be."
    return f"No voice carries it ({dominance:.0%} of what is heard moves like one): no band is spared."
