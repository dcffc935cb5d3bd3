"""A stem on its way through the steps of its restoration: what each step does to it, and what is told of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import EngineInfo, Progress, Warning, part
from outboard.audio.spool import Spool
from services.restorer import bandwidth, superresolution
from services.restorer.attempts import Failure, told
from services.restorer.diagnosis import Examination, Examiner, LevelMeter, examine
from services.restorer.repair import Treatment, actions, decide, decide_declipping, declipped, repaired
from services.restorer.settings import (
    AUDIOSR,
    AUDIOSR_SPEECH,
    BANDWIDTH,
    DEEPFILTERNET3,
    ENGINES,
    REPAIR,
    Diagnosis,
    RestorationAction,
    RestorationReport,
    RestorationSettings,
    RestorationStep,
)
from services.restorer.superresolution import DEFAULT_GUIDANCE, DEFAULT_STEPS, DrawingEngine, Sampling
from services.restorer.voice import VoiceEngine, VoicePlan, plan, rendered

Audio = NDArray[np.float32]

DECLIPPING_SHARE = 0.4  # of the work of `repair`, for progress
EXTENDING = (AUDIOSR, AUDIOSR_SPEECH, BANDWIDTH)
_log = logging.getLogger(__name__)


def engine_named(name: str) -> EngineInfo:
    """What is told of an engine of :data:`services.restorer.settings.ENGINES`."""
    return next(info for info in ENGINES if info.name == name)


@dataclass
class StemWork:
    """A stem on its way through the steps: as it is now, and what has been done to it."""

    array: Audio
    sample_rate_hertz: int
    examined: Examination
    voice: VoiceEngine | None
    drawing: Mapping[str, DrawingEngine]
    lacking: frozenset[str]
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
        if step.engine in self.lacking:
            return True
        if step.engine in EXTENDING:
            return not self._extension_plan(step, role).amount
        return step.engine != REPAIR and (self._cannot() or not self._voice_plan(step, role).amount)

    def take(self, array: Audio, earlier: Examination) -> None:
        """Go on with what a step made, examined anew; `earlier` tells what need not be looked for again."""
        self.array = array
        # Nothing new to tell, but whoever is told may want to stop.
        self.examined = examine(array, self.sample_rate_hertz, lambda _: self._step_progress(self._done), earlier)
        self._left = self.examined.diagnosis

    def spooled(self, parts: Iterable[Audio], spools: ExitStack) -> Audio:
        """All of what a step makes, to be read by position."""
        spool = spools.enter_context(Spool(self.array.shape[0], self.directory))
        for made in parts:
            spool.append(made)
        return spool.array

    def declip(self, step: RestorationStep, *, spools: ExitStack) -> None:
        """Draw missing crests; what flat peaks make of a spectrum must not be taken for other faults."""
        amount, reason = decide_declipping(self.examined, step.amount)
        before = after = self.examined.diagnosis.clipped_samples
        if amount:
            whole = self._step_progress
            self._step_progress = part(whole, 0.0, DECLIPPING_SHARE)
            levels = self.examined.levels
            drawn = declipped(self.array, self.sample_rate_hertz, levels, amount, self._step_progress)
            made = self.spooled(drawn, spools)
            self._step_progress = whole  # what is done, as the next line tells it, is a share of the whole step
            self.take(made, replace(self.examined, tones=None))  # flat peaks may have hidden them
            self._step_progress = part(whole, DECLIPPING_SHARE, 1.0)
            self._unchanged = False
            after = self._left.clipped_samples
        self._actions.append(RestorationAction(REPAIR, "declip", amount, reason, before, after))

    def repair(self, step: RestorationStep, role: str, *, spools: ExitStack) -> None:
        """Repair the stem for the steps to come; one that is not treated stays where it lies."""
        treatment, reasons = self._treatment(step, role)
        found = self.examined
        if not treatment.is_none:
            mended = repaired(self.array, self.sample_rate_hertz, found, treatment, self._step_progress)
            self.take(self.spooled(mended, spools), found)
        self._note_repair(treatment, reasons, found.diagnosis)

    def repaired(self, step: RestorationStep, role: str) -> Iterator[Audio]:
        """The repaired stem, cell by cell, as what is delivered; examined on its way, by the levels of before."""
        treatment, reasons = self._treatment(step, role)
        found = self.examined
        channels = self.array.shape[0]
        examiner = Examiner(self.sample_rate_hertz, found.levels, np.zeros(channels), found.power, found.known)
        meter = LevelMeter(channels)
        for cell in repaired(self.array, self.sample_rate_hertz, found, treatment, self._step_progress):
            if not treatment.is_none:
                examiner.add(cell)
                meter.add(cell)
            yield cell
        if not treatment.is_none:
            means = tuple(float(mean) for mean in meter.means)
            self._left = replace(examiner.finish().diagnosis, dc_offset=means)
        self._note_repair(treatment, reasons, found.diagnosis)
        self.is_delivered = True

    def _treatment(self, step: RestorationStep, role: str) -> tuple[Treatment, dict[str, str]]:
        return decide(self.examined, self.array.shape[1] / self.sample_rate_hertz, step.amount, role)

    def _note_repair(self, treatment: Treatment, reasons: dict[str, str], before: Diagnosis) -> None:
        self._unchanged = self._unchanged and treatment.is_none
        self._engines.append(engine_named(REPAIR))
        self._actions += actions(treatment, reasons, before, self._left)

    def pass_over(self, step: RestorationStep, role: str) -> None:
        """Tell what a step of automatic mode would have done that cannot run here; the next one has its part."""
        how = self._voice_plan(step, role) if step.engine == DEEPFILTERNET3 else self._extension_plan(step, role)
        reason = how.reason
        if how.amount:
            instead = "" if step.engine == DEEPFILTERNET3 else f", {BANDWIDTH} takes its place"
            why = self._why_not(step.engine)
            reason = f"{reason}; but {step.engine} cannot run{instead}: {why}"
            _log.info("an engine is not here", extra={"engine": step.engine, "error": why})
        self._leave_alone(step.engine, reason, unmet=bool(how.amount) and step.engine == DEEPFILTERNET3)

    def denoise(self, step: RestorationStep, role: str, *, spools: ExitStack) -> None:
        """Take noise from a voice; whatever goes wrong leaves the stem as it was."""
        how = self._voice_plan(step, role)
        floor = self.examined.diagnosis.noise_floor_dbfs
        if not how.amount or self._cannot():
            reason = how.reason
            if how.amount:
                reason += f"; but {step.engine} cannot run: {self._why_not(step.engine)}"
                self._fail(step.engine, (_absent(self.voice.info if self.voice else None),))
            self._leave_alone(step.engine, reason, unmet=bool(how.amount))
            return
        assert self.voice is not None
        result, given = rendered(
            self.array, self.sample_rate_hertz, self.voice, how, self.directory, self._step_progress
        )
        if result is None:
            assert isinstance(given, tuple)
            self._fail(step.engine, given)
            self._leave_alone(step.engine, f"{how.reason}; but the engine failed", unmet=True)
            return
        self.take(spools.enter_context(result).array, self.examined)
        self._unchanged = False
        self._engines.append(self.voice.info)
        assert isinstance(given, float)
        guarded = f"; backed off to {given:.2f} of it, where more than noise would have gone" if given < 0.995 else ""
        left = self._left.noise_floor_dbfs
        self._actions.append(
            RestorationAction(step.engine, "noise", how.amount * given, how.reason + guarded, floor, left)
        )

    def extend(self, step: RestorationStep, settings: RestorationSettings, *, spools: ExitStack) -> None:
        """Give a stem that was cut off a new top."""
        how = self._extension_plan(step, settings.role)
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
            self.take(spools.enter_context(result).array, self.examined)
            self._unchanged = False
            self._engines.append(engine_named(BANDWIDTH))
            after = self._left.bandwidth_hertz
            if amount < 0.999 * how.amount:
                reason += _held_back(how)
        self._actions.append(RestorationAction(BANDWIDTH, "extension", amount, reason, before, after))

    def draw(
        self, step: RestorationStep, settings: RestorationSettings, *, is_followed: bool, spools: ExitStack
    ) -> None:
        """Have a network draw the new top; where it cannot, `bandwidth` makes one.

        Args:
            step: of the network.
            settings: of the request.
            is_followed: `bandwidth` is a step of the chain anyway.
            spools: closed when the stem is done.
        """
        how = self._extension_plan(step, settings.role)
        before = self.examined.diagnosis.bandwidth_hertz
        engine = self.drawing.get(step.engine)
        if not how.amount:
            self._leave_alone(step.engine, how.reason)
            return
        failures: tuple[Failure, ...]
        if engine is None or not engine.info.available:
            failures = (_absent(engine.info if engine else None),)
        else:
            sampling = Sampling(
                settings.seed or 0, step.diffusion_steps or DEFAULT_STEPS, step.guidance_scale or DEFAULT_GUIDANCE
            )
            result, told_back = superresolution.rendered(
                self.array,
                self.sample_rate_hertz,
                engine,
                how,
                self.examined.power,
                sampling,
                self.directory,
                self._step_progress,
            )
            if result is not None:
                assert isinstance(told_back, float)
                self.take(spools.enter_context(result).array, self.examined)
                self._unchanged = False
                self._engines.append(engine.info)
                reason = how.reason + (_held_back(how) if told_back < 0.999 * how.amount else "")
                after = self._left.bandwidth_hertz
                self._actions.append(RestorationAction(step.engine, "extension", told_back, reason, before, after))
                return
            assert isinstance(told_back, tuple)
            failures = told_back
        instead = f"{BANDWIDTH} takes its place"
        self._fail(step.engine, failures, instead)
        self._leave_alone(step.engine, f"{how.reason}; but {step.engine} cannot draw, {instead}: {told(failures)}")
        if not is_followed:
            self.extend(RestorationStep(BANDWIDTH, step.amount), settings, spools=spools)

    def leave(self, chain: set[str], role: str) -> None:
        """Tell of what was found and no engine of the chain is for."""
        noise = self._voice_plan(RestorationStep(DEEPFILTERNET3), role)
        if noise.amount and DEEPFILTERNET3 not in chain:
            why = f"{DEEPFILTERNET3} is not in the chain"
            if self.voice is not None and not self.voice.info.available:
                why += f", and cannot run: {self.voice.info.unavailable_reason}"
            self._leave_alone(DEEPFILTERNET3, f"{noise.reason}; but {why}", unmet=True)
        extension = self._extension_plan(RestorationStep(BANDWIDTH), role)
        if extension.amount and not chain.intersection(EXTENDING):
            reason = f"{extension.reason}; but {BANDWIDTH} is not in the chain"
            self._leave_alone(BANDWIDTH, reason, unmet=True)

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

    def _extension_plan(self, step: RestorationStep, role: str) -> bandwidth.BandwidthPlan:
        if step.engine == AUDIOSR_SPEECH and step.amount is None:
            return bandwidth.BandwidthPlan(0.0, "made for the spoken word, and not asked for with an amount")
        how = bandwidth.plan(role, step.amount, self.examined.cutoff, self.examined.power)
        if how.amount and not superresolution.has_room(how.cutoff_hertz, self.sample_rate_hertz):
            return replace(how, amount=0.0, reason=f"{how.reason}, and the sample rate has no room above")
        return how

    def _voice_plan(self, step: RestorationStep, role: str) -> VoicePlan:
        found = self.examined.diagnosis
        return plan(
            role,
            step.amount,
            step.attenuation_limit_db,
            self.examined.power,
            found.noise_floor_dbfs,
            self.examined.noise,
            found.noise_stationarity,
        )

    def _leave_alone(self, engine: str, reason: str, *, unmet: bool = False) -> None:
        """A treatment that was considered and not done; `unmet` where it was called for and nothing does it instead."""
        is_noise = engine == DEEPFILTERNET3
        treatment = "noise" if is_noise else "extension"
        measure = self._left.noise_floor_dbfs if is_noise else self._left.bandwidth_hertz
        self._actions.append(RestorationAction(engine, treatment, 0.0, reason, measure, measure, unmet))

    def _why_not(self, engine: str) -> str:
        known = self.voice if engine == DEEPFILTERNET3 else self.drawing.get(engine)
        if known is None:
            return "it is not offered here"
        return known.info.unavailable_reason or "it could not when the chain was made"

    def _cannot(self) -> bool:
        return self.voice is None or not self.voice.info.available

    def _fail(self, engine: str, failures: Sequence[Failure], instead: str = "the stem stays as it was") -> None:
        self._failed.append(engine)
        text = f"{engine} failed, {instead}: {told(failures)}"
        self._warnings.append(Warning("RESTORATION_FAILED", text))
        _log.warning("an engine failed", extra={"engine": engine, "code": failures[-1].code, "error": text})


def _held_back(how: bandwidth.BandwidthPlan) -> str:
    return f"; its loudest moments held back, so that it stays {-(how.limit_db or 0.0):.0f} dB below the stem"


def _absent(info: EngineInfo | None) -> Failure:
    """Why an engine cannot run that a chain names."""
    if info is None:
        return Failure("ENGINE_UNAVAILABLE", "it is not offered here")
    return Failure(info.unavailable_error or "ENGINE_UNAVAILABLE", info.unavailable_reason)
