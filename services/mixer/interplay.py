"""What strips do to one another: who gives way to whom, while it needs the room.

Voices have the first claim. Strips of music that cover them (`masking`) give way in the bands of hearing where they do,
while they do; apart from that all music steps back a little under the lead. The bass gives way to
the strokes of a kick at 40 to 120 Hz, ahead of them. Every move is a processor with a sidechain, so a plan shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from outboard.audio.analysis import Analysis
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.processors import Compressor, DynamicEqualizer, Processor, Unmasker
from services.mixer.brief import MAX_EQUALIZER_DB, Brief
from services.mixer.buses import VOCAL_BUS
from services.mixer.console import Strip
from services.mixer.hearing import KICK_HERTZ, KICK_Q, Strokes
from services.mixer.masking import CENTRES_HERTZ, PLAYING_DB, WIDTHS_HERTZ, Levels, masking, relief, summed
from services.mixer.roles import DRUMS, VOICES

LABELS = ("masking", "kick_sidechain", "lead_sidechain")
# A cut that frees less than this share of what is covered is not worth its price; a bass pays more for it.
_LEAST_RELIEF = 0.0025
_LEAST_BASS_RELIEF = 0.01
# Levels of the music over the voices in a band from which, and up to which, it gives way. A masker reaches into its
# neighbours as well, so it begins a little before it covers its own band.
_BEGINS_DB, _ENDS_DB = -9.0, 16.0
_UNMASK_ATTACK_MS, _UNMASK_RELEASE_MS = 10.0, 40.0
# A strip further under the music than this covers nothing by itself.
_LEAST_SHARE_DB = -6.0
# A bass keeps its fundamentals; its overtones may give way.
_ABOVE_BASS_HERTZ = 150.0
_LOOKAHEAD_MS = 7.0
# How far under its strokes' level a kick begins to move the bass.
_STROKE_DEPTH_DB = 8.0
# A separated song's own kick and voice have moved the rest once.
_SEPARATED_KICK_SHARE = 0.5
_SEPARATED_LEAD_DB = 0.5


@dataclass(frozen=True)
class _Part:
    strip: Strip
    measured: Analysis
    levels: Levels


@dataclass(frozen=True)
class _Sung:
    """All voices of a mix: levels at their faders, levels before them, what the faders do, and the key they are."""

    levels: Levels
    raw: Levels
    fader_db: float
    key: str

    @classmethod
    def of(cls, voices: Sequence[_Part]) -> _Sung:
        """One voice drives by itself, several by the sum of their stems, which is their bus."""
        raw = [np.asarray(one.levels - np.float32(one.strip.gain_db), np.float32) for one in voices]
        key = voices[0].strip.stem if len(voices) == 1 else VOCAL_BUS
        heard, keyed = summed([one.levels for one in voices]), summed(raw)
        sounding = keyed > max(float(keyed.max(initial=-np.inf)) - 2.0 * PLAYING_DB, -90.0)
        return cls(heard, keyed, float(np.mean((heard - keyed)[sounding])) if sounding.any() else 0.0, key)


def among(brief: Brief, strips: Sequence[Strip]) -> tuple[Strip, ...]:
    """The strips, with what they do to one another at the end of their chains."""
    parts = [
        _Part(strip, brief.analyses[strip.stem], np.asarray(brief.heard[strip.stem].levels + strip.gain_db, np.float32))
        for strip in strips
        if strip.stem in brief.heard and brief.analyses[strip.stem].integrated_lufs is not None
    ]
    lead = _loudest([part for part in parts if part.strip.role == "lead_vocal"])
    kick = _kick([part for part in parts if part.strip.role in ("kick", "drums")], brief)
    music = [part for part in parts if part.strip.role not in DRUMS | VOICES]
    sung = _Sung.of([part for part in parts if part.strip.role in VOICES]) if lead else None
    added: dict[str, list[Processor]] = {}
    for part in parts:
        role = part.strip.role
        moves: list[Processor | None] = []
        if kick and role == "bass":
            moves.append(_under_kick(brief, part, *kick))
        if sung and role not in DRUMS | VOICES:
            moves.append(_unmasked(brief, part, sung, [one for one in music if one is not part]))
        if lead and role not in DRUMS | VOICES | {"bass"}:
            moves.append(_under_lead(brief, part, lead))
        added[part.strip.stem] = [brief.slot(move) for move in moves if move is not None]
    return tuple(_with(strip, added.get(strip.stem, [])) for strip in strips)


def _unmasked(brief: Brief, part: _Part, sung: _Sung, others: Sequence[_Part]) -> Processor | None:
    """Cuts where this strip covers the voices together with the other music, while they sing there."""
    rest = [one.levels for one in others]
    found = masking(sung.levels, [part.levels, *rest])
    depth = brief.amount * min(brief.preset["mix.masking.cut_db"], MAX_EQUALIZER_DB)
    if found.index <= brief.preset["mix.masking.tolerance"] or depth < 0.25:
        return None
    gains = relief(sung.levels, part.levels, rest, depth)
    is_bass = part.strip.role == "bass"
    lowest, least = (_ABOVE_BASS_HERTZ, _LEAST_BASS_RELIEF) if is_bass else (0.0, _LEAST_RELIEF)
    wanted = [b for b, gain in enumerate(gains) if gain >= least * found.index and CENTRES_HERTZ[b] >= lowest]
    if not wanted:
        return None
    low, high = (CENTRES_HERTZ[b] + side * WIDTHS_HERTZ[b] for b, side in ((wanted[0], -0.5), (wanted[-1], 0.5)))
    brief.note(
        f"The music covers {100 * found.index:.0f} % of the voices: {part.strip.stem} gives way by up to "
        f"{depth:.1f} dB where it covers them, from {low:.0f} to {high:.0f} Hz."
    )
    off = _share_db(part, rest) + sung.fader_db - part.strip.gain_db
    return Processor(
        "masking",
        Unmasker(
            sidechain=sung.key,
            range_db=-depth,
            begins_db=round(_BEGINS_DB + off, 2),
            ends_db=round(_ENDS_DB + off, 2),
            threshold_db=round(float(sung.raw.max()) - PLAYING_DB, 2),
            low_hertz=round(max(low, lowest), 1),
            high_hertz=round(high, 1),
            attack_ms=_UNMASK_ATTACK_MS,
            release_ms=_UNMASK_RELEASE_MS,
        ),
    )


def _share_db(part: _Part, rest: Sequence[Levels]) -> float:
    """How far a strip usually stands under all music, of which it sees itself only."""
    whole = summed([part.levels, *rest])
    own = part.levels[: len(whole)]
    heard = whole > whole.max(axis=1, keepdims=True) - PLAYING_DB
    return max(float(np.mean((own - whole)[heard])), _LEAST_SHARE_DB)


def _under_lead(brief: Brief, part: _Part, lead: _Part) -> Processor | None:
    """Music steps back while the lead sings."""
    range_db = brief.amount * brief.preset["mix.sidechain.lead_music_db"]
    if brief.separated:
        range_db = min(range_db, _SEPARATED_LEAD_DB)
    if range_db < 0.1 or lead.measured.rms_dbfs is None:
        return None
    brief.note(f"{part.strip.stem} steps back by up to {range_db:.1f} dB while {lead.strip.stem} sings.")
    return Processor(
        "lead_sidechain",
        Compressor(
            threshold_db=lead.measured.rms_dbfs - 6.0,
            ratio=2.0,
            attack_ms=15.0,
            release_ms=250.0,
            lookahead_ms=_LOOKAHEAD_MS,
            detector="rms",
            sidechain=lead.strip.stem,
            range_db=range_db,
        ),
    )


def _under_kick(brief: Brief, part: _Part, kick: _Part, strokes: Strokes) -> Processor | None:
    """The bass gives way to the kick's strokes in the band that they share: the detector hears no other band."""
    range_db = brief.amount * brief.preset["mix.sidechain.kick_bass_db"]
    if brief.separated:
        range_db *= _SEPARATED_KICK_SHARE
    if range_db < 0.25:
        return None
    brief.note(
        f"{part.strip.stem} gives way by up to {range_db:.1f} dB at 40-120 Hz to the strokes in {kick.strip.stem}, "
        f"{strokes.per_second:.1f} a second."
    )
    band = DynamicBandSettings(
        frequency_hertz=KICK_HERTZ,
        q=KICK_Q,
        ratio=4.0,
        range_db=-range_db,
        # Over all that lies between the strokes, and early on their way up.
        threshold_db=max(strokes.level_dbfs - _STROKE_DEPTH_DB, strokes.gap_dbfs + 3.0, -90.0),
        attack_ms=5.0,
        release_ms=90.0,
        sidechain=kick.strip.stem,
        lookahead_ms=_LOOKAHEAD_MS,
    )
    return Processor("kick_sidechain", DynamicEqualizer((band,)))


def _with(strip: Strip, added: Sequence[Processor]) -> Strip:
    return replace(strip, chain=(*strip.chain, *added)) if added else strip


def _loudest(parts: Sequence[_Part]) -> _Part | None:
    def loudness(part: _Part) -> tuple[float, str]:
        return (part.measured.integrated_lufs or -math.inf) + part.strip.gain_db, part.strip.stem

    return max(parts, key=loudness, default=None)


def _kick(parts: Sequence[_Part], brief: Brief) -> tuple[_Part, Strokes] | None:
    """The strip with the loudest strokes at 40 to 120 Hz: the kick, or the drums that hold one."""
    found = [(s.level_dbfs, p.strip.stem, p, s) for p in parts if (s := brief.heard[p.strip.stem].strokes) is not None]
    return max(found, key=lambda one: one[:2])[2:] if found else None
