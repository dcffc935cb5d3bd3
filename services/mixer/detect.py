"""Tells what a stem plays by its sound; its name is a hint.

A set of soft rules, one per role, over the numbers of `listening`: each rule multiplies memberships from 0 to 1, each
a straight ramp between "not at all" and "clearly so". A name that suggests a role adds `NAME_WEIGHT` to that role's
score, so a clear sound outvotes it and an unclear one is decided by it. Among kin (parts of a drum kit, voices,
instruments) it adds `KIN_WEIGHT`: that a stem is struck is heard, which drum it is called is believed. Relations come
last: of several lead voices the one that carries the song leads.

The ramps follow what instruments do (a kick has its power under 120 Hz and no top, a voice glides, several voices are
wide and have no single pitch). They were set by looking at the twelve stems of one recorded song and at five seeds
(100 to 104) of the demo song: figures for these are no test, those for other demo seeds are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from outboard.audio.stems import OTHER, role_from_name
from services.mixer.listening import Sound
from services.mixer.roles import DRUMS, VOICES

NAME_WEIGHT, KIN_WEIGHT = 0.6, 1.0
# Under this score no rule has spoken.
_NO_RULE = 0.1
# A voice that is quieter than the loudest by this much (level and time together) is no lead.
_LEAD_WITHIN_DB = 5.0


@dataclass(frozen=True)
class RoleGuess:
    """A role and how sure it is, 0 to 1; a role that was given has 1."""

    role: str
    confidence: float


def detect_roles(
    sounds: Mapping[str, Sound | None], given: Mapping[str, str], *, separated: bool
) -> dict[str, RoleGuess]:
    """The role of every stem.

    Args:
        sounds: what `listen` heard, by stem name; None for silent ones.
        given: roles that a person gave, by stem name; empty and ``unspecified`` are to be found.
        separated: the stems come from a separator, whose names say what they are.
    """
    guesses = {}
    for name, sound in sounds.items():
        role = given.get(name, "")
        if role not in ("", "unspecified"):
            guesses[name] = RoleGuess(role, 1.0)
        elif separated:
            guesses[name] = RoleGuess(role_from_name(name), 1.0)
        else:
            guesses[name] = guess(sound, name)
    found = [name for name in guesses if given.get(name, "") in ("", "unspecified") and not separated]
    return guesses | _backing(guesses, sounds, found)


def guess(sound: Sound | None, name: str = "") -> RoleGuess:
    """The role of one stem by itself."""
    hinted = role_from_name(name)
    if sound is None:
        return RoleGuess(hinted, 0.0)
    scores = role_scores(sound)
    if hinted != OTHER:
        heard = max(scores, key=lambda role: scores[role])
        scores[hinted] = scores.get(hinted, 0.0) + (KIN_WEIGHT if _kin(hinted) == _kin(heard) else NAME_WEIGHT)
    ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    (role, best), (_, second) = ranked[:2]
    if best < _NO_RULE:
        return RoleGuess(OTHER, 0.0)
    return RoleGuess(role, round(min(1.0, best) * best / (best + second + _NO_RULE), 3))


def _kin(role: str) -> str:
    return "drums" if role in DRUMS else "voices" if role in VOICES else role if role == "bass" else "instruments"


def role_scores(sound: Sound) -> dict[str, float]:
    """How well each role's rule fits, 0 to 1."""
    sub, low, middle, presence, top = sound.shares
    high = presence + top
    voice = _voice(sound)
    struck = (
        _ramp(sound.decay_db, 2.5, 6.0)
        * _ramp(sound.onsets_per_second, 1.0, 2.0)
        * _ramp(sound.tonality_db, 8.5, 7.0)
        * (1.0 - voice)
    )
    kick = _ramp(sub, 0.5, 0.75) * _ramp(high, 0.03, 0.015)
    alike = _ramp(sound.onset_spread_octaves, 1.0, 0.5)
    hats = _ramp(top, 0.2, 0.4) * _ramp(sub, 0.15, 0.08)
    snare = _ramp(middle + presence, 0.4, 0.6) * _ramp(sub, 0.2, 0.1) * alike
    # Accompaniment: tonal, neither struck nor sung. What it is, is told by how it moves.
    tonal = _ramp(sound.tonality_db, 7.5, 8.5) * (1.0 - struck) * (1.0 - voice)
    bass = (
        _ramp(sub + low, 0.8, 0.92)
        * _ramp(sub, 0.3, 0.6)
        * _ramp(sound.onset_spread_octaves, 0.9, 0.5)
        * (1.0 - struck)
    )
    chorus = (
        _ramp(sound.side, 0.3, 0.45)
        * _ramp(low + middle, 0.8, 0.95)
        * _ramp(sound.activity, 0.8, 0.5)
        * _ramp(sound.decay_db, 8.0, 4.0)
    )
    sparse = _ramp(sound.activity, 0.8, 0.6)
    rest = tonal * (1.0 - bass) * (1.0 - chorus)
    restless = _ramp(sound.onset_spread_octaves, 1.1, 1.5)
    moving = _ramp(sound.onset_spread_octaves, 0.3, 0.6)
    played = _ramp(sound.onsets_per_second, 0.8, 1.6)
    return {
        "kick": struck * kick,
        "snare": struck * snare * (1.0 - hats),
        "hats": struck * hats,
        "drums": 0.9 * struck * (1.0 - kick) * (1.0 - hats) * (1.0 - snare),
        "bass": bass,
        "lead_vocal": voice,
        "backing_vocal": chorus * (1.0 - struck) * (1.0 - voice),
        "fx": rest * restless,
        "synth": rest * moving * played * (1.0 - restless),
        "keys": rest * sparse * (1.0 - played),
        "pad": rest * (1.0 - sparse) * (1.0 - played) * _ramp(sound.side, 0.25, 0.5),
        OTHER: 0.8 * rest * (1.0 - sparse) * _ramp(sound.side, 0.5, 0.25) * (1.0 - moving),
    }


def _voice(sound: Sound) -> float:
    """One pitch over 100 Hz that glides, with hardly anything under 120 Hz."""
    return (
        _ramp(sound.voiced, 0.3, 0.55)
        * _ramp(sound.glide, 0.1, 0.2)
        * _ramp(sound.pitch_hertz, 90.0, 110.0)
        * _ramp(sound.shares[0], 0.25, 0.1)
        * _ramp(sound.side, 0.4, 0.2)
    )


def _backing(
    guesses: Mapping[str, RoleGuess], sounds: Mapping[str, Sound | None], found: list[str]
) -> dict[str, RoleGuess]:
    """Voices that were found to lead but stand behind another lead."""
    leads = {
        name: sound.level_dbfs
        for name, sound in sounds.items()
        if sound is not None and guesses[name].role == "lead_vocal"
    }
    loudest = max(leads.values(), default=0.0)
    return {
        name: RoleGuess("backing_vocal", guesses[name].confidence)
        for name, level in leads.items()
        if name in found and level < loudest - _LEAD_WITHIN_DB
    }


def _ramp(value: float, none: float, full: float) -> float:
    """0 at ``none`` and beyond, 1 at ``full`` and beyond, a straight line between."""
    return min(1.0, max(0.0, (value - none) / (full - none)))
