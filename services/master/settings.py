"""What a master is asked for, decided and told: dataclasses whose fields are called like those of the wire contract."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path

from outboard.audio.analysis import Analysis
from outboard.audio.processor_ranges import number_violation
from outboard.audio.processors import Processor, ProcessorReport
from outboard.audio.reporting import EngineInfo, Warning
from outboard.errors import InvalidInput, Violation
from services.master.chain_rules import part_violations, processor_violations
from services.master.deliverable import DeliverableSpec as DeliverableSpec
from services.master.deliverable import deliverable_conflicts, deliverable_violations

INTENTS = ("streaming", "loud", "reference", "custom")
ENGINE_CHAIN, ENGINE_PASSTHROUGH = "chain", "passthrough"
ENGINE_MATCH, ENGINE_MATCHERING = "match", "matchering"
REFERENCE_ENGINES = (ENGINE_MATCH, ENGINE_MATCHERING)
ENGINES = ("", ENGINE_CHAIN, *REFERENCE_ENGINES, ENGINE_PASSTHROUGH)
LOWEST_TARGET_LUFS, HIGHEST_TARGET_LUFS = -40.0, -5.0


@dataclass(frozen=True)
class MasterSettings:
    """What the caller asks for; None means that the planner decides."""

    engine: str = ""
    intent: str = "streaming"
    target_lufs: float | None = None
    ceiling_dbtp: float | None = None
    intensity: float = 100.0
    deliverables: tuple[DeliverableSpec, ...] = ()
    seed: int = 0
    profile: str = ""
    nearest_reference: bool = False


@dataclass(frozen=True)
class Limiter:
    """The true-peak limiter; `hold_ms` is the longest gap between two peaks that is bridged (see
    `outboard.audio.limiter`, whose defaults these are).
    """

    lookahead_ms: float = 4.0
    release_ms: float = 60.0
    slow_release_ms: float = 150.0
    hold_ms: float = 25.0
    stereo_link: float = 1.0
    transient_ms: float = 40.0
    transient_db: float = 6.0
    dip_ms: float = 1.0
    dip_share: float = 0.6


@dataclass(frozen=True)
class GuardRails:
    """Limits that no round of the loudness loop passes."""

    average_limiting_db: float = 3.0
    side_gain: float = 1.4
    correlation: float = 0.1
    equalizer_db: float = 4.0
    crest_factor_db: float | None = None


@dataclass(frozen=True)
class MatchBand:
    """A third of an octave of a match to references: gains of mid and side, and the mid's level relative to loudness
    before, in the references, and after.
    """

    frequency_hertz: float
    mid_gain_db: float
    side_gain_db: float
    before_db: float = 0.0
    target_db: float = 0.0
    after_db: float = 0.0


@dataclass(frozen=True)
class LevelPoint:
    """A point of a level curve; `level_db` is relative to the band's mean power."""

    level_db: float
    gain_db: float


@dataclass(frozen=True)
class DynamicsBand:
    """A band whose gain follows its level along a curve of rising levels; no points: no gain."""

    low_hertz: float
    high_hertz: float
    mean_db: float
    points: tuple[LevelPoint, ...] = ()


@dataclass(frozen=True)
class HeardReference:
    """A reference as it was heard: loudness, distance of sound to the mix, and whether it was followed."""

    name: str
    integrated_lufs: float | None = None
    distance: float | None = None
    followed: bool = True


@dataclass(frozen=True)
class ReferenceMatch:
    """All numbers of a match to references (see `services.master.reference_fit`); without `bands` they are decided
    when the plan is rendered.
    """

    intensity: float = 100.0
    nearest: bool = False
    bands: tuple[MatchBand, ...] = ()
    dynamics: tuple[DynamicsBand, ...] = ()
    references: tuple[HeardReference, ...] = ()


@dataclass(frozen=True)
class MasterPlan:
    """All numbers of a master. `target_lufs` None: no loudness is aimed at."""

    intent: str
    engine: str
    ceiling_dbtp: float
    target_lufs: float | None = None
    chain: tuple[Processor, ...] = ()
    drive_db: float = 0.0
    limiter: Limiter = field(default_factory=Limiter)
    guard_rails: GuardRails = field(default_factory=GuardRails)
    deliverables: tuple[DeliverableSpec, ...] = (DeliverableSpec(),)
    seed: int = 0
    notes: tuple[str, ...] = ()
    match: ReferenceMatch | None = None


@dataclass(frozen=True)
class QualityCheck:
    """One check on the delivered files."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    unit: str
    message: str


@dataclass(frozen=True)
class DeliverableReport:
    """One delivered file, measured after decoding.

    `turned_down`: granules of an mp3 that were lowered after coding, to keep the ceiling; `target_missed_reason`: empty
    where the loudness is the target, or where there is none.
    """

    name: str
    spec: DeliverableSpec
    frames: int
    size_bytes: int
    sha256: str
    integrated_lufs: float | None
    true_peak_dbtp: float | None
    encodes: int
    turned_down: int = 0
    target_missed_reason: str = ""


@dataclass(frozen=True)
class DeliverableFile:
    """Where a delivered file lies."""

    name: str
    path: Path


@dataclass(frozen=True)
class MasteringReport:
    """What was done and what was measured on the result."""

    engine: EngineInfo
    plan: MasterPlan
    before: Analysis | None
    after: Analysis | None
    deliverables: tuple[DeliverableReport, ...]
    processors: tuple[ProcessorReport, ...]
    average_limiting_db: float | None
    maximum_limiting_db: float | None
    renders: int
    drive_db: float
    target_reached: bool
    target_missed_reason: str
    checks: tuple[QualityCheck, ...]
    decisions: tuple[str, ...]
    warnings: tuple[Warning, ...]
    limiting_db: tuple[float, ...] = ()


@dataclass(frozen=True)
class MasterResult:
    """The delivered files and the report on them."""

    deliverables: tuple[DeliverableFile, ...]
    report: MasteringReport


def check_settings(settings: MasterSettings) -> None:
    """Refuses what cannot be rendered.

    Raises:
        InvalidInput: with one violation per field; ENGINE_UNKNOWN, OPTIONS_CONFLICT where fields contradict each
            other, else INVALID_ARGUMENT.
    """
    wrong = _intent_violations(settings.intent, settings.engine, ENGINES)
    wrong += _level_violations(settings.target_lufs, settings.ceiling_dbtp)
    if settings.intent == "custom" and settings.target_lufs is None:
        wrong.append(Violation("target_lufs", "the custom intent needs a loudness to reach"))
    if not 0.0 <= settings.intensity <= 100.0:
        wrong.append(Violation("intensity", f"{settings.intensity} is outside of 0 to 100"))
    _refuse(wrong + _delivery_violations(settings.deliverables, settings.seed))
    if conflicts := _conflicts(settings):
        raise InvalidInput(conflicts[0].description, reason="OPTIONS_CONFLICT", violations=conflicts)


def _conflicts(settings: MasterSettings) -> list[Violation]:
    """What would be accepted and then ignored."""
    engine = settings.engine
    if wrong := _engine_violations(engine, settings.intent):
        return wrong
    ignored = deliverable_conflicts(settings.deliverables)
    if engine == ENGINE_PASSTHROUGH:
        given = {
            "intensity": settings.intensity != 100.0,
            "target_lufs": settings.target_lufs is not None and not settings.profile,
            "ceiling_dbtp": settings.ceiling_dbtp is not None and not settings.profile,
        }
        text = "engine passthrough delivers the mix as it is: {} would do nothing"
        ignored += [Violation(name, text.format(name)) for name, is_given in given.items() if is_given]
    if engine == ENGINE_MATCHERING and settings.intensity != 100.0:
        ignored.append(Violation("intensity", "engine matchering knows no intensity: match does"))
    if engine == ENGINE_MATCHERING and settings.nearest_reference:
        ignored.append(Violation("nearest_reference", "engine matchering follows every reference: match may choose"))
    return ignored


def _engine_violations(engine: str, intent: str) -> list[Violation]:
    """An engine that does not serve the intent."""
    if engine in REFERENCE_ENGINES and intent != "reference":
        return [Violation("engine", f"engine {engine} serves the reference intent only")]
    if intent == "reference" and engine and engine not in REFERENCE_ENGINES:
        return [Violation("engine", f"engine {engine} follows no reference: {' and '.join(REFERENCE_ENGINES)} do")]
    return []


def check_plan(plan: MasterPlan, sample_rate_hertz: int = 48000, path: str = "") -> None:
    """Refuses an edited plan that cannot be rendered.

    Args:
        plan: any.
        sample_rate_hertz: of the mix.
        path: of the plan in the request, with a dot at its end.

    Raises:
        InvalidInput: with one violation per field; OPTIONS_CONFLICT where fields contradict each other.
    """
    wrong = _intent_violations(plan.intent, plan.engine, ENGINES[1:])
    wrong += _level_violations(plan.target_lufs, plan.ceiling_dbtp)
    wrong += number_violation("drive_db", plan.drive_db, -80.0, 80.0, "dB")
    wrong += part_violations(plan.limiter, "limiter")
    rails = plan.guard_rails
    wrong += part_violations(rails, "guard_rails")
    wrong += processor_violations(plan.chain, rails.equalizer_db, rails.side_gain, sample_rate_hertz)
    if not plan.deliverables:
        wrong.append(Violation("deliverables", "at least one file must be asked for"))
    if plan.match is not None:
        wrong += _match_violations(plan.match, plan.guard_rails)
    _refuse(wrong + _delivery_violations(plan.deliverables, plan.seed), path)
    if conflicts := _contradictions(plan):
        _refuse(conflicts, path, "OPTIONS_CONFLICT")


def _contradictions(plan: MasterPlan) -> list[Violation]:
    """What the plan's engine would not render, or could not follow."""
    wrong = _engine_violations(plan.engine, plan.intent) + deliverable_conflicts(plan.deliverables)
    if plan.match is not None and plan.engine != ENGINE_MATCH:
        wrong.append(Violation("match", f"engine {plan.engine} renders no match: {ENGINE_MATCH} does"))
    if plan.engine == ENGINE_PASSTHROUGH and (plan.chain or plan.target_lufs is not None):
        wrong.append(Violation("engine", "engine passthrough delivers the mix as it is: no chain, no target_lufs"))
    return wrong


def _refuse(wrong: list[Violation], path: str = "", reason: str = "") -> None:
    if wrong:
        reason = reason or ("ENGINE_UNKNOWN" if wrong[0].field == "engine" else "INVALID_ARGUMENT")
        placed = [Violation(f"{path}{violation.field}", violation.description) for violation in wrong]
        raise InvalidInput(f"{wrong[0].field}: {wrong[0].description}", reason=reason, violations=placed)


def _intent_violations(intent: str, engine: str, engines: tuple[str, ...]) -> list[Violation]:
    wrong = []
    if engine not in engines:
        wrong.append(Violation("engine", f"{engine!r} is not one of {', '.join(ENGINES[1:])}"))
    if intent not in INTENTS:
        wrong.append(Violation("intent", f"{intent!r} is not one of {', '.join(INTENTS)}"))
    return wrong


def _level_violations(target_lufs: float | None, ceiling_dbtp: float | None) -> list[Violation]:
    wrong = []
    if target_lufs is not None and not LOWEST_TARGET_LUFS <= target_lufs <= HIGHEST_TARGET_LUFS:
        message = f"{target_lufs} is outside of {LOWEST_TARGET_LUFS:.0f} to {HIGHEST_TARGET_LUFS:.0f} LUFS"
        wrong.append(Violation("target_lufs", message))
    if ceiling_dbtp is not None and not -20.0 <= ceiling_dbtp <= 0.0:
        wrong.append(Violation("ceiling_dbtp", f"{ceiling_dbtp} is outside of -20 to 0 dBTP"))
    return wrong


def _match_violations(match: ReferenceMatch, rails: GuardRails) -> list[Violation]:
    wrong = list(part_violations(match, "match"))
    hertz = [band.frequency_hertz for band in match.bands]
    if hertz and (hertz[0] <= 0.0 or any(high <= low for low, high in itertools.pairwise(hertz))):
        wrong.append(Violation("match.bands", "bands need rising frequencies above 0 Hz"))
    over_mid = 20.0 * math.log10(max(rails.side_gain, 1e-6))
    for index, band in enumerate(match.bands):
        if max(band.mid_gain_db, band.side_gain_db) > rails.equalizer_db + 1e-6:
            wrong.append(Violation(f"match.bands[{index}]", f"the guard-rail allows lifts of {rails.equalizer_db} dB"))
        if band.side_gain_db - band.mid_gain_db > over_mid + 1e-6:
            message = f"the guard-rail allows sides {over_mid:.1f} dB over the middle"
            wrong.append(Violation(f"match.bands[{index}].side_gain_db", message))
    for index, dynamics in enumerate(match.dynamics):
        levels = [point.level_db for point in dynamics.points]
        if any(high <= low for low, high in itertools.pairwise(levels)):
            wrong.append(Violation(f"match.dynamics[{index}].points", "points need rising levels"))
    return wrong


def _delivery_violations(deliverables: tuple[DeliverableSpec, ...], seed: int) -> list[Violation]:
    wrong = [] if seed >= 0 else [Violation("seed", f"{seed} is negative")]
    return wrong + deliverable_violations(deliverables)
