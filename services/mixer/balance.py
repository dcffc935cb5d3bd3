"""Keeps voices and music in their proportion: what the plan will take from the music, its bus gives back.

The processors that a plan holds are applied to the level history of the strips, band by band and moment by moment:
equalisers by their response, bands and compressors with a sidechain by their static curve at the key's level. Loudness
is BS.1770's: K-weighted power, gated 10 LU under its mean. It is a forecast; the guard-rail measures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio.chain import filter_sections
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.filters import response_db
from outboard.audio.loudness import k_weighting
from outboard.audio.processors import Compressor, DynamicEqualizer, Equalizer, Processor, Unmasker
from outboard.audio.unmasking import wanted_gains_db
from services.mixer.brief import Brief
from services.mixer.buses import MUSIC_BUS, VOCAL_BUS
from services.mixer.console import Bus, Strip
from services.mixer.masking import CENTRES_HERTZ, WIDTHS_HERTZ, Levels, summed

# What a plan may move the balance by; the guard-rail lies at 1 dB.
_LEFT_DB = 0.45
_MOST_DB = 3.0
_RATE_HERTZ = 48_000

Floats = NDArray[np.float64]


def kept(brief: Brief, strips: Sequence[Strip], buses: Sequence[Bus]) -> tuple[Bus, ...]:
    """The buses, with the music's fader where the plan would take more than it may from the music's loudness."""
    keys = _keys(brief, strips)
    shift = _change_db(brief, strips, buses, keys, VOCAL_BUS) - _change_db(brief, strips, buses, keys, MUSIC_BUS)
    back = min(max(abs(shift) - _LEFT_DB, 0.0), _MOST_DB)
    if back < 0.1:
        return tuple(buses)
    gain = round(math.copysign(back, shift), 2)
    brief.note(f"The voices would move by {shift:+.1f} dB against the music: its bus is set to {gain:+.1f} dB.")
    return tuple(replace(bus, gain_db=gain) if bus.name == MUSIC_BUS else bus for bus in buses)


def strip_gains_db(brief: Brief, strips: Sequence[Strip], buses: Sequence[Bus]) -> dict[str, Floats]:
    """By how much chains and buses move each strip in every auditory band, on average, faders left out.

    Strips that nobody listened to are left out.
    """
    keys = _keys(brief, strips)
    chains = {bus.name: bus.chain for bus in buses}
    found = {}
    for strip in strips:
        if strip.stem in brief.heard and len(brief.heard[strip.stem].levels):
            own = brief.heard[strip.stem].levels.astype(np.float64)
            moves = (_gains_db(one, own, keys) for one in (*strip.chain, *chains.get(strip.bus, ())))
            gains = sum(moves, np.zeros_like(own))
            power = 10.0 ** (own / 10.0)
            found[strip.stem] = 10.0 * np.log10(
                np.mean(power * 10.0 ** (gains / 10.0), axis=0) / np.mean(power, axis=0)
            )
    return found


def _keys(brief: Brief, strips: Sequence[Strip]) -> dict[str, Levels]:
    """Levels of everything that may drive a sidechain, before the faders; a stem goes before a bus of its name."""
    keys = {
        bus: summed([brief.heard[s.stem].levels for s in strips if s.bus == bus and s.stem in brief.heard])
        for bus in sorted({s.bus for s in strips})
    }
    return keys | {name: heard.levels for name, heard in brief.heard.items()}


def _change_db(
    brief: Brief, strips: Sequence[Strip], buses: Sequence[Bus], keys: Mapping[str, Levels], bus: str
) -> float:
    """How far the loudness of a bus moves; 0 where nobody listened."""
    chain = next((one.chain for one in buses if one.name == bus), ())
    before, after = [], []
    for strip in strips:
        if strip.bus != bus or strip.stem not in brief.heard or not len(brief.heard[strip.stem].levels):
            continue
        own = brief.heard[strip.stem].levels.astype(np.float64)
        gains = sum((_gains_db(one, own, keys) for one in (*strip.chain, *chain)), np.zeros_like(own))
        before.append(np.asarray(own + strip.gain_db, np.float32))
        after.append(np.asarray(own + strip.gain_db + gains, np.float32))
    if not before:
        return 0.0
    return _loudness_db(summed(after)) - _loudness_db(summed(before))


def _gains_db(processor: Processor, own: Floats, keys: Mapping[str, Levels]) -> Floats:
    """Gain of a processor for every moment and band of a strip; 0 for what follows its own signal alone."""
    none = np.zeros_like(own)
    kind = processor.kind
    if processor.bypass:
        return none
    if isinstance(kind, Equalizer):
        sections = [filter_sections(band, _RATE_HERTZ) for band in kind.bands]
        return none + sum((response_db(one, np.array(CENTRES_HERTZ), _RATE_HERTZ) for one in sections), np.zeros(1))
    if isinstance(kind, DynamicEqualizer):
        return sum((_band_gains_db(band, keys[band.sidechain], none) for band in kind.bands if band.sidechain), none)
    if isinstance(kind, Unmasker) and kind.sidechain:
        key = keys[kind.sidechain][: len(own)].astype(np.float64)
        centres = np.array(CENTRES_HERTZ)
        acting = (centres >= kind.low_hertz) & (centres <= kind.high_hertz)
        none[: len(key)] = wanted_gains_db(own[: len(key)], key, kind) * acting
        return none
    if isinstance(kind, Compressor) and kind.sidechain:
        level = 10.0 * np.log10(np.sum(10.0 ** (keys[kind.sidechain].astype(np.float64) / 10.0), axis=1))
        gain = (1.0 / kind.ratio - 1.0) * np.maximum(level - kind.threshold_db, 0.0)
        return none + _fitted(np.maximum(gain, -kind.range_db), len(own))[:, np.newaxis]
    return none


def _band_gains_db(band: DynamicBandSettings, key: Levels, none: Floats) -> Floats:
    """A bell over the auditory bands, as deep as the key's level in it asks for."""
    centres, widths = np.array(CENTRES_HERTZ), np.array(WIDTHS_HERTZ)
    at = int(np.argmin(np.abs(centres - band.frequency_hertz)))
    gain = (1.0 / band.ratio - 1.0) * np.maximum(key[:, at].astype(np.float64) - band.threshold_db, 0.0)
    gain = _fitted(np.maximum(gain, -abs(band.range_db)), len(none))
    # The band-pass of the RBJ cookbook, far enough below Nyquist: |B|^2 = 1 / (1 + Q^2 (f/f0 - f0/f)^2).
    low, high = np.maximum(centres - 0.5 * widths, 1.0), centres + 0.5 * widths
    off = [band.q * (f / band.frequency_hertz - band.frequency_hertz / f) for f in (low, centres, high)]
    shape = np.mean([1.0 / (1.0 + x**2) for x in off], axis=0)
    share = 10.0 ** (gain[:, np.newaxis] / 20.0) - 1.0
    # In the bell's flanks the filtered part is turned in phase: its real part is the square of its magnitude.
    return np.asarray(10.0 * np.log10(np.maximum(1.0 + (2.0 * share + share**2) * shape, 1e-6)))


def _fitted(gains: Floats, moments: int) -> Floats:
    return np.pad(gains, (0, max(0, moments - len(gains))))[:moments]


def _loudness_db(levels: Levels) -> float:
    shelf, high_pass = k_weighting(_RATE_HERTZ)
    sos = np.array([[*shelf[:3], 1.0, *shelf[3:]], [*high_pass[:3], 1.0, *high_pass[3:]]])
    weights = 10.0 ** (response_db(sos, np.array(CENTRES_HERTZ), _RATE_HERTZ) / 10.0)
    power = np.sum(10.0 ** (levels.astype(np.float64) / 10.0) * weights, axis=1)
    heard = power[power > 0.1 * float(power.mean())]
    return 10.0 * math.log10(float(heard.mean()) + 1e-14)
