"""What only the whole song can tell: dynamics pressed flat, sides too loud or leaning, a top that is missing."""

from __future__ import annotations

import math

from outboard.audio.analysis import Analysis
from outboard.audio.processors import BandExtender, Compressor, Processor, StereoField
from outboard.audio.stereo import StereoFieldBand
from services.mixer.brief import Brief, beyond

LABELS = ("stereo_field", "expander", "air")
# Beyond their limits by this much, width and pressed dynamics are met in full.
_FULL_WIDTH_EXCESS_DB = 1.5
_FULL_CREST_LACK_DB = 2.5


def song_chain(brief: Brief) -> tuple[Processor, ...]:
    """What only the whole song can tell; empty for supplied stems."""
    if brief.song is None:
        return ()
    chain = (_expander(brief, brief.song), _stereo_field(brief, brief.song), _air(brief, brief.song))
    return tuple(brief.slot(processor) for processor in chain if processor is not None)


def _stereo_field(brief: Brief, song: Analysis) -> Processor | None:
    """Bands of a too wide song are narrowed, bands that lean to an edge are brought back."""
    p = brief.preset
    narrowing = brief.amount * _too_wide(brief, song)
    moving = (
        brief.amount * p["mix.recentre"] * min(1.0, 3.0 * beyond(song.hard_panning_index, p["mix.panning_tolerance"]))
    )
    bands = []
    for band in song.stereo_bands:
        recentre = moving * math.copysign(max(0.0, abs(band.lean) - p["mix.lean_tolerance"]), band.lean)
        # What is left of the side once the leaning part is out of it: sum |S - a M|^2 over sum |M|^2.
        ratio = max(10.0 ** (band.mid_side_ratio_db / 10.0) - 2.0 * recentre * band.lean + recentre**2, 1e-6)
        over = max(0.0, 10.0 * math.log10(ratio) - p["mix.width_limit_db"])
        side_gain = min(10.0 ** (-narrowing * over / 20.0), brief.width_cap)
        if side_gain < 0.99 or abs(recentre) > 0.01:
            bands.append(StereoFieldBand(band.low_hertz, band.high_hertz, side_gain, recentre))
    if not bands:
        return None
    moved = sum(1 for band in bands if abs(band.recentre) > 0.01)
    brief.note(f"Sides: {len(bands)} bands are corrected, {moved} of them brought back from an edge.")
    return Processor("stereo_field", StereoField(tuple(bands)))


def _too_wide(brief: Brief, song: Analysis) -> float:
    """0 for a song as wide as records are, 1 from 1.5 dB beyond."""
    p = brief.preset
    if song.mid_side_ratio_db is None or not song.stereo_bands:
        return 0.0
    mean_db = sum(band.mid_side_ratio_db for band in song.stereo_bands) / len(song.stereo_bands)
    excess = max(mean_db - p["mix.width_gate_db"], song.mid_side_ratio_db - p["mix.width_sum_limit_db"])
    return min(max(excess / _FULL_WIDTH_EXCESS_DB, 0.0), 1.0)


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
