"""Restores one stem: examine, decide, repair, examine again.

A treatment acts only on what the examination shows, and what it does not act on stays bit for bit as it was: a clean
stem comes back identical. The stem is read in fixed cells by position, so the result does not depend on how it was
delivered, and memory does not grow with its length.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import EngineInfo, Progress, Warning, part
from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from services.restorer import bandwidth
from services.restorer.diagnosis import Examination, LevelMeter, cells, diagnose, examine
from services.restorer.repair import actions, decide, repaired
from services.restorer.settings import (
    BANDWIDTH,
    DEEPFILTERNET3,
    ENGINES,
    PASSTHROUGH,
    REPAIR,
    Diagnosis,
    RestorationAction,
    RestorationReport,
    RestorationSettings,
    RestorationStep,
    engines,
    resolved_steps,
)
from services.restorer.voice import VoiceEngine, VoicePlan, plan, rendered

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
) -> Generator[Audio, None, RestorationReport]:
    """Restore a stem.

    Args:
        array: float32 (channels, frames), read by position; may be a memory map.
        sample_rate_hertz: of the stem.
        settings: what to do.
        progress: called with the fraction done after every cell (65536 frames at 48 kHz); may raise to cancel.
        voice: what takes noise from voices; None: nothing does.
        directory: for what must be seen whole between two steps; the system's temporary folder unless given.

    Yields:
        the restored stem in order, (channels, cell), as many frames as came in, aligned to the frame.

    Returns:
        the report. A step that failed has left the stem as it was, and a warning.

    Raises:
        InvalidInput: AUDIO_NOT_FINITE, ENGINE_UNKNOWN, or a bad setting.
    """
    steps = resolved_steps(settings)
    if voice is None and not settings.steps:
        steps = tuple(step for step in steps if step.engine != DEEPFILTERNET3)
    if array.ndim != 2 or array.shape[0] < 1:
        raise InvalidInput(f"a stem is (channels, frames), not {array.shape}", field="chunk")
    report_progress = progress or _ignore
    if steps[0].engine == PASSTHROUGH:
        return (yield from _pass_through(array, sample_rate_hertz, report_progress))
    examined = examine(array, sample_rate_hertz, lambda fraction: report_progress(EXAMINING_SHARE * fraction))
    work = _Work(array, sample_rate_hertz, examined, voice, directory, part(report_progress, EXAMINING_SHARE, 1.0))
    with ExitStack() as spools:
        for index, step in enumerate(steps):
            work.begin(index, len(steps))
            if step.engine == BANDWIDTH:
                work.extend(step, settings, spools=spools)
            elif step.engine != REPAIR:
                work.denoise(step, settings.role, is_named=bool(settings.steps), spools=spools)
            elif all(work.is_idle(later, settings.role) for later in steps[index + 1 :]):
                yield from work.repaired(step, settings.role, is_last=True)
            else:
                spool = spools.enter_context(Spool(array.shape[0], directory))
                for cell in work.repaired(step, settings.role, is_last=False):
                    spool.append(cell)
                work.take(spool.array)
        if not work.is_delivered:
            for cell in cells(work.array, sample_rate_hertz):
                yield cell
                report_progress(1.0)
        report_progress(1.0)
    return work.report(_warnings(array, sample_rate_hertz, examined))


def _engine(name: str) -> EngineInfo:
    return next(info for info in ENGINES if info.name == name)


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
    return RestorationReport((_engine(PASSTHROUGH),), nothing, nothing, (), array.shape[1], unchanged=True)


@dataclass
class _Work:
    """A stem on its way through the steps: as it is now, and what has been done to it."""

    array: Audio
    sample_rate_hertz: int
    examined: Examination
    voice: VoiceEngine | None
    directory: Path | None
    progress: Progress

    def __post_init__(self) -> None:
        self.is_delivered = False
        self._step_progress = self.progress
        self._done = 0.0
        self._found = self.examined.diagnosis
        self._left = self.examined.diagnosis
        self._actions: list[RestorationAction] = []
        self._engines: list[EngineInfo] = []
        self._warnings: list[Warning] = []
        self._failed: list[str] = []
        self._unchanged = True

    def begin(self, index: int, count: int) -> None:
        """The next of so many steps begins."""
        whole = part(self.progress, index / count, (index + 1) / count)

        def noted(fraction: float) -> None:
            self._done = fraction
            whole(fraction)

        self._step_progress = noted

    def is_idle(self, step: RestorationStep, role: str) -> bool:
        """Whether a step will do nothing."""
        if step.engine == BANDWIDTH:
            return not bandwidth.plan(role, step.amount, self.examined.cutoff).amount
        return step.engine != REPAIR and (self._cannot(step) or not self._voice_plan(step, role).amount)

    def take(self, array: Audio) -> None:
        """Go on with what a step made, examined anew."""
        self.array = array
        # Nothing new to tell, but whoever is told may want to stop.
        self.examined = examine(array, self.sample_rate_hertz, lambda _: self._step_progress(self._done))
        self._left = self.examined.diagnosis

    def repaired(self, step: RestorationStep, role: str, *, is_last: bool) -> Generator[Audio, None, None]:
        """The repaired stem, cell by cell."""
        seconds = self.array.shape[1] / self.sample_rate_hertz
        treatment, reasons = decide(self.examined, seconds, step.amount, role)
        before = self.examined.diagnosis
        left = yield from repaired(self.array, self.sample_rate_hertz, self.examined, treatment, self._step_progress)
        self._left = left
        self._unchanged = self._unchanged and treatment.is_none
        self._engines.append(_engine(REPAIR))
        self._actions += actions(treatment, reasons, before, left)
        self.is_delivered = self.is_delivered or is_last

    def denoise(self, step: RestorationStep, role: str, *, is_named: bool, spools: ExitStack) -> None:
        """Take noise from a voice; whatever goes wrong leaves the stem as it was."""
        how = self._voice_plan(step, role)
        floor = self.examined.diagnosis.noise_floor_dbfs
        if not how.amount or self._cannot(step):
            if how.amount:
                why = self.voice.info.unavailable_reason if self.voice else "it is not offered here"
                how = replace(how, reason=f"{how.reason}; but {step.engine} cannot run: {why}")
                if is_named:
                    self._fail(step.engine, why)
            self._actions.append(RestorationAction(step.engine, "noise", 0.0, how.reason, floor, floor))
            return
        assert self.voice is not None
        result, told = rendered(
            self.array, self.sample_rate_hertz, self.voice, how, self.directory, self._step_progress
        )
        if result is None:
            assert isinstance(told, tuple)
            failed = "; in smaller blocks: ".join(failure.message for failure in told)
            self._fail(step.engine, failed)
            self._actions.append(
                RestorationAction(step.engine, "noise", 0.0, f"{how.reason}; but the engine failed", floor, floor)
            )
            return
        self.take(spools.enter_context(result).array)
        self._unchanged = False
        self._engines.append(self.voice.info)
        assert isinstance(told, float)
        guarded = f"; backed off to {told:.2f} of it, where more than noise would have gone" if told < 1.0 else ""
        left = self._left.noise_floor_dbfs
        self._actions.append(
            RestorationAction(step.engine, "noise", how.amount * told, how.reason + guarded, floor, left)
        )

    def extend(self, step: RestorationStep, settings: RestorationSettings, *, spools: ExitStack) -> None:
        """Give a stem that was cut off a new top."""
        how = bandwidth.plan(settings.role, step.amount, self.examined.cutoff)
        before = self.examined.diagnosis.bandwidth_hertz
        reason, amount, after = how.reason, 0.0, before
        if how.amount:
            seed = settings.seed or 0
            result, amount = bandwidth.rendered(
                self.array,
                self.sample_rate_hertz,
                how,
                self.examined.power,
                seed,
                self.directory,
                self._step_progress,
            )
            self.take(spools.enter_context(result).array)
            self._unchanged = False
            self._engines.append(_engine(BANDWIDTH))
            after = self._left.bandwidth_hertz
            if amount < 0.999 * how.amount:
                reason += (
                    f"; its loudest moments held back, so that it stays {-(how.limit_db or 0.0):.0f} dB below the stem"
                )
        self._actions.append(RestorationAction(BANDWIDTH, "extension", amount, reason, before, after))

    def report(self, warnings: tuple[Warning, ...]) -> RestorationReport:
        """All of it."""
        return RestorationReport(
            engines=tuple(self._engines),
            found=self._found,
            left=self._left,
            actions=tuple(self._actions),
            frames=self.array.shape[1],
            unchanged=self._unchanged,
            warnings=(*warnings, *self._warnings),
            failed_engines=tuple(self._failed),
        )

    def _voice_plan(self, step: RestorationStep, role: str) -> VoicePlan:
        floor = self.examined.diagnosis.noise_floor_dbfs
        return plan(role, step.amount, step.attenuation_limit_db, self.examined.power, floor)

    def _cannot(self, step: RestorationStep) -> bool:
        return self.voice is None or not self.voice.info.available

    def _fail(self, engine: str, why: str) -> None:
        self._failed.append(engine)
        self._warnings.append(Warning("RESTORATION_FAILED", f"{engine} left the stem as it was: {why}"))


def _warnings(array: Audio, sample_rate_hertz: int, examined: Examination) -> tuple[Warning, ...]:
    found = []
    if array.shape[1] < sample_rate_hertz:
        found.append(Warning("SHORT_INPUT", "Shorter than a second: resonances and offsets cannot be told from notes."))
    elif not np.any(examined.levels):
        found.append(Warning("SILENT_INPUT", "The stem is silent."))
    return tuple(found)
