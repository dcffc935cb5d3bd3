"""Decides all numbers of a master from measurements, and renders nothing.

A plan can be printed, edited and rendered again. It corrects only what was measured to be off: a song whose bands are
within tolerance is not equalised, one whose dynamics are already spent is not compressed. Every decision leaves a
sentence in the plan's notes.
"""

from __future__ import annotations

from collections.abc import Mapping

from outboard.audio.analysis import Analysis
from outboard.audio.processors import Processor
from services.master.character import Character, character
from services.master.density import dynamics
from services.master.field import field
from services.master.limits import guard_rails, limiter, rails_note
from services.master.profile import MasterProfile
from services.master.settings import (
    ENGINE_CHAIN,
    ENGINE_MATCH,
    ENGINE_PASSTHROUGH,
    REFERENCE_ENGINES,
    DeliverableSpec,
    MasterPlan,
    MasterSettings,
    ReferenceMatch,
    check_settings,
)
from services.master.tone import tone

INTENT_TARGET_LUFS = {"streaming": -14.0, "loud": -10.0, "reference": None}
"""Of the custom intent the caller says it."""
INTENT_CEILING_DBTP = -1.0


def plan(analysis: Analysis, settings: MasterSettings, preset: Mapping[str, float] | None = None) -> MasterPlan:
    """All numbers of a master.

    Args:
        analysis: of the mix.
        settings: what the caller asks for; checked here.
        preset: numbers of a sound profile (see `MasterProfile`).

    Raises:
        InvalidInput: a setting out of range, or options that contradict each other.
    """
    check_settings(settings)
    profile = MasterProfile.from_values(preset or {})
    engine = settings.engine or (ENGINE_MATCH if settings.intent == "reference" else ENGINE_CHAIN)
    ceiling = settings.ceiling_dbtp if settings.ceiling_dbtp is not None else INTENT_CEILING_DBTP
    target, target_note = _target(analysis, settings, engine)
    rails = guard_rails(analysis, target, matched=engine in REFERENCE_ENGINES)
    notes = [target_note]
    if target is not None:
        notes.append(rails_note(target, rails))
    chain: list[Processor] = []
    song = Character()
    if engine == ENGINE_CHAIN:
        intensity = settings.intensity / 100.0
        song = character(analysis, profile, notes)
        chain = tone(analysis, profile, song, intensity, notes)
        chain += dynamics(analysis, profile, song, intensity, target, ceiling, notes)
        chain += field(analysis, profile, intensity, rails.correlation, notes)
    drive = target - analysis.integrated_lufs if target is not None and analysis.integrated_lufs is not None else 0.0
    match = ReferenceMatch(settings.intensity, settings.nearest_reference) if engine == ENGINE_MATCH else None
    return MasterPlan(
        intent=settings.intent,
        engine=engine,
        target_lufs=target,
        ceiling_dbtp=ceiling,
        chain=tuple(chain),
        drive_db=drive,
        limiter=limiter(analysis, song, target, ceiling),
        guard_rails=rails,
        deliverables=tuple(spec.resolved() for spec in settings.deliverables or (DeliverableSpec(),)),
        seed=settings.seed,
        notes=tuple(notes),
        match=match,
    )


def _target(analysis: Analysis, settings: MasterSettings, engine: str) -> tuple[float | None, str]:
    if engine == ENGINE_PASSTHROUGH:
        return None, "Nothing is processed: the mix is delivered as it is."
    if analysis.integrated_lufs is None:
        return None, "The mix is silent or shorter than 400 ms: it has no loudness, so none is aimed at."
    if settings.target_lufs is not None:
        asked = f"the profile {settings.profile} has it" if settings.profile else "asked for"
        return settings.target_lufs, f"Loudness is brought to {settings.target_lufs:.1f} LUFS, as {asked}."
    target = INTENT_TARGET_LUFS[settings.intent]
    if target is None:
        return None, "Loudness follows the reference."
    return (
        target,
        f"Loudness is brought from {analysis.integrated_lufs:.1f} to {target:.1f} LUFS for {settings.intent}.",
    )
