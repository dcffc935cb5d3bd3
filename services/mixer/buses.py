"""On which bus each strip meets the others, and what each bus needs: decided from the sum that it will carry.

The sum is known from the auditory levels of its strips at their faders, four times a second: parts of a mix are not
alike, so their powers add up. Compressors get the threshold at which that level history asks for the wanted average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio.processors import Compressor, Equalizer, FilterBand, Processor, TransientShaper
from services.mixer.brief import MAX_EQUALIZER_DB, Brief
from services.mixer.console import Bus, Strip
from services.mixer.masking import CENTRES_HERTZ, Levels, masking, summed
from services.mixer.roles import DRUMS, VOICES

LABELS = ("glue", "punch", "crush", "low_mid", "bus_air", "parallel", "presence_shelf")
DRUM_BUS, MUSIC_BUS, VOCAL_BUS = "drums", "music", "vocals"
BUSES = (DRUM_BUS, MUSIC_BUS, VOCAL_BUS)
# Shares of music are told against everything above the bass.
_ABOVE_BASS_HERTZ = 150.0
_LOW_MID_HERTZ, _AIR_HERTZ, _PRESENCE_HERTZ = (200.0, 350.0), (8_000.0, 20_000.0), (2_800.0, 5_600.0)
# A share that is this near to its target is there.
_SHARE_TOLERANCE_DB = 0.5
_CORRECTION = 0.7
_LEAST_MOVE_DB = 0.25
_PLAYING_DB = 30.0
# Glue takes no stroke down by more than this.
_GLUE_RANGE_DB = 3.0
# With this much of the lead covered in the presence region the shelf is at its limit.
_FULL_PRESENCE_MASKING = 0.02


def routed(strips: Sequence[Strip]) -> tuple[tuple[Strip, ...], tuple[Bus, ...]]:
    """Every strip on the bus of its kind; only buses that have strips."""
    placed = tuple(replace(strip, bus=_bus_of(strip.role)) for strip in strips)
    used = {strip.bus for strip in placed}
    return placed, tuple(Bus(name) for name in (DRUM_BUS, MUSIC_BUS, VOCAL_BUS) if name in used)


def _bus_of(role: str) -> str:
    return DRUM_BUS if role in DRUMS else VOCAL_BUS if role in VOICES else MUSIC_BUS


def treated(brief: Brief, strips: Sequence[Strip], buses: Sequence[Bus]) -> tuple[Bus, ...]:
    """The buses with their chains; untouched where nobody listened."""
    sums = {bus.name: bus_levels(brief, strips, bus.name) for bus in buses}
    rules = {DRUM_BUS: _drums, MUSIC_BUS: _music, VOCAL_BUS: _vocals}
    found = []
    for bus in buses:
        levels = sums[bus.name]
        chain = rules[bus.name](brief, levels, sums) if len(levels) and bus.name in rules else []
        found.append(replace(bus, chain=tuple(brief.slot(one) for one in chain if one is not None)))
    return tuple(found)


def mix_glue(brief: Brief, strips: Sequence[Strip]) -> tuple[Processor, ...]:
    """Gentle compression of a mix of supplied stems; a separated song has had its own."""
    levels = summed([bus_levels(brief, strips, name) for name in (DRUM_BUS, MUSIC_BUS, VOCAL_BUS)])
    if brief.separated or not len(levels):
        return ()
    glue = _glue(brief, "the mix", levels, brief.amount * brief.preset["mix.bus.mix_glue_db"], 1.5, 30.0, 200.0)
    return (brief.slot(glue),) if glue is not None else ()


def bus_levels(brief: Brief, strips: Sequence[Strip], bus: str) -> Levels:
    """Levels of what a bus will carry; nothing where nobody listened."""
    members = [
        np.asarray(brief.heard[strip.stem].levels + np.float32(strip.gain_db), np.float32)
        for strip in strips
        if strip.bus == bus and strip.stem in brief.heard and brief.analyses[strip.stem].integrated_lufs is not None
    ]
    return summed(members)


def share_db(levels: Levels, band_hertz: tuple[float, float]) -> float:
    """Mean power in a band against everything above the bass, in dB."""
    power = np.mean(10.0 ** (levels.astype(np.float64) / 10.0), axis=0)
    centres = np.array(CENTRES_HERTZ)
    inside = float(power[(centres >= band_hertz[0]) & (centres < band_hertz[1])].sum())
    whole = float(power[centres >= _ABOVE_BASS_HERTZ].sum())
    return 10.0 * math.log10(max(inside, 1e-12) / max(whole, 1e-12))


def low_mid_share_db(levels: Levels) -> float:
    """Share of 200 to 350 Hz: what the music bus is cleaned up by."""
    return share_db(levels, _LOW_MID_HERTZ)


def _playing(levels: Levels) -> NDArray[np.float64]:
    """Level in dB of the moments that play."""
    level = 10.0 * np.log10(np.sum(10.0 ** (levels.astype(np.float64) / 10.0), axis=1) + 1e-14)
    found: NDArray[np.float64] = level[level > max(float(level.max()) - _PLAYING_DB, -70.0)]
    return found


def _spread_db(level: NDArray[np.float64]) -> float:
    """How far loud moments stand over ordinary ones."""
    return float(np.percentile(level, 95) - np.percentile(level, 50)) if level.size else 0.0


def _threshold_db(level: NDArray[np.float64], ratio: float, average_db: float) -> float:
    """Where a compressor must set in to reduce these moments by ``average_db`` on average."""
    low, high = float(level.min()) - 20.0, float(level.max())
    for _ in range(40):
        middle = 0.5 * (low + high)
        reduced = (1.0 - 1.0 / ratio) * float(np.mean(np.maximum(level - middle, 0.0)))
        low, high = (middle, high) if reduced > average_db else (low, middle)
    return high


def _kept(level: NDArray[np.float64], settings: Compressor) -> Compressor:
    """The compressor with the make-up that leaves these moments as loud as they were."""
    over = np.maximum(level - settings.threshold_db, 0.0)
    gain = 10.0 ** (np.maximum((1.0 / settings.ratio - 1.0) * over, -settings.range_db) / 20.0)
    power = 10.0 ** (level / 10.0)
    low, high = 0.0, 18.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        blend = 1.0 + settings.mix * (gain * 10.0 ** (middle / 20.0) - 1.0)
        low, high = (middle, high) if np.sum(power * blend**2) < np.sum(power) else (low, middle)
    return replace(settings, makeup_db=round(low, 2))


def _glue(
    brief: Brief, name: str, levels: Levels, average_db: float, ratio: float, attack_ms: float, release_ms: float
) -> Processor | None:
    """Slow compression of a sum whose loud moments stand far over its ordinary ones."""
    level = _playing(levels)
    spread = _spread_db(level)
    if average_db < 0.1 or spread <= brief.preset["mix.bus.lively_db"]:
        return None
    threshold = max(_threshold_db(level, ratio, average_db), -90.0)
    brief.note(f"Loud moments of {name} stand {spread:.1f} dB out: held together by {average_db:.1f} dB on average.")
    settings = Compressor(
        threshold, ratio, attack_ms=attack_ms, release_ms=release_ms, rms_ms=20.0, range_db=_GLUE_RANGE_DB
    )
    return Processor("glue", _kept(level, settings))


def _drums(brief: Brief, levels: Levels, sums: dict[str, Levels]) -> list[Processor | None]:
    p = brief.preset
    glue = _glue(brief, "the drums", levels, brief.amount * p["mix.bus.drum_glue_db"], 2.0, 30.0, 120.0)
    return [glue, _punch(brief), _crush(brief, levels)]


def _punch(brief: Brief) -> Processor | None:
    """Onsets for drums whose peaks do not stand out."""
    crests = [
        (a.rms_dbfs, a.crest_factor_db)
        for name, a in sorted(brief.analyses.items())
        if brief.roles.get(name) in DRUMS and a.rms_dbfs is not None and a.crest_factor_db is not None
    ]
    if not crests:
        return None
    crest = max(crests)[1]
    lacking = brief.preset["mix.bus.drum_crest_db"] - crest
    lift = brief.amount * min(brief.preset["mix.bus.drum_attack_db"], 0.5 * lacking)
    if lift < _LEAST_MOVE_DB:
        return None
    brief.note(f"The drums peak only {crest:.1f} dB over their level: onsets are lifted by up to {lift:.1f} dB.")
    return Processor("punch", TransientShaper(attack_db=lift))


def _crush(brief: Brief, levels: Levels) -> Processor | None:
    """A share of hard compression under lively drums: their tails come up, their strokes stay."""
    share = brief.amount * brief.preset["mix.bus.drum_crush_mix"]
    level = _playing(levels)
    if share < 0.02 or _spread_db(level) <= brief.preset["mix.bus.lively_db"]:
        return None
    threshold = max(float(np.percentile(level, 50)) - 6.0, -90.0)
    brief.note(f"Under the drums lies {100 * share:.0f} % of themselves, compressed hard.")
    settings = Compressor(threshold, 10.0, attack_ms=3.0, release_ms=90.0, mix=share, rms_ms=5.0)
    return Processor("crush", _kept(level, settings))


def _music(brief: Brief, levels: Levels, sums: dict[str, Levels]) -> list[Processor | None]:
    return [_low_mid(brief, levels), _air(brief, levels)]


def _low_mid(brief: Brief, levels: Levels) -> Processor | None:
    """The share of 200 to 350 Hz is brought towards the preset's."""
    p = brief.preset
    share = low_mid_share_db(levels)
    off = share - p["mix.bus.low_mid_share_db"]
    if abs(off) <= _SHARE_TOLERANCE_DB:
        return None
    limit = min(p["mix.bus.low_mid_limit_db"], MAX_EQUALIZER_DB)
    # What lacks is given back by half: a lift brings up what is wrong there as well.
    gain = -brief.amount * (min(_CORRECTION * off, limit) if off > 0.0 else max(0.5 * off, -0.5 * limit))
    if abs(gain) < _LEAST_MOVE_DB:
        return None
    brief.note(f"200 to 350 Hz hold {share:+.1f} dB of the music above the bass, {off:+.1f} too much: {gain:+.1f} dB.")
    return Processor("low_mid", Equalizer((FilterBand("peak", math.sqrt(200.0 * 350.0), gain, 1.2),)))


def _air(brief: Brief, levels: Levels) -> Processor | None:
    """A shelf for music that has hardly any top; not where the song's spectrum ends below it."""
    p = brief.preset
    ends = [a.bandwidth_hertz for a in brief.analyses.values() if a.bandwidth_hertz is not None]
    if not ends or max(ends) < p["mix.air_below_hertz"]:
        return None
    share = share_db(levels, _AIR_HERTZ)
    gain = brief.amount * min(p["mix.bus.air_limit_db"], MAX_EQUALIZER_DB, 0.5 * (p["mix.bus.air_share_db"] - share))
    if gain < _LEAST_MOVE_DB:
        return None
    brief.note(f"The music has {share:.1f} dB of its power above 8 kHz: a shelf lifts it by {gain:.1f} dB.")
    return Processor("bus_air", Equalizer((FilterBand("high_shelf", 9_000.0, gain),)))


def _vocals(brief: Brief, levels: Levels, sums: dict[str, Levels]) -> list[Processor | None]:
    others = [one for name, one in sums.items() if name != VOCAL_BUS and len(one)]
    return [_parallel(brief, levels), _presence(brief, levels, others)]


def _parallel(brief: Brief, levels: Levels) -> Processor | None:
    """Parallel compression of voices whose soft words fall far behind: those come up, the loud ones stay."""
    share = brief.amount * brief.preset["mix.bus.vocal_parallel_mix"]
    level = _playing(levels)
    spread = _spread_db(level)
    if share < 0.02 or spread <= brief.preset["mix.bus.vocal_range_db"]:
        return None
    threshold = max(float(np.percentile(level, 50)) - 3.0, -90.0)
    brief.note(f"Loud words stand {spread:.1f} dB out: {100 * share:.0f} % of the voices is compressed beside them.")
    settings = Compressor(threshold, 4.0, attack_ms=8.0, release_ms=120.0, mix=share, rms_ms=10.0)
    return Processor("parallel", _kept(level, settings))


def _presence(brief: Brief, levels: Levels, others: Sequence[Levels]) -> Processor | None:
    """A shelf from 3 to 5 kHz on for voices that the rest covers there."""
    if not others:
        return None
    covered = masking(levels, others).bands
    there = sum(part for part, hertz in zip(covered, CENTRES_HERTZ, strict=True) if _within(hertz, _PRESENCE_HERTZ))
    limit = min(brief.preset["mix.bus.vocal_presence_db"], MAX_EQUALIZER_DB)
    gain = brief.amount * limit * min(1.0, there / _FULL_PRESENCE_MASKING)
    if gain < _LEAST_MOVE_DB:
        return None
    brief.note(f"{100 * there:.1f} % of the voices are covered around 4 kHz: a shelf lifts them by {gain:.1f} dB.")
    return Processor("presence_shelf", Equalizer((FilterBand("high_shelf", 3_800.0, gain),)))


def _within(hertz: float, band: tuple[float, float]) -> bool:
    return band[0] <= hertz < band[1]
