"""Decides all numbers of a mix from measurements. Nothing is done by habit: every move answers a measured excess.

Two cases. *Separated* stems (the song's own analysis is given) already hold a balance and share one song's faults:
they keep their levels within 3 dB, and what the whole song shows (a low middle that is congested, sides too loud or
leaning, a top that is missing, dynamics pressed flat) is mended in proportion to how far it is beyond what released
recordings show. *Supplied* stems (no song) are staged to a working level and balanced from scratch by role.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from outboard.audio.analysis import Analysis
from outboard.audio.stems import MAXIMUM_STEMS, role_from_name
from outboard.audio.stereo import MAX_SIDE_GAIN
from outboard.errors import InvalidInput, Violation
from outboard.presets import Preset, nearest
from services.mixer import balance, buses, interplay, sections, song_rules, space, strips
from services.mixer.brief import Brief
from services.mixer.check import PEAK_TARGET_DBFS_RANGE
from services.mixer.console import ENGINES, INSERT, PASSTHROUGH, MixPlan, MixSettings, Strip
from services.mixer.hearing import Heard

PEAK_TARGET_DBFS = -6.0
LABELS = (*strips.LABELS, *interplay.LABELS, *buses.LABELS, *space.LABELS, *song_rules.LABELS, INSERT)


def plan(
    analyses: Mapping[str, Analysis],
    roles: Mapping[str, str],
    song: Analysis | None,
    preset: Preset,
    settings: MixSettings,
    confidences: Mapping[str, float] | None = None,
    heard: Mapping[str, Heard] | None = None,
) -> MixPlan:
    """All numbers of a mix; pure.

    Args:
        analyses: measurements by stem name, 1 to 12.
        roles: role by stem name; missing or ``unspecified`` ones are read off the name.
        song: measurements of the song that the stems were separated from; None for supplied stems.
        preset: the sound profile's numbers.
        settings: what was asked for.
        confidences: how sure the roles are, by stem name, for the plan's reader; nothing is decided by them.
        heard: what `hear` heard, by stem name; without it no strip gives way to another, and no bus is treated.

    Raises:
        InvalidInput: too few or too many stems, a setting out of range, an unknown label in ``bypass``.
    """
    check_settings(settings)
    if not 1 <= len(analyses) <= MAXIMUM_STEMS:
        raise InvalidInput(f"a mix takes 1 to {MAXIMUM_STEMS} stems, not {len(analyses)}", field="stems")
    names = sorted(analyses)
    role = {name: _role(name, roles) for name in names}
    if not decides(settings):
        wires = tuple(Strip(name, role[name]) for name in names)
        return MixPlan(wires, notes=("All processors are out: the mix is the sum of its stems.",))
    brief = Brief(analyses, song, preset, settings, role, heard or {})
    sure = confidences or {}
    found = tuple(
        dataclasses.replace(strips.strip_of(brief, name, role[name]), role_confidence=sure.get(name)) for name in names
    )
    placed, sums = buses.routed(interplay.among(brief, sections.faded(brief, found)))
    groups = balance.kept(brief, placed, buses.treated(brief, placed, sums))
    placed, effects = space.sent(brief, placed)
    peak = PEAK_TARGET_DBFS if settings.peak_target_dbfs is None else settings.peak_target_dbfs
    chain = (*song_rules.song_chain(brief, placed, groups), *buses.mix_glue(brief, placed))
    return MixPlan(placed, (*groups, *effects), master_chain=chain, notes=tuple(brief.notes), peak_target_dbfs=peak)


def decides(settings: MixSettings) -> bool:
    """Whether a plan with these settings depends on measurements; a bypassed console does not."""
    return not settings.bypass_all and settings.engine != PASSTHROUGH


def check_settings(settings: MixSettings) -> None:
    """Refuses what cannot be planned.

    Raises:
        InvalidInput: one violation per field; ENGINE_UNKNOWN for the engine, INVALID_ARGUMENT for the others.
    """
    wrong: list[Violation] = []
    reason = "INVALID_ARGUMENT"
    names = tuple(engine.name for engine in ENGINES)
    if settings.engine not in ("", *names):
        reason = "ENGINE_UNKNOWN"
        text = f"unknown engine {settings.engine!r}{nearest(settings.engine, names)}: there are {', '.join(names)}"
        wrong.append(Violation("settings.engine", text))
    wrong.extend(
        Violation(
            "settings.bypass", f"unknown processor {label!r}{nearest(label, LABELS)}: there are {', '.join(LABELS)}"
        )
        for label in settings.bypass
        if label not in LABELS
    )
    ranges = (
        ("width_cap", settings.width_cap, 0.0, MAX_SIDE_GAIN),
        ("peak_target_dbfs", settings.peak_target_dbfs, *PEAK_TARGET_DBFS_RANGE),
        ("intensity", settings.intensity, 0.0, 100.0),
    )
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            wrong.append(Violation(f"settings.{name}", f"{name} is {value:g}, must be {low:g} to {high:g}"))
    if wrong:
        raise InvalidInput(wrong[0].description, reason=reason, violations=wrong)
    if not decides(settings):
        what = "engine passthrough" if settings.engine == PASSTHROUGH else "bypass_all"
        ignored = [
            Violation(f"settings.{name}", f"{what} sums the stems as they are: {name} would do nothing")
            for name in ("bypass", "width_cap", "peak_target_dbfs", "intensity")
            if getattr(settings, name) not in (None, ())
        ]
        if ignored:
            raise InvalidInput(ignored[0].description, reason="OPTIONS_CONFLICT", violations=ignored)


def _role(name: str, roles: Mapping[str, str]) -> str:
    given = roles.get(name, "")
    return given if given not in ("", "unspecified") else role_from_name(name)
