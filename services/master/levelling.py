"""The loudness loop: a gain is predicted, rendered through the limiter and measured; what the prediction missed goes
into the next round.

Demands collide. The ceiling holds whatever happens: it is the limiter's. Guard-rails come next: mean limiting is kept
by the prediction (`find_drive`), the crest factor is measured on every render. Loudness comes last: what the rails do
not allow is not reached, and `Drive.held_back_by` names the rail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio.limiter import LimiterSettings, render
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.overlap_add import fixed_blocks
from outboard.audio.peak_envelope import STEP_FRAMES, peak_envelope
from outboard.audio.reporting import part
from outboard.audio.spool import BLOCK_FRAMES, Spool, blocks
from services.master.loudness_loop import Drive, EnergyMeter, LoudnessModel, find_drive
from services.master.settings import ENGINE_PASSTHROUGH, MasterPlan

Array = NDArray[np.float32]
Progress = Callable[[float], None]
SpoolFactory = Callable[[int], Spool]

_MOST_RENDERS = 4
_CLOSE_ENOUGH_LU = 0.04
_LIMITER_MARGIN_DB = 0.04  # room for what dither and the other meters add: most files then need no second encode
CREST_TOLERANCE_DB = 0.05
"""What a render may be short of its crest rail."""
_LIMITED_DB = 0.005  # mean reduction under which the limiter has no part in the crest factor


@dataclass(frozen=True)
class Levelled:
    """The limited master and how it came about; `drive` is None where nothing was limited."""

    array: Array
    drive: Drive | None
    lufs: float | None
    renders: int
    crest_factor_db: float | None = None


@dataclass(frozen=True)
class _Render:
    array: Array
    lufs: float | None
    crest_factor_db: float | None


def level(array: Array, rate: int, plan: MasterPlan, spool_factory: SpoolFactory, progress: Progress) -> Levelled:
    """Loudness to target and peaks under the ceiling.

    Args:
        array: the processed mix, (channels, frames) float32, may be mapped.
        rate: sample rate, hertz.
        plan: target, ceiling, limiter and guard-rails.
        spool_factory: makes an empty spool of that many channels.
        progress: told the fraction done; may raise.
    """
    if plan.engine == ENGINE_PASSTHROUGH:
        return Levelled(array, None, None, 0)
    model = _model(array, rate, plan, spool_factory, part(progress, 0.0, 0.4))
    rails = plan.guard_rails
    wanted, aim, gain, held_back_by = plan.target_lufs, plan.target_lufs, plan.drive_db, ""
    for renders in range(1, _MOST_RENDERS + 1):
        share = part(progress, 0.4 + 0.15 * (renders - 1), 0.4 + 0.15 * renders)
        if aim is None:
            drive = model.drive(gain)
        else:
            drive = find_drive(model, gain, aim, rails.average_limiting_db, part(share, 0.0, 0.5))
        done = _rendered(array, rate, drive, spool_factory, part(share, 0.5, 1.0))
        if wanted is None or aim is None or done.lufs is None:
            break
        short_db = _crest_short_db(done, drive, rails.crest_factor_db)
        if short_db > CREST_TOLERANCE_DB:
            # Peaks stand at the ceiling: a decibel more of crest factor is a decibel less of loudness.
            wanted, held_back_by = done.lufs - short_db, "crest_factor_db"
        elif drive.held_back_by or abs(done.lufs - wanted) <= _CLOSE_ENOUGH_LU:
            break
        aim, gain = aim + wanted - done.lufs, drive.gain_db
    return Levelled(
        done.array,
        replace(drive, held_back_by=drive.held_back_by or held_back_by),
        done.lufs,
        renders,
        done.crest_factor_db,
    )


def _crest_short_db(done: _Render, drive: Drive, rail_db: float | None) -> float:
    """How far the limiter pressed the crest factor under its rail; 0 where it did not."""
    if rail_db is None or done.crest_factor_db is None or drive.average_limiting_db <= _LIMITED_DB:
        return 0.0
    return max(0.0, rail_db - done.crest_factor_db)


def _model(array: Array, rate: int, plan: MasterPlan, spool_factory: SpoolFactory, progress: Progress) -> LoudnessModel:
    meter = EnergyMeter(rate, array.shape[0])
    with spool_factory(1) as energies, spool_factory(1) as peaks:
        for block in fixed_blocks(blocks(array), BLOCK_FRAMES):
            energies.append(meter.process(block))
            progress(0.5 * min(1.0, energies.frames * STEP_FRAMES / array.shape[1]))
        peak_envelope(array, peaks, part(progress, 0.5, 1.0))
        return LoudnessModel(peaks.array, energies.array, rate, limiter_settings(plan), spool_factory)


def limiter_settings(plan: MasterPlan) -> LimiterSettings:
    """The plan's limiter, with room under its ceiling for what dither and the other meters add."""
    return LimiterSettings(
        ceiling_dbtp=plan.ceiling_dbtp - _LIMITER_MARGIN_DB,
        look_ahead_ms=plan.limiter.lookahead_ms,
        bridge_ms=plan.limiter.hold_ms,
        fast_release_ms=plan.limiter.release_ms,
        slow_release_ms=plan.limiter.slow_release_ms,
        transient_ms=plan.limiter.transient_ms,
        transient_db=plan.limiter.transient_db,
        dip_ms=plan.limiter.dip_ms,
        dip_share=plan.limiter.dip_share,
    )


def _rendered(array: Array, rate: int, drive: Drive, spool_factory: SpoolFactory, progress: Progress) -> _Render:
    meter = LoudnessMeter(rate, array.shape[0])
    power, peak = 0.0, 0.0
    with spool_factory(array.shape[0]) as spool:
        for block in render(array, drive.gain_db, drive.reduction_db, progress):
            meter.process(block)
            spool.append(block)
            power += float(np.square(block, dtype=np.float64).sum())
            peak = max(peak, float(block.max()), -float(block.min()))
        mean = power / (array.shape[0] * array.shape[1])
        crest = 20.0 * math.log10(peak) - 10.0 * math.log10(mean) if mean > 0.0 else None
        return _Render(spool.array, meter.integrated_lufs, crest)
