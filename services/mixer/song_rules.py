"""What only the whole song can tell: dynamics pressed flat, sides too loud or leaning, a top that is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from outboard.audio.analysis import Analysis
from outboard.audio.processors import BandExtender, Compressor, Processor, StereoField
from outboard.audio.stereo import StereoFieldBand
from services.mixer.brief import Brief, beyond
from services.mixer.console import Bus, Strip
from services.mixer.stereo_forecast import Field, FieldBand, after_strips

LABELS = ("stereo_field", "expander", "air")
# Beyond its limit by this much, pressed dynamics are met in full.
_FULL_CREST_LACK_DB = 2.5
# A sum that is too wide is brought this far under its limit: the forecast is good to half of that.
_WIDTH_MARGIN_DB = 1.0
# Where the bands under the measured thirds of an octave begin.
_LOWEST_HERTZ = 20.0
_LEAST = 1e-40


def song_chain(brief: Brief, strips: Sequence[Strip], buses: Sequence[Bus]) -> tuple[Processor, ...]:
    """What only the whole song can tell; empty for supplied stems."""
    if brief.song is None:
        return ()
    field = after_strips(brief, brief.song, strips, buses)
    chain = (_expander(brief, brief.song), _stereo_field(brief, brief.song, field), _air(brief, brief.song))
    return tuple(brief.slot(processor) for processor in chain if processor is not None)


def _stereo_field(brief: Brief, song: Analysis, field: Field | None) -> Processor | None:
    """A sum that is too wide is narrowed to where it is not; bands that lean to an edge are brought back."""
    if field is None:
        return None
    p = brief.preset
    moving = (
        brief.amount * p["mix.recentre"] * min(1.0, 3.0 * beyond(song.hard_panning_index, p["mix.panning_tolerance"]))
    )
    leans = [moving * math.copysign(max(0.0, abs(b.lean) - p["mix.lean_tolerance"]), b.lean) for b in field.bands]
    centred = replace(
        field, bands=tuple(_centred(band, recentre) for band, recentre in zip(field.bands, leans, strict=True))
    )
    narrowing = brief.amount * _narrowing(brief, field, centred)
    gains = _side_gains(brief, centred, narrowing)
    bands = []
    if gains.rest < 0.99:
        bands.append(StereoFieldBand(_LOWEST_HERTZ, field.bands[0].low_hertz, min(gains.rest, brief.width_cap)))
    for band, recentre, gain in zip(field.bands, leans, gains.bands, strict=True):
        side_gain = min(gain, brief.width_cap)
        if side_gain < 0.99 or abs(recentre) > 0.01:
            bands.append(StereoFieldBand(band.low_hertz, band.high_hertz, side_gain, recentre))
    if not bands:
        return None
    moved = sum(1 for band in bands if abs(band.recentre) > 0.01)
    brief.note(
        f"Behind the strips the side is at {field.whole_db:.1f} dB against the mid, {field.mean_db:.1f} in the mean of "
        f"its bands: {len(bands)} bands are corrected, {moved} of them brought back from an edge."
    )
    return Processor("stereo_field", StereoField(tuple(bands)))


def _centred(band: FieldBand, recentre: float) -> FieldBand:
    """What is left of the side once the leaning part is out of it: sum |S - a M|^2."""
    side = max(band.side + (recentre**2 - 2.0 * recentre * band.lean) * band.mid, 1e-6 * band.mid)
    return replace(band, side=side)


class _SideGains(NamedTuple):
    """Factors on the sides of every band, and of what lies under them."""

    bands: tuple[float, ...]
    rest: float


def _side_gains(brief: Brief, field: Field, narrowing: float) -> _SideGains:
    """Of every band, that share of its way down to the preset's limit."""

    def gain(side: float, mid: float) -> float:
        over = 10.0 * math.log10(max(side, _LEAST) / max(mid, _LEAST)) - brief.preset["mix.width_limit_db"]
        return float(10.0 ** (-narrowing * max(0.0, over) / 20.0))

    return _SideGains(tuple(gain(b.side, b.mid) for b in field.bands), gain(field.rest_side, field.rest_mid))


def _narrowing(brief: Brief, field: Field, centred: Field) -> float:
    """The least share of the way to the limits after which the sum is as wide as records are; 0 for one that is."""
    gate, most = brief.preset["mix.width_gate_db"], brief.preset["mix.width_sum_limit_db"]
    if field.mean_db <= gate and field.whole_db <= most:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = 0.5 * (low + high)
        gains = _side_gains(brief, centred, middle)
        bands = tuple(replace(b, side=b.side * g**2) for b, g in zip(centred.bands, gains.bands, strict=True))
        left = replace(centred, bands=bands, rest_side=centred.rest_side * gains.rest**2)
        enough = left.mean_db <= gate and left.whole_db <= most - _WIDTH_MARGIN_DB
        low, high = (low, middle) if enough else (middle, high)
    return high


def _expander(brief: Brief, song: Analysis) -> Processor | None:
    """Upward expansion of a song that was pressed flat: the inverse of what flattened it, held within limits."""
    p = brief.preset
    if song.rms_dbfs is None or song.crest_factor_db is None:
        return None
    lacking = min(max((p["mix.crest_target_db"] - song.crest_factor_db) / _FULL_CREST_LACK_DB, 0.0), 1.0)
    pressed = brief.amount * max(lacking, beyond(song.flat_dynamics_index, p["mix.flat_tolerance"]))
    ratio = 1.0 - pressed * (1.0 - p["mix.expansion_ratio"])
    if ratio > 0.98:
        return None
    brief.note(f"Peaks stand only {song.crest_factor_db:.1f} dB out: expanded by 1:{1 / ratio:.2f}.")
    return Processor(
        "expander",
        Compressor(
            threshold_db=song.rms_dbfs - 6.0,
            ratio=ratio,
            attack_ms=15.0,
            release_ms=60.0,
            lookahead_ms=10.0,
            knee_db=6.0,
            range_db=p["mix.expansion_range_db"],
        ),
    )


def _air(brief: Brief, song: Analysis) -> Processor | None:
    """New top for a song whose spectrum ends where no recording ends."""
    p = brief.preset
    cutoffs = [a.bandwidth_hertz for a in brief.analyses.values() if a.bandwidth_hertz is not None]
    cutoff = max([song.bandwidth_hertz or 0.0, *cutoffs])
    if not 8_000.0 <= cutoff < p["mix.air_below_hertz"] or cutoff > 0.45 * song.sample_rate_hertz or not brief.amount:
        return None
    brief.note(f"The spectrum ends at {cutoff:.0f} Hz: its top is copied from the band below.")
    return Processor(
        "air",
        BandExtender(
            cutoff_hertz=cutoff,
            gain_db=p["mix.air_gain_db"] + 20.0 * math.log10(max(brief.amount, 0.1)),
            slope_db_per_octave=p["mix.air_slope_db_per_octave"],
        ),
    )
