"""What strips do to one another: who gives way to whom, while it needs the room.

The lead vocal has the first claim. A strip of music that covers it (`masking`) gives way in the bands where it does,
while the lead sings there and no longer; apart from that all music steps back a little under the lead. The bass gives
way to the kick at 40 to 120 Hz, ahead of its stroke. Every move is a processor with a sidechain, so a plan shows it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from outboard.audio.analysis import Analysis
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.processors import Compressor, DynamicEqualizer, Processor
from services.mixer.brief import Brief
from services.mixer.console import Strip
from services.mixer.masking import CENTRES_HERTZ, WIDTHS_HERTZ, Levels, masking, relief
from services.mixer.roles import DRUMS, VOICES

LABELS = ("masking", "kick_sidechain", "lead_sidechain")
# Bands that one strip gives way in, at most, and how far the cut goes at most.
_MOST_BANDS = 6
_MAX_CUT_DB = 4.0
# A cut that frees less than this share of the lead's loudness is not worth its price.
_LEAST_RELIEF = 0.002
# A bass keeps its fundamentals; its overtones may give way.
_ABOVE_BASS_HERTZ = 150.0
_LOW_HERTZ, _HIGH_HERTZ = 40.0, 120.0
_LOOKAHEAD_MS = 7.0
# Drums with less than this (-50 dBFS) at 40 to 120 Hz have no kick.
_KICK_POWER = 1e-5


@dataclass(frozen=True)
class _Part:
    strip: Strip
    measured: Analysis
    levels: Levels


def among(brief: Brief, strips: Sequence[Strip]) -> tuple[Strip, ...]:
    """The strips, with what they do to one another at the end of their chains."""
    parts = [
        _Part(strip, brief.analyses[strip.stem], np.asarray(brief.heard[strip.stem].levels + strip.gain_db, np.float32))
        for strip in strips
        if strip.stem in brief.heard and brief.analyses[strip.stem].integrated_lufs is not None
    ]
    lead = _loudest([part for part in parts if part.strip.role == "lead_vocal"])
    kick = _deepest([part for part in parts if part.strip.role in ("kick", "drums")])
    added: dict[str, list[Processor]] = {}
    for part in parts:
        role = part.strip.role
        moves: list[Processor | None] = []
        if kick and role == "bass":
            moves.append(_under_kick(brief, part, kick))
        if lead and role not in DRUMS | VOICES:
            moves.append(_unmasked(brief, part, lead))
        if lead and role not in DRUMS | VOICES | {"bass"}:
            moves.append(_under_lead(brief, part, lead))
        added[part.strip.stem] = [brief.slot(move) for move in moves if move is not None]
    return tuple(_with(strip, added.get(strip.stem, [])) for strip in strips)


def _unmasked(brief: Brief, part: _Part, lead: _Part) -> Processor | None:
    """Cuts where this strip covers the lead, while the lead sings there."""
    found = masking(lead.levels, [part.levels])
    excess = found.index - brief.preset["mix.masking.tolerance"]
    depth = brief.amount * min(brief.preset["mix.masking.cut_db"], _MAX_CUT_DB)
    if excess <= 0.0 or depth < 0.25:
        return None
    gains = relief(lead.levels, part.levels, depth)
    lowest = _ABOVE_BASS_HERTZ if part.strip.role == "bass" else 0.0
    worst = [band for band in _peaks(gains) if gains[band] >= _LEAST_RELIEF and CENTRES_HERTZ[band] >= lowest][
        :_MOST_BANDS
    ]
    if not worst:
        return None
    hertz = [CENTRES_HERTZ[band] for band in worst]
    where = ", ".join(f"{one:.0f}" for one in sorted(hertz))
    brief.note(
        f"{part.strip.stem} covers {100 * found.index:.0f} % of {lead.strip.stem}: up to {depth:.1f} dB are cut "
        f"at {where} Hz while it sings."
    )
    return Processor("masking", DynamicEqualizer(tuple(_band(lead, band, depth) for band in sorted(worst))))


def _under_lead(brief: Brief, part: _Part, lead: _Part) -> Processor | None:
    """Music steps back while the lead sings."""
    range_db = brief.amount * brief.preset["mix.sidechain.lead_music_db"]
    if brief.separated or range_db < 0.1 or lead.measured.rms_dbfs is None:
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


def _under_kick(brief: Brief, part: _Part, kick: _Part) -> Processor | None:
    """The bass gives way to the kick's stroke in the band that they share."""
    range_db = brief.amount * brief.preset["mix.sidechain.kick_bass_db"]
    level = _low_level_db(kick)
    if brief.separated or range_db < 0.25 or level is None:
        return None
    brief.note(f"{part.strip.stem} gives way to {kick.strip.stem} by up to {range_db:.1f} dB at 40-120 Hz.")
    band = DynamicBandSettings(
        frequency_hertz=math.sqrt(_LOW_HERTZ * _HIGH_HERTZ),
        q=math.sqrt(_LOW_HERTZ * _HIGH_HERTZ) / (_HIGH_HERTZ - _LOW_HERTZ),
        ratio=4.0,
        range_db=-range_db,
        threshold_db=level,
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


def _deepest(parts: Sequence[_Part]) -> _Part | None:
    """The part with the most at 40 to 120 Hz: the kick, or the drums that hold one."""
    found = [(level, part.strip.stem, part) for part in parts if (level := _low_level_db(part)) is not None]
    return max(found, key=lambda one: one[:2])[2] if found else None


def _peaks(bands: Sequence[float]) -> list[int]:
    """Bands by what a cut there frees, the most first; of neighbours only the stronger."""
    chosen: list[int] = []
    for band in sorted(range(len(bands)), key=lambda one: (-bands[one], one)):
        if all(abs(band - other) > 2 for other in chosen):
            chosen.append(band)
    return chosen


def _band(lead: _Part, band: int, depth_db: float) -> DynamicBandSettings:
    """A cut three ERB wide that opens as the lead's level in it comes near its usual one."""
    playing = lead.levels[:, band] - lead.strip.gain_db
    usual = float(np.percentile(playing, 75))
    return DynamicBandSettings(
        frequency_hertz=CENTRES_HERTZ[band],
        q=min(CENTRES_HERTZ[band] / (3.0 * WIDTHS_HERTZ[band]), 20.0),
        ratio=8.0,
        range_db=-depth_db,
        threshold_db=max(usual - 10.0, -90.0),
        attack_ms=15.0,
        release_ms=150.0,
        sidechain=lead.strip.stem,
    )


def _low_level_db(kick: _Part) -> float | None:
    """Level of the kick at 40 to 120 Hz over the whole song, dBFS: strokes are far over it, gaps under it."""
    bands = [i for i, hertz in enumerate(CENTRES_HERTZ) if _LOW_HERTZ <= hertz <= _HIGH_HERTZ]
    raw = kick.levels[:, bands] - kick.strip.gain_db
    power = float(np.mean(np.sum(10.0 ** (raw / 10.0), axis=1))) if len(raw) else 0.0
    return 10.0 * math.log10(power) if power > _KICK_POWER else None
