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

from outboard.audio import declip
from outboard.audio.reporting import EngineInfo, Progress, Warning, part
from outboard.audio.resonance import Tamer
from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from services.restorer.diagnosis import Examination, Examiner, LevelMeter, cell_frames, cells, diagnose, examine
from services.restorer.settings import (
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

FEWEST_CLIPPED_SAMPLES = 12  # four flat peaks: fewer are chance
SMALLEST_DC = 1e-3  # of full scale, -60 dBFS
SHORTEST_FOR_DC_SECONDS = 1.0  # in less, a mean is a low note
SLIGHT_SHIMMER_INDEX = 0.03  # up to here nothing is done ...
CLEAR_SHIMMER_INDEX = 0.1  # ... and from here on all of it; released recordings lie at 0
_PASSTHROUGH = next(info for info in ENGINES if info.name == PASSTHROUGH)
EXAMINING_SHARE = 0.3  # of the work, for progress


@dataclass(frozen=True)
class _Treatment:
    """How much of each treatment is used, 0 to 1."""

    declip: float
    dc: float
    resonance: float

    @property
    def is_none(self) -> bool:
        return not (self.declip or self.dc or self.resonance)


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
        steps = (RestorationStep(REPAIR),)
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
            if step.engine != REPAIR:
                work.denoise(step, settings.role, is_named=bool(settings.steps), spools=spools)
            elif all(work.is_idle(later, settings.role) for later in steps[index + 1 :]):
                yield from work.repaired(step, is_last=True)
            else:
                spool = spools.enter_context(Spool(array.shape[0], directory))
                for cell in work.repaired(step, is_last=False):
                    spool.append(cell)
                work.take(spool.array)
        if not work.is_delivered:
            for cell in cells(work.array, sample_rate_hertz):
                yield cell
                report_progress(1.0)
        report_progress(1.0)
    return work.report(_warnings(array, sample_rate_hertz, examined))


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
    return RestorationReport((_PASSTHROUGH,), nothing, nothing, (), array.shape[1], unchanged=True)


def _decide(examined: Examination, seconds: float, amount: float | None) -> tuple[_Treatment, dict[str, str]]:
    """How much of each treatment the diagnosis asks for (scaled by a given amount), and why, in a sentence each."""
    found = examined.diagnosis
    most = 1.0 if amount is None else amount
    reasons = {}
    is_clipped = found.clipped_samples >= FEWEST_CLIPPED_SAMPLES
    reasons["declip"] = f"{found.clipped_samples} samples in flat peaks" if is_clipped else "no clipped peaks"
    largest_dc = max((abs(offset) for offset in found.dc_offset), default=0.0)
    has_dc = largest_dc >= SMALLEST_DC and seconds >= SHORTEST_FOR_DC_SECONDS
    reasons["dc"] = (
        f"a constant offset of {largest_dc:.4f}" if has_dc else f"an offset of {largest_dc:.1e} does no harm"
    )
    if largest_dc >= SMALLEST_DC and not has_dc:
        reasons["dc"] = "too short to tell an offset from a low note"
    index = found.shimmer_index
    shimmer = 0.0 if index is None else (index - SLIGHT_SHIMMER_INDEX) / (CLEAR_SHIMMER_INDEX - SLIGHT_SHIMMER_INDEX)
    shimmer = float(np.clip(shimmer, 0.0, 1.0))
    reasons["resonance"] = (
        "nothing sounds between 8 and 12 kHz" if index is None
        else f"lasting narrow peaks, shimmer index {index:.2f}" if shimmer
        else f"shimmer index {index:.2f} is as clean recordings have it"
    )  # fmt: skip
    if amount == 0:
        reasons = dict.fromkeys(reasons, "amount 0 was asked for")
    return _Treatment(most * is_clipped, most * has_dc, most * shimmer), reasons


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
        return step.engine != REPAIR and (self._cannot(step) or not self._voice_plan(step, role).amount)

    def take(self, array: Audio) -> None:
        """Go on with what a step made, examined anew."""
        self.array = array
        # Nothing new to tell, but whoever is told may want to stop.
        self.examined = examine(array, self.sample_rate_hertz, lambda _: self._step_progress(self._done))
        self._left = self.examined.diagnosis

    def repaired(self, step: RestorationStep, *, is_last: bool) -> Generator[Audio, None, None]:
        """The repaired stem, cell by cell."""
        seconds = self.array.shape[1] / self.sample_rate_hertz
        treatment, reasons = _decide(self.examined, seconds, step.amount)
        before = self.examined.diagnosis
        left = yield from _repaired(self.array, self.sample_rate_hertz, self.examined, treatment, self._step_progress)
        self._left = left
        self._unchanged = self._unchanged and treatment.is_none
        self._engines.append(ENGINES[0])
        self._actions += _actions(treatment, reasons, before, left)
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


def _repaired(
    array: Audio, sample_rate_hertz: int, examined: Examination, treatment: _Treatment, progress: Progress
) -> Generator[Audio, None, Diagnosis]:
    """Yields the treated stem cell by cell; returns what is left of its faults."""
    source = _Source(array, examined, treatment)
    tamer = Tamer(examined.survey, sample_rate_hertz, treatment.resonance) if treatment.resonance else None
    examiner = Examiner(sample_rate_hertz, examined.levels, np.zeros(array.shape[0]), examined.power)
    meter = LevelMeter(array.shape[0])
    size = cell_frames(sample_rate_hertz)
    for number, start in enumerate(range(0, array.shape[1], size)):
        frames = min(size, array.shape[1] - start)
        cell = source.read(start, frames)
        correction = None
        if tamer is not None:
            around = tamer.lookaround_frames
            correction = tamer.correction(source.read(start - around, size + 2 * around), number)
        if correction is not None:
            cell = np.asarray(cell + correction[:, :frames], dtype=np.float32)
        if not treatment.is_none:
            examiner.add(cell)
            meter.add(cell)
        yield cell
        progress((start + frames) / array.shape[1])
    if treatment.is_none:
        return examined.diagnosis
    left = examiner.finish().diagnosis
    return replace(left, dc_offset=tuple(float(mean) for mean in meter.means))


@dataclass(frozen=True)
class _Source:
    """The stem with clipped peaks redrawn and DC removed, readable at any place (silence past its ends)."""

    array: Audio
    examined: Examination
    treatment: _Treatment

    def read(self, start: int, frames: int) -> Audio:
        """float32 (channels, frames) from `start`, which may be negative."""
        part = self._declipped(start, frames) if self.treatment.declip else self._padded(start, frames)
        if not self.treatment.dc:
            return part
        offsets = np.array(self.examined.diagnosis.dc_offset)[:, None] * self.treatment.dc
        inside = np.arange(start, start + frames)
        is_stem = (inside >= 0) & (inside < self.array.shape[1])
        return np.where(is_stem, part - offsets, part).astype(np.float32)

    def _padded(self, start: int, frames: int) -> Audio:
        part = self.array[:, max(0, start) : max(0, start + frames)]
        if part.shape[1] == frames:
            return np.array(part, dtype=np.float32)
        padded = np.zeros((self.array.shape[0], frames), dtype=np.float32)
        first = max(0, -start)
        padded[:, first : first + part.shape[1]] = part
        return padded

    def _declipped(self, start: int, frames: int) -> Audio:
        """Whole cores around what is asked for, so that a sample is the same from wherever it is read."""
        first = start // declip.CORE_FRAMES * declip.CORE_FRAMES
        cores = -(-(start + frames - first) // declip.CORE_FRAMES)
        around = declip.LOOKAROUND_FRAMES
        raw = self._padded(first - around, cores * declip.CORE_FRAMES + 2 * around)
        drawn, changed = declip.declip(raw, self.examined.levels)
        middle = raw[:, around : raw.shape[1] - around]
        if changed and self.treatment.declip < 1:
            drawn = middle + np.float32(self.treatment.declip) * (drawn - middle)
        return np.ascontiguousarray(drawn[:, start - first : start - first + frames])


def _actions(
    treatment: _Treatment, reasons: dict[str, str], found: Diagnosis, left: Diagnosis
) -> tuple[RestorationAction, ...]:
    """One action per treatment, with the measure that decided it, before and after."""

    def largest(offsets: tuple[float, ...]) -> float | None:
        return max((abs(offset) for offset in offsets), default=None)

    measures: dict[str, tuple[float | None, float | None]] = {
        "declip": (found.clipped_samples, left.clipped_samples),
        "dc": (largest(found.dc_offset), largest(left.dc_offset)),
        "resonance": (found.shimmer_index, left.shimmer_index),
    }
    return tuple(
        RestorationAction(REPAIR, name, getattr(treatment, name), reasons[name], *measures[name]) for name in measures
    )


def _warnings(array: Audio, sample_rate_hertz: int, examined: Examination) -> tuple[Warning, ...]:
    found = []
    if array.shape[1] < sample_rate_hertz:
        found.append(Warning("SHORT_INPUT", "Shorter than a second: resonances and offsets cannot be told from notes."))
    elif not np.any(examined.levels):
        found.append(Warning("SILENT_INPUT", "The stem is silent."))
    return tuple(found)
