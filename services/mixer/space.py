"""Depth: copies of the strips to one shared reverb and one shared delay, by role, and only where a sound is dry.

Near is little, far is much; kick and bass stay where they are. A separated stem carries its song's room already: it
sends less, and nothing at all where its tails tell that it is not dry (`hearing`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from outboard.audio.processors import Delay, Processor, Reverb
from outboard.audio.reverb import ReverbKindName
from services.mixer.brief import Brief
from services.mixer.console import Bus, Send, Strip
from services.mixer.roles import LOW

LABELS = ("reverb", "delay")
REVERB_BUS, DELAY_BUS = "reverb", "delay"
ROOMS: tuple[ReverbKindName, ...] = ("plate", "room", "chamber", "hall")
"""By the preset's number."""
# A send at this level or under it is none.
NO_SEND_DB = -60.0
# A supplied stem with a room of its own sends this much less, one with twice as long a tail nothing.
_WET_DB = 6.0
_DELAY_SECONDS = (0.08, 1.5)


def sent(brief: Brief, strips: Sequence[Strip]) -> tuple[tuple[Strip, ...], tuple[Bus, ...]]:
    """The strips with their sends, and the effect buses that they need."""
    wanted = {
        strip.stem: tuple(send for send in (_reverb_send(brief, strip), _delay_send(brief, strip)) if send is not None)
        for strip in strips
    }
    used = {send.bus for sends in wanted.values() for send in sends}
    buses = []
    if REVERB_BUS in used:
        buses.append(_reverb_bus(brief))
    if DELAY_BUS in used:
        buses.append(_delay_bus(brief))
    return tuple(replace(strip, sends=wanted[strip.stem]) for strip in strips), tuple(buses)


def _level_db(brief: Brief, strip: Strip, asked_db: float, label: str) -> float | None:
    """What a strip sends; None: nothing. A bypassed effect would hand the dry sound on, so it is not sent to at all."""
    heard = brief.heard.get(strip.stem)
    if heard is None or brief.amount < 0.1 or asked_db <= NO_SEND_DB or strip.role in LOW:
        return None
    if label in brief.settings.bypass or brief.analyses[strip.stem].integrated_lufs is None:
        return None
    dry = brief.preset["mix.space.dry_below_seconds"]
    tail = heard.tail_seconds
    if brief.separated:
        if tail is None or tail > dry:
            return None
        asked_db += brief.preset["mix.send.separated_db"]
    elif tail is not None and tail > 2.0 * dry:
        return None
    elif tail is None or tail > dry:
        asked_db -= _WET_DB
    return asked_db + 20.0 * math.log10(brief.amount)


def _reverb_send(brief: Brief, strip: Strip) -> Send | None:
    level = None
    if strip.role not in LOW:
        level = _level_db(brief, strip, brief.preset[f"mix.send.{strip.role}_db"], "reverb")
    if level is None:
        return None
    brief.note(f"{strip.stem} sends {level:.0f} dB to the reverb.")
    return Send(REVERB_BUS, level)


def _delay_send(brief: Brief, strip: Strip) -> Send | None:
    if strip.role != "lead_vocal" or _beat_seconds(brief) is None:
        return None
    level = _level_db(brief, strip, brief.preset["mix.send.lead_delay_db"], "delay")
    return None if level is None else Send(DELAY_BUS, level)


def _reverb_bus(brief: Brief) -> Bus:
    p = brief.preset
    kind = ROOMS[round(p["mix.space.kind"])]
    brief.note(f"A {kind} of {p['mix.space.decay_seconds']:.1f} s gives the mix its depth.")
    reverb = Reverb(
        kind=kind,
        decay_seconds=p["mix.space.decay_seconds"],
        predelay_ms=p["mix.space.predelay_ms"],
        damping_hertz=p["mix.space.damping_hertz"],
        low_cut_hertz=p["mix.space.low_cut_hertz"],
    )
    return Bus(REVERB_BUS, chain=(Processor("reverb", reverb),))


def _delay_bus(brief: Brief) -> Bus:
    p = brief.preset
    seconds = _beat_seconds(brief) or 0.3
    brief.note(f"The lead's echo comes every {1_000.0 * seconds:.0f} ms, {p['mix.delay.beats']:g} beats.")
    delay = Delay(
        time_ms=1_000.0 * seconds,
        feedback=p["mix.delay.feedback"],
        damping_hertz=p["mix.delay.damping_hertz"],
        ping_pong=True,
    )
    return Bus(DELAY_BUS, chain=(Processor("delay", delay),))


def _beat_seconds(brief: Brief) -> float | None:
    """The preset's share of a beat; the song's tempo, or that of the loudest drums, or of the loudest stem."""
    measured = [brief.song] if brief.song is not None else []
    by_level = sorted(
        brief.analyses,
        key=lambda name: (brief.roles.get(name) in ("kick", "snare", "drums"), brief.analyses[name].rms_dbfs or -200.0),
        reverse=True,
    )
    measured += [brief.analyses[name] for name in by_level]
    tempo = next((one.tempo_bpm for one in measured if one.tempo_bpm), None)
    if tempo is None:
        return None
    low, high = _DELAY_SECONDS
    return min(max(60.0 / tempo * brief.preset["mix.delay.beats"], low), high)
