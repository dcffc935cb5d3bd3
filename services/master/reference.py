"""The reference intent: a mix becomes like one or several finished songs.

    references ─► heard (measured, refused where they cannot serve) ─► averaged, or the nearest ─┐
    mix ─► measured ─────────────────────────────────────────────────► fitted ─► rendered, unlimited

The engine `match` is our own (`reference_fit`, `reference_render`): two passes over mapped arrays, flat memory, any
length. The engine `matchering` is the library of that name (`reference_matchering`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reference_fitness import SHORTEST_SECONDS, unfit
from outboard.audio.reporting import part
from outboard.audio.song_profile import SongProfile, embedding_distance, measure_profile, splits_for
from outboard.audio.spool import Spool, blocks
from outboard.errors import InvalidInput
from services.master.chain_rules import Treatment
from services.master.limits import for_known_target, rails_note
from services.master.reference_fit import average, fit
from services.master.reference_matchering import match_by_matchering
from services.master.reference_rails import bounded
from services.master.reference_render import render_match
from services.master.settings import (
    ENGINE_MATCHERING,
    HIGHEST_TARGET_LUFS,
    LOWEST_TARGET_LUFS,
    REFERENCE_ENGINES,
    HeardReference,
    MasterPlan,
    ReferenceMatch,
)

Array = NDArray[np.float32]
Progress = Callable[[float], None]
SpoolFactory = Callable[[int], Spool]

_SMALLEST_DIFFERENCE = 1e-6
_SAME_DISTANCE, _SAME_SECONDS = 0.05, 0.1  # the same recording in another file: coded again, or at another level
_SAME_SPECTRUM_DB = 0.01


@dataclass(frozen=True)
class Reference:
    """A song to be like: float32 (channels, frames), may be mapped."""

    name: str
    array: Array
    sample_rate_hertz: int


@dataclass(frozen=True)
class Followed:
    """The matched mix, unlimited, the plan with all that was decided for it, and what it does to tone and width."""

    array: Array
    plan: MasterPlan
    treatment: Treatment = field(default_factory=lambda: Treatment(0.0, None))


def follow(
    array: Array,
    sample_rate_hertz: int,
    plan: MasterPlan,
    references: Sequence[Reference],
    spool_factory: SpoolFactory,
    progress: Progress,
) -> Followed:
    """Matches a mix to references, or renders the match that the plan already holds.

    Args:
        array: the mix, (1 or 2, frames), may be mapped.
        sample_rate_hertz: of it.
        plan: of an engine that serves references. Its `target_lufs` is kept where it is set.
        references: at least one, unless the plan's match has its bands.
        spool_factory: makes an empty spool of that many channels.
        progress: told the fraction done; may raise.

    Raises:
        InvalidInput: REFERENCE_UNSUITABLE: none, shorter than 5 s, silent, speech, or the mix itself;
            AUDIO_TOO_MANY_CHANNELS; AUDIO_NOT_FINITE.
    """
    with spool_factory(len(splits_for(sample_rate_hertz)) + 1) as levels:
        if _is_decided(plan):
            measure_profile(array, sample_rate_hertz, levels, part(progress, 0.0, 0.7))
        else:
            found = _found(array, sample_rate_hertz, plan, references, levels, part(progress, 0.0, 0.7))
            plan = found.plan
            if found.mix is None:
                return Followed(array, plan)
            if plan.engine == ENGINE_MATCHERING:
                matched = match_by_matchering(array, sample_rate_hertz, references, spool_factory)
                kept = bounded(
                    found.mix, matched, sample_rate_hertz, plan.guard_rails, spool_factory, part(progress, 0.7, 1.0)
                )
                return Followed(kept.array, replace(plan, notes=(*plan.notes, kept.note)), kept.treatment)
        return _rendered(array, sample_rate_hertz, plan, levels.array, spool_factory, part(progress, 0.7, 1.0))


def decide(
    array: Array,
    sample_rate_hertz: int,
    plan: MasterPlan,
    references: Sequence[Reference],
    spool_factory: SpoolFactory,
    progress: Progress,
) -> MasterPlan:
    """The plan with all that its references decide, and nothing rendered; arguments and errors are those of `follow`.

    A plan of an engine that follows no references, or whose match has its bands, is returned as it is.
    """
    if plan.engine not in REFERENCE_ENGINES or _is_decided(plan):
        return plan
    with spool_factory(len(splits_for(sample_rate_hertz)) + 1) as levels:
        return _found(array, sample_rate_hertz, plan, references, levels, progress).plan


@dataclass(frozen=True)
class _Found:
    """What references decided: the plan, and the mix as it was heard; None where it is not matched at all."""

    plan: MasterPlan
    mix: SongProfile | None = None


def _is_decided(plan: MasterPlan) -> bool:
    return plan.engine != ENGINE_MATCHERING and plan.match is not None and bool(plan.match.bands)


def _found(
    array: Array, rate: int, plan: MasterPlan, references: Sequence[Reference], levels: Spool, progress: Progress
) -> _Found:
    """Hears references and mix, and decides; `levels` receives the mix's, for what renders."""
    check_references(references, array, rate)
    share = 0.6 / len(references)
    named = [
        (reference.name, _heard(reference, part(progress, index * share, (index + 1) * share)))
        for index, reference in enumerate(references)
    ]
    mix = measure_profile(array, rate, levels, part(progress, 0.6, 1.0))
    if mix.lufs is None or mix.seconds < SHORTEST_SECONDS:
        return _Found(_unmatched(mix, plan, named))
    distances = _distances(mix, named)
    if plan.engine == ENGINE_MATCHERING:
        return _Found(_with_target(plan, average([profile for _, profile in named]).lufs), mix)
    return _Found(_fitted(mix, rate, plan, named, distances), mix)


def check_references(references: Sequence[Reference], mix: Array, sample_rate_hertz: int) -> None:
    """Refuses what can be seen without listening: none, too short, too many channels, the mix itself."""
    if not references:
        raise _unsuitable("the reference intent needs a reference song")
    for reference in references:
        channels, frames = reference.array.shape
        if channels not in (1, 2):
            message = f"reference {reference.name!r} has {channels} channels: 1 or 2 are understood"
            raise InvalidInput(message, field="references", reason="AUDIO_TOO_MANY_CHANNELS")
        if frames < SHORTEST_SECONDS * reference.sample_rate_hertz:
            raise _unsuitable(f"reference {reference.name!r} is shorter than {SHORTEST_SECONDS:.0f} s")
        alike = reference.array.shape == mix.shape and reference.sample_rate_hertz == sample_rate_hertz
        if alike and _same(reference.array, mix):
            raise _unsuitable(f"reference {reference.name!r} is the mix itself")


def _heard(reference: Reference, progress: Progress) -> SongProfile:
    profile = measure_profile(reference.array, reference.sample_rate_hertz, progress=progress)
    if why := unfit(profile):
        raise _unsuitable(f"reference {reference.name!r} is {why}")
    return profile


def _rendered(
    array: Array, rate: int, plan: MasterPlan, levels: Array, spool_factory: SpoolFactory, progress: Progress
) -> Followed:
    """The own engine's match, over the mix and its measured levels."""
    if plan.match is None or not plan.match.bands:
        return Followed(array, plan)
    with spool_factory(array.shape[0]) as spool:
        render_match(array, rate, plan.match, levels, spool, progress)
        return Followed(spool.array, plan, _treatment(plan.match, stereo=array.shape[0] == 2))


def _treatment(found: ReferenceMatch, *, stereo: bool) -> Treatment:
    lift = max(max(band.mid_gain_db, band.side_gain_db if stereo else 0.0) for band in found.bands)
    wider = max(band.side_gain_db - band.mid_gain_db for band in found.bands)
    return Treatment(max(lift, 0.0), 10.0 ** (wider / 20.0) if stereo else None)


def _unmatched(mix: SongProfile, plan: MasterPlan, named: Sequence[tuple[str, SongProfile]]) -> MasterPlan:
    """The plan for a mix that tells nothing of a song: its loudness alone is brought to the references'."""
    note = f"The mix is silent or shorter than {SHORTEST_SECONDS:.0f} s: it was not matched to the reference."
    target = None
    if mix.lufs is not None:
        share = (plan.match or ReferenceMatch()).intensity / 100.0
        goal_lufs = float(np.mean([profile.lufs for _, profile in named]))
        target = mix.lufs + share * (goal_lufs - mix.lufs)
    return _with_target(replace(plan, notes=(*plan.notes, note)), target)


def _distances(mix: SongProfile, named: Sequence[tuple[str, SongProfile]]) -> list[float]:
    """How far each reference's sound is from the mix's; the same recording in another file is refused."""
    distances = [embedding_distance(mix, profile) for _, profile in named]
    for (name, profile), distance in zip(named, distances, strict=True):
        alike = distance < _SAME_DISTANCE or _same_spectrum(mix, profile)
        if alike and abs(profile.seconds - mix.seconds) < _SAME_SECONDS:
            raise _unsuitable(f"reference {name!r} is the mix itself in another file")
    return distances


def _same_spectrum(one: SongProfile, other: SongProfile) -> bool:
    """Whether spectrum and width agree as only those of one recording do: level quantiles of faint bands do not when it
    comes at another level.
    """
    differences = (one.mid_db - other.mid_db, one.width_db - other.width_db)
    return all(float(np.abs(difference).max()) < _SAME_SPECTRUM_DB for difference in differences)


def _fitted(
    mix: SongProfile,
    rate: int,
    plan: MasterPlan,
    named: Sequence[tuple[str, SongProfile]],
    distances: Sequence[float],
) -> MasterPlan:
    """The plan with the numbers of the match, its loudness, and a sentence for each decision."""
    asked = plan.match or ReferenceMatch()
    nearest = int(np.argmin(distances))
    followed = [index for index in range(len(named)) if not asked.nearest or index == nearest]
    goal = average([named[index][1] for index in followed])
    share, rails = asked.intensity / 100.0, plan.guard_rails
    found = fit(
        mix, goal, rate, intensity=share, equalizer_limit_db=rails.equalizer_db, side_gain_limit=rails.side_gain,
        lowest_correlation=rails.correlation,
    )  # fmt: skip
    told = tuple(
        HeardReference(name, profile.lufs, distances[index], index in followed)
        for index, (name, profile) in enumerate(named)
    )
    target = None if goal.lufs is None or mix.lufs is None else mix.lufs + share * (goal.lufs - mix.lufs)
    found = replace(found, intensity=asked.intensity, nearest=asked.nearest, references=told)
    return _with_target(replace(plan, match=found, notes=plan.notes + _sentences(found, mix, goal)), target)


def _sentences(found: ReferenceMatch, mix: SongProfile, goal: SongProfile) -> tuple[str, ...]:
    names = [f"{reference.name} ({reference.distance:.2f})" for reference in found.references if reference.followed]
    how = "the nearest of those given" if found.nearest else "averaged" if len(names) > 1 else "the only one"
    highest = max(found.bands, key=lambda band: band.mid_gain_db)
    lowest = min(found.bands, key=lambda band: band.mid_gain_db)
    sentences = [
        f"Followed at {found.intensity:.0f} %: {', '.join(names)}, {how}; the figure is the distance of sound.",
        f"The spectrum is matched by {lowest.mid_gain_db:+.1f} dB (at {lowest.frequency_hertz:.0f} Hz) to "
        f"{highest.mid_gain_db:+.1f} dB (at {highest.frequency_hertz:.0f} Hz) on the mid signal.",
    ]
    if mix.is_stereo and goal.is_stereo:
        wider = float(np.mean([band.side_gain_db - band.mid_gain_db for band in found.bands]))
        sentences.append(f"The sides are moved by {wider:+.1f} dB against the middle, on average over the bands.")
    else:
        sentences.append("Width is left alone: the mix or the reference is mono.")
    moved = [point.gain_db for band in found.dynamics for point in band.points]
    if moved and max(map(abs, moved)) > 0.1:
        sentences.append(f"Levels within the bands are moved by {min(moved):+.1f} to {max(moved):+.1f} dB.")
    return tuple(sentences)


def _with_target(plan: MasterPlan, lufs: float | None) -> MasterPlan:
    """The references' loudness is the target, unless the plan has one; a silent mix keeps none."""
    if plan.target_lufs is not None or lufs is None:
        return plan
    target = min(max(lufs, LOWEST_TARGET_LUFS), HIGHEST_TARGET_LUFS)
    note = f"Loudness is brought to {target:.1f} LUFS, after the reference."
    rails = for_known_target(plan.guard_rails, target)
    notes = (*plan.notes, note, rails_note(target, rails))
    return replace(plan, target_lufs=target, guard_rails=rails, notes=notes)


def _same(one: Array, other: Array) -> bool:
    pairs = zip(blocks(one), blocks(other), strict=True)
    return all(float(np.abs(a - b).max(initial=0.0)) < _SMALLEST_DIFFERENCE for a, b in pairs)


def _unsuitable(message: str) -> InvalidInput:
    return InvalidInput(message, field="references", reason="REFERENCE_UNSUITABLE")
