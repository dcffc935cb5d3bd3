"""Masters a mix: corrects what was measured, brings it to its loudness under a true-peak ceiling, and delivers it as
files.

    mix ─► chain or matching to a reference ─► loudness loop around the limiter ─► per file: resample, dither, encode,
    measure

Works on mapped arrays in blocks; nothing that is held in memory grows with the song (matchering excepted).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.chain import Chain
from outboard.audio.files import Tags
from outboard.audio.processors import ProcessorReport
from outboard.audio.reporting import part
from outboard.audio.spool import BLOCK_FRAMES, Spool, blocks
from outboard.errors import InvalidInput
from services.master.chain_rules import treatment
from services.master.deliver import Delivered, Target, deliver
from services.master.levelling import level, limiter_settings
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
    check_plan(plan, sample_rate_hertz)
    _check(array)
    steps = _Steps(progress or (lambda fraction: None))
    matched, done = array, treatment(plan.chain, sample_rate_hertz)
    if plan.engine in REFERENCE_ENGINES:
        followed = follow(array, sample_rate_hertz, plan, references, spool_factory, steps.next(0.1))
        matched, plan, done = followed.array, followed.plan, followed.treatment
    processed, processors = _processed(matched, sample_rate_hertz, plan, spool_factory, steps.next(0.1))
    levelled = level(processed, sample_rate_hertz, plan, spool_factory, steps.next(0.2))
    guarded = plan.engine != ENGINE_PASSTHROUGH
    ceiling, limiter = (plan.ceiling_dbtp, limiter_settings(plan)) if guarded else (None, None)
    delivered: list[Delivered] = []
    try:
        share = 0.55 / len(plan.deliverables)
        for spec in plan.deliverables:
            target = Target(spec, directory, ceiling, limiter, levelled.lufs, plan.seed, tags, spool_factory)
            delivered += [deliver(levelled.array, sample_rate_hertz, target, steps.next(share))]
        first, rate = delivered[0], plan.deliverables[0].sample_rate_hertz
        after = analyze(first.decoded, rate, known_peaks=first.peaks, progress=steps.next(0.1))
    except BaseException:
        for file in delivered:
            file.path.unlink(missing_ok=True)
        raise
    report = build_report(plan, array.shape[1], sample_rate_hertz, before, after, levelled, delivered, processors, done)
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


class _Steps:
    """Hands every step its part of the progress, in order, so that the fraction never falls."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._begin = 0.0

    def next(self, share: float) -> Progress:
        begin, self._begin = self._begin, self._begin + share
        return part(self._progress, begin, begin + share)
