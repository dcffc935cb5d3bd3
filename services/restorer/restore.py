"""Restores one stem: examine, decide, repair, examine again.

A treatment acts only on what the examination shows, and what it does not act on stays bit for bit as it was: a clean
stem comes back identical. The stem is read in fixed cells by position, so the result does not depend on how it was
delivered, and memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import Progress, Warning, part
from outboard.errors import InvalidInput
from services.restorer.diagnosis import Examination, LevelMeter, cells, diagnose, examine
from services.restorer.settings import (
    AUDIOSR,
    AUDIOSR_SPEECH,
    AUTOMATIC,
    BANDWIDTH,
    DEEPFILTERNET3,
    ENGINES,
    PASSTHROUGH,
    REPAIR,
    Diagnosis,
    RestorationReport,
    RestorationSettings,
    RestorationStep,
    engines,
    resolved_steps,
)
from services.restorer.stem_work import StemWork, engine_named
from services.restorer.superresolution import DrawingEngine
from services.restorer.voice import VoiceEngine

__all__ = ["Diagnosis", "RestorationReport", "RestorationSettings", "RestorationStep", "diagnose", "engines", "restore"]

Audio = NDArray[np.float32]

EXAMINING_SHARE = 0.3  # of the work, for progress


def restore(
    array: Audio,
    sample_rate_hertz: int,
    settings: RestorationSettings,
    progress: Progress | None = None,
    voice: VoiceEngine | None = None,
    directory: Path | None = None,
    drawing: Mapping[str, DrawingEngine] = MappingProxyType({}),
    *,
    automatic: bool = False,
) -> Generator[Audio, None, RestorationReport]:
    """Restore a stem.

    Args:
        array: float32 (channels, frames), read by position; may be a memory map.
        sample_rate_hertz: of the stem.
        settings: what to do.
        progress: called with the fraction done after every cell (65536 frames at 48 kHz); may raise to cancel.
        voice: what takes noise from voices; None: nothing does.
        directory: for what must be seen whole between two steps; the system's temporary folder unless given.
        drawing: what draws new upper bands, by name; where none can, `bandwidth` does it.
        automatic: the settings' steps are those of automatic mode that could run when somebody asked: what of it they
            lack is told.

    Yields:
        the restored stem in order, (channels, cell), as many frames as came in, aligned to the frame.

    Returns:
        the report. A step that failed has left the stem as it was, and a warning.

    Raises:
        InvalidInput: AUDIO_NOT_FINITE, ENGINE_UNKNOWN, or a bad setting.
    """
    steps = resolved_steps(settings)
    if array.ndim != 2 or array.shape[0] < 1:
        raise InvalidInput(f"a stem is (channels, frames), not {array.shape}", field="chunk")
    report_progress = progress or _ignore
    if steps[0].engine == PASSTHROUGH:
        return (yield from _pass_through(array, sample_rate_hertz, report_progress))
    steps, lacking = _chain(settings, voice, drawing, automatic=automatic)
    examined = examine(array, sample_rate_hertz, lambda fraction: report_progress(EXAMINING_SHARE * fraction))
    rest = part(report_progress, EXAMINING_SHARE, 1.0)
    work = StemWork(array, sample_rate_hertz, examined, voice, drawing, lacking, directory, rest)
    with ExitStack() as spools:
        yield from _stepped(work, steps, settings, spools)
        if not work.is_delivered:
            for cell in cells(work.array, sample_rate_hertz):
                yield cell
                report_progress(1.0)
        report_progress(1.0)
    work.leave({step.engine for step in steps}, settings.role)
    return work.report(_warnings(array, sample_rate_hertz, examined))


def _stepped(
    work: StemWork, steps: tuple[RestorationStep, ...], settings: RestorationSettings, spools: ExitStack
) -> Iterator[Audio]:
    """Does every step; yields the stem only where `repair` is the last that does anything."""
    for index, step in enumerate(steps):
        later = steps[index + 1 :]
        work.begin(index, len(steps))
        if step.engine in work.lacking:
            work.pass_over(step, settings.role)
        elif step.engine == BANDWIDTH:
            work.extend(step, settings, spools=spools)
        elif step.engine in (AUDIOSR, AUDIOSR_SPEECH):
            is_followed = BANDWIDTH in [one.engine for one in later]
            work.draw(step, settings, is_followed=is_followed, spools=spools)
        elif step.engine != REPAIR:
            work.denoise(step, settings.role, spools=spools)
        else:
            work.declip(step, spools=spools)
            if all(work.is_idle(one, settings.role) for one in later):
                yield from work.repaired(step, settings.role)
            else:
                work.repair(step, settings.role, spools=spools)


def _chain(
    settings: RestorationSettings,
    voice: VoiceEngine | None,
    drawing: Mapping[str, DrawingEngine],
    *,
    automatic: bool,
) -> tuple[tuple[RestorationStep, ...], frozenset[str]]:
    """The steps in order, and those among them that automatic mode has to do without."""
    if settings.steps and not automatic:
        return settings.steps, frozenset()
    if settings.steps:
        can_run = {step.engine for step in settings.steps}
    else:
        can_run = {REPAIR, BANDWIDTH} | {name for name, engine in drawing.items() if engine.info.available}
        can_run |= {DEEPFILTERNET3} if voice is not None and voice.info.available else set()
    lacking = frozenset(AUTOMATIC) - can_run - {REPAIR, BANDWIDTH}
    named = {step.engine: step for step in resolved_steps(settings)}
    order = [info.name for info in ENGINES if info.name in AUTOMATIC and info.name in {*named, *lacking}]
    return tuple(named.get(name, RestorationStep(name)) for name in order), lacking


def _ignore(_: float) -> None:
    """No one listens."""


def _pass_through(
    array: Audio, sample_rate_hertz: int, progress: Progress
) -> Generator[Audio, None, RestorationReport]:
    """The stem as it is; only refused where it is not finite."""
    meter = LevelMeter(array.shape[0])
    done = 0
    for cell in cells(array, sample_rate_hertz):
        meter.add(cell)
        yield cell
        done += cell.shape[1]
        progress(done / array.shape[1])
    nothing = Diagnosis()
    return RestorationReport((engine_named(PASSTHROUGH),), nothing, nothing, (), array.shape[1], unchanged=True)


def _warnings(array: Audio, sample_rate_hertz: int, examined: Examination) -> tuple[Warning, ...]:
    found = []
    if array.shape[1] < sample_rate_hertz:
        found.append(Warning("SHORT_INPUT", "Shorter than a second: resonances and offsets cannot be told from notes."))
    elif not np.any(examined.levels):
        found.append(Warning("SILENT_INPUT", "The stem is silent."))
    return tuple(found)
