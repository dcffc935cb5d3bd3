"""Masters a mix: corrects what was measured, brings it to its loudness under a true-peak ceiling, and delivers it as
files.

    mix ─► chain (equaliser, compressor) or matching to a reference ─► loudness loop ─► limiter ─► per file: resample,
    dither, encode, measure

Works on mapped arrays in blocks; nothing that is held in memory grows with the song (matchering excepted).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.chain import Chain
from outboard.audio.files import Tags
from outboard.audio.limiter import LimiterSettings, render
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.overlap_add import fixed_blocks
from outboard.audio.peak_envelope import STEP_FRAMES, peak_envelope
from outboard.audio.processors import ProcessorReport
from outboard.audio.spool import BLOCK_FRAMES, Spool, blocks
from outboard.errors import InvalidInput
from services.master.deliver import Delivered, Target, deliver
from services.master.loudness_loop import Drive, EnergyMeter, LoudnessModel, find_drive
from services.master.reference import Reference, follow
from services.master.report import build_report
from services.master.settings import (
    ENGINE_PASSTHROUGH,
    REFERENCE_ENGINES,
    DeliverableFile,
    MasterPlan,
    MasterResult,
    check_plan,
)

Array = NDArray[np.float32]
Progress = Callable[[float], None]
SpoolFactory = Callable[[int], Spool]

_MOST_RENDERS = 4
_CLOSE_ENOUGH_LU = 0.04
_LIMITER_MARGIN_DB = 0.04  # room for what dither and the other meters add: most files then need no second encode


@dataclass(frozen=True)
class Levelled:
    """The limited master and how it came about; `drive` is None where nothing was limited."""

    array: Array
    drive: Drive | None
    lufs: float | None
    renders: int


def master(
    array: Array,
    sample_rate_hertz: int,
    plan: MasterPlan,
    *,
    directory: Path,
    references: Sequence[Reference] = (),
    before: Analysis | None = None,
    tags: Tags | None = None,
    spool_factory: SpoolFactory = Spool,
    progress: Progress | None = None,
) -> MasterResult:
    """Renders a plan.

    Args:
        array: the mix, float32 (1 or 2, frames), finite; may be mapped.
        sample_rate_hertz: of the mix.
        plan: all numbers.
        directory: an existing folder that receives the deliverables; when this raises, none of them is left there.
        references: for the reference intent.
        before: measurements of the mix, for the report.
        tags: tags and cover art for every file that can hold them.
        spool_factory: makes an empty spool of that many channels.
        progress: called with the fraction done, at least every 65536 frames of work; may raise to cancel.

    Raises:
        InvalidInput: INVALID_ARGUMENT for a plan that cannot be rendered, AUDIO_EMPTY, AUDIO_TOO_MANY_CHANNELS,
            AUDIO_NOT_FINITE, REFERENCE_UNSUITABLE.
    """
    check_plan(plan)
    _check(array)
    steps = _Steps(progress or (lambda fraction: None))
    matched = array
    if plan.engine in REFERENCE_ENGINES:
        followed = follow(array, sample_rate_hertz, plan, references, spool_factory, steps.next(0.1))
        matched, plan = followed.array, followed.plan
    processed, processors = _processed(matched, sample_rate_hertz, plan, spool_factory, steps.next(0.1))
    levelled = _levelled(processed, sample_rate_hertz, plan, spool_factory, steps.next(0.2))
    guarded = None if plan.engine == ENGINE_PASSTHROUGH else plan.ceiling_dbtp
    delivered: list[Delivered] = []
    try:
        share = 0.55 / len(plan.deliverables)
        for spec in plan.deliverables:
            target = Target(spec, directory, guarded, levelled.lufs, plan.seed, tags, spool_factory)
            delivered += [deliver(levelled.array, sample_rate_hertz, target, steps.next(share))]
        first, rate = delivered[0], plan.deliverables[0].sample_rate_hertz
        after = analyze(first.decoded, rate, known_peaks=first.peaks, progress=steps.next(0.1))
    except BaseException:
        for file in delivered:
            file.path.unlink(missing_ok=True)
        raise
    report = build_report(plan, array.shape[1], sample_rate_hertz, before, after, levelled, delivered, processors)
    return MasterResult(tuple(DeliverableFile(file.report.name, file.path) for file in delivered), report)


def _check(array: Array) -> None:
    if array.ndim != 2 or array.shape[0] not in (1, 2):
        raise InvalidInput(
            f"a mix has 1 or 2 channels, not {array.shape[0]}", field="audio", reason="AUDIO_TOO_MANY_CHANNELS"
        )
    if array.shape[1] == 0:
        raise InvalidInput("the mix has no frames", field="audio", reason="AUDIO_EMPTY")
    if not all(np.isfinite(block).all() for block in blocks(array)):
        raise InvalidInput("the mix holds NaN or infinity", field="audio", reason="AUDIO_NOT_FINITE")


def _processed(
    array: Array,
    rate: int,
    plan: MasterPlan,
    spool_factory: SpoolFactory,
    progress: Progress,
) -> tuple[Array, tuple[ProcessorReport, ...]]:
    """The chain in front of the limiter, its latency taken out."""
    chain = Chain(plan.chain, rate)
    if not chain.slots:
        return array, ()
    channels, frames = array.shape
    with spool_factory(channels) as spool:
        late = chain.latency_frames
        for block in _with_tail(array, late):
            # One channel goes through a stereo chain twice: all that is linked between channels is then as it was.
            stereo = block if channels == 2 else np.repeat(block, 2, axis=0)
            done = chain.process(stereo)[:channels, late:]
            late -= min(late, block.shape[1])
            spool.append(done)
            progress(spool.frames / frames)
        return spool.array, chain.reports()


def _with_tail(array: Array, silent_frames: int) -> Iterator[Array]:
    """Blocks of the array, then silence."""
    yield from blocks(array)
    while silent_frames > 0:
        size = min(silent_frames, BLOCK_FRAMES)
        yield np.zeros((array.shape[0], size), dtype=np.float32)
        silent_frames -= size


def _levelled(array: Array, rate: int, plan: MasterPlan, spool_factory: SpoolFactory, progress: Progress) -> Levelled:
    """Loudness to target and peaks under the ceiling: predicted, rendered, measured, and rendered again where the
    prediction was off.
    """
    if plan.engine == ENGINE_PASSTHROUGH:
        return Levelled(array, None, None, 0)
    model = _model(array, rate, plan, spool_factory, _part(progress, 0.0, 0.4))
    target, gain = plan.target_lufs, plan.drive_db
    aim = target
    for renders in range(1, _MOST_RENDERS + 1):
        share = _part(progress, 0.4 + 0.15 * (renders - 1), 0.4 + 0.15 * renders)
        if aim is None:
            drive = model.drive(gain)
        else:
            drive = find_drive(model, gain, aim, plan.guard_rails.average_limiting_db, _part(share, 0.0, 0.5))
        limited, lufs = _rendered(array, rate, drive, spool_factory, _part(share, 0.5, 1.0))
        if (
            target is None
            or aim is None
            or lufs is None
            or drive.held_back_by
            or abs(lufs - target) <= _CLOSE_ENOUGH_LU
        ):
            break
        aim, gain = aim + target - lufs, drive.gain_db
    return Levelled(limited, drive, lufs, renders)


def _model(array: Array, rate: int, plan: MasterPlan, spool_factory: SpoolFactory, progress: Progress) -> LoudnessModel:
    meter = EnergyMeter(rate, array.shape[0])
    with spool_factory(1) as energies, spool_factory(1) as peaks:
        for block in fixed_blocks(blocks(array), BLOCK_FRAMES):
            energies.append(meter.process(block))
            progress(0.5 * min(1.0, energies.frames * STEP_FRAMES / array.shape[1]))
        peak_envelope(array, peaks, _part(progress, 0.5, 1.0))
        return LoudnessModel(peaks.array, energies.array, rate, _limiter(plan), spool_factory)


def _limiter(plan: MasterPlan) -> LimiterSettings:
    return LimiterSettings(
        ceiling_dbtp=plan.ceiling_dbtp - _LIMITER_MARGIN_DB,
        look_ahead_ms=plan.limiter.lookahead_ms,
        bridge_ms=plan.limiter.hold_ms,
        fast_release_ms=plan.limiter.release_ms,
        slow_release_ms=plan.limiter.slow_release_ms,
        transient_ms=plan.limiter.transient_ms,
        transient_db=plan.limiter.transient_db,
        dip_ms=plan.limiter.dip_ms,
    )


def _rendered(
    array: Array, rate: int, drive: Drive, spool_factory: SpoolFactory, progress: Progress
) -> tuple[Array, float | None]:
    meter = LoudnessMeter(rate, array.shape[0])
    with spool_factory(array.shape[0]) as spool:
        for block in render(array, drive.gain_db, drive.reduction_db, progress):
            meter.process(block)
            spool.append(block)
        return spool.array, meter.integrated_lufs


class _Steps:
    """Hands every step its part of the progress, in order, so that the fraction never falls."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begin = 0.0

    def next(self, share: float) -> Progress:
        begin, self._begin = self._begin, self._begin + share
        return _part(self._progress, begin, begin + share)


def _part(progress: Progress, begin: float, end: float) -> Progress:
    return lambda fraction: progress(begin + (end - begin) * min(1.0, fraction))
