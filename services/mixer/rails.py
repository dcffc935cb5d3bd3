"""Guard-rails: what a finished mix must hold, and the small corrections that bring it back.

A rail is looked at on the result. What is off is met in steps of 0.5 dB, three at the most; then a warning tells it.
Sides and peaks are met on the finished mix; compression, onsets and faders by rendering the corrected plan again.

    equalizer_gain     furthest gain of any equaliser's band, dB                          at most 4
    gain_reduction     highest average reduction of any processor on a strip or bus, dB   at most 3
    side_gain          highest factor on any side signal                                  at most 1.4
    side_mid_ratio     side over mid of the mix, dB                                       at most -6, or the stems' own
    correlation        of left and right                                                  at least 0.1
    crest_factor       of the mix against the stems' sum at their faders, dB              within 3
    vocal_balance      loudness of voices against music, against the same at the faders   within 1
    peak               highest sample, dBFS                                               at most the plan's target
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from outboard.audio.processors import (
    Compressor,
    CurveEqualizer,
    DeEsser,
    DynamicEqualizer,
    Equalizer,
    Expander,
    MultibandCompressor,
    Processor,
    StereoField,
    StereoWidth,
    TransientShaper,
    Unmasker,
)
from outboard.audio.reporting import Warning
from outboard.audio.stereo import MAX_SIDE_GAIN
from services.mixer.brief import MAX_EQUALIZER_DB
from services.mixer.buses import MUSIC_BUS
from services.mixer.check import MIX_NAME
from services.mixer.console import GuardRail, MixPlan, StripReport

STEP_DB = 0.5
MOST_ROUNDS = 3
MAX_REDUCTION_DB = 3.0
MAX_SIDE_MID_DB = -6.0
MIN_CORRELATION = 0.1
MAX_CREST_CHANGE_DB = 3.0
MAX_BALANCE_CHANGE_DB = 1.0
# What rounding and meters may add.
_SLACK_DB = 0.02


@dataclass(frozen=True)
class Result:
    """What was measured on a rendered plan; None where it cannot be told.

    Attributes:
        parts: what strips and buses did.
        crest_change_db: crest factor of the mix less that of the stems' sum.
        balance_change_db: loudness of voices over music less the same of the stems.
    """

    parts: tuple[StripReport, ...]
    crest_change_db: float | None
    balance_change_db: float | None


def reductions_db(plan: MixPlan, result: Result) -> list[tuple[str, str, float]]:
    """Part, label and average reduction in dB of every processor that moves the whole of its signal.

    Gates are there to reduce; what a dynamic equaliser or an unmasker cuts in a band is judged as an equaliser's gain.
    """
    others = (Expander, DynamicEqualizer, DeEsser, Unmasker)
    beside = {(name, one.label) for name, one in _placed(plan) if isinstance(one.kind, others)}
    return [
        (part.name, one.label, -one.average_gain_db)
        for part in result.parts
        for one in part.processors
        if one.average_gain_db is not None and (part.name, one.label) not in beside
    ]


def _pressed(plan: MixPlan, result: Result) -> list[tuple[str, str, float]]:
    return [one for one in reductions_db(plan, result) if one[2] > MAX_REDUCTION_DB + _SLACK_DB]


def corrected(plan: MixPlan, result: Result) -> MixPlan | None:
    """The plan after one step of whatever is off; None where nothing is, or nothing can be done."""
    high = {(part, label) for part, label, _ in _pressed(plan, result)}
    changed = _with_processors(plan, lambda name, one: _eased(one) if (name, one.label) in high else one)
    crest = result.crest_change_db
    if crest is not None and abs(crest) > MAX_CREST_CHANGE_DB + _SLACK_DB:
        ease = _eased if crest < 0.0 else _calmed
        shared = {MIX_NAME, *(bus.name for bus in plan.buses)}
        changed = _with_processors(changed, lambda name, one: ease(one) if name in shared or crest > 0.0 else one)
    balance = result.balance_change_db
    if balance is not None and abs(balance) > MAX_BALANCE_CHANGE_DB + _SLACK_DB:
        step = STEP_DB if balance > 0.0 else -STEP_DB
        buses = tuple(replace(b, gain_db=b.gain_db + step) if b.name == MUSIC_BUS else b for b in changed.buses)
        changed = replace(changed, buses=buses)
    return None if changed == plan else changed


def side_steps(side_mid_ratio_db: float, limit_db: float) -> int:
    """Steps by which the sides go down, three at the most, to hold their ratio and the correlation."""
    for steps in range(MOST_ROUNDS):
        if _sides_hold(side_mid_ratio_db - steps * STEP_DB, limit_db):
            return steps
    return MOST_ROUNDS


def side_limit_db(source_ratio_db: float | None) -> float:
    """What the mix's side over mid may be: -6 dB where the stems were wider than that, else it is not judged."""
    return MAX_SIDE_MID_DB if source_ratio_db is not None and source_ratio_db > MAX_SIDE_MID_DB else 0.0


def _sides_hold(ratio_db: float, limit_db: float) -> bool:
    power = 10.0 ** (ratio_db / 10.0)
    return ratio_db <= limit_db + _SLACK_DB and (1.0 - power) / (1.0 + power) >= MIN_CORRELATION


def judged(
    plan: MixPlan,
    result: Result,
    *,
    side_mid_ratio_db: float | None,
    side_limit: float,
    correlation: float | None,
    peak_dbfs: float | None,
    rounds: int,
    side_rounds: int,
) -> tuple[GuardRail, ...]:
    """Every rail that can be told, with its value, its limit and the rounds that it took."""
    reductions = [reduction for _, _, reduction in reductions_db(plan, result)]
    rails: list[GuardRail] = [
        _rail("equalizer_gain", max(_equalizer_gains_db(plan), default=0.0), MAX_EQUALIZER_DB, "dB"),
        _rail("gain_reduction", max(reductions, default=0.0), MAX_REDUCTION_DB, "dB", rounds),
        _rail("side_gain", max(_side_gains(plan), default=1.0), MAX_SIDE_GAIN, ""),
    ]
    if side_mid_ratio_db is not None:
        rails.append(_rail("side_mid_ratio", side_mid_ratio_db, side_limit, "dB", side_rounds))
    if correlation is not None:
        held = correlation >= MIN_CORRELATION - 0.002
        rails.append(GuardRail("correlation", correlation, MIN_CORRELATION, "", held, side_rounds))
    if result.crest_change_db is not None:
        held = abs(result.crest_change_db) <= MAX_CREST_CHANGE_DB + _SLACK_DB
        rails.append(GuardRail("crest_factor", result.crest_change_db, MAX_CREST_CHANGE_DB, "dB", held, rounds))
    if result.balance_change_db is not None:
        held = abs(result.balance_change_db) <= MAX_BALANCE_CHANGE_DB + _SLACK_DB
        rails.append(GuardRail("vocal_balance", result.balance_change_db, MAX_BALANCE_CHANGE_DB, "dB", held, rounds))
    if peak_dbfs is not None and plan.peak_target_dbfs is not None:
        rails.append(_rail("peak", peak_dbfs, plan.peak_target_dbfs, "dBFS"))
    return tuple(rails)


def warnings(plan: MixPlan, rails: tuple[GuardRail, ...], result: Result, *, as_given: bool = False) -> list[Warning]:
    """One for each rail that does not hold; of reductions, one for each processor.

    Args:
        as_given: the plan is somebody's own, which was not corrected: that is said.
    """
    left = ": the plan was given and is rendered as it is" if as_given else ""
    told = [
        Warning("GAIN_REDUCTION_HIGH", f"{label} on {part} turns down by {reduction:.1f} dB on average{left}", part)
        for part, label, reduction in _pressed(plan, result)
    ]
    for rail in rails:
        if not rail.held and rail.name != "gain_reduction":
            text = f"{rail.name} is {rail.value:.2f} {rail.unit}".rstrip() + f", its limit is {rail.limit:g}{left}"
            told.append(Warning(_CODES.get(rail.name, "GUARD_RAIL_MISSED"), text))
    return told


_CODES = {"correlation": "LOW_CORRELATION"}


def _rail(name: str, value: float, limit: float, unit: str, rounds: int = 0) -> GuardRail:
    return GuardRail(name, value, limit, unit, value <= limit + _SLACK_DB, rounds)


def vocal_balance_change_db(
    vocals: tuple[float | None, float | None], music: tuple[float | None, float | None]
) -> float | None:
    """From loudness before and after of both: how far the voices moved against the music."""
    if None in (*vocals, *music):
        return None
    (a, b), (c, d) = vocals, music
    assert a is not None
    assert b is not None
    assert c is not None
    assert d is not None
    return (b - d) - (a - c)


def _with_processors(plan: MixPlan, change: Callable[[str, Processor], Processor]) -> MixPlan:
    return replace(
        plan,
        strips=tuple(replace(s, chain=tuple(change(s.stem, one) for one in s.chain)) for s in plan.strips),
        buses=tuple(replace(b, chain=tuple(change(b.name, one) for one in b.chain)) for b in plan.buses),
        master_chain=tuple(change(MIX_NAME, one) for one in plan.master_chain),
    )


def _eased(processor: Processor) -> Processor:
    """A step less of turning down."""
    kind = processor.kind
    if isinstance(kind, Compressor) and kind.ratio > 1.0:
        return replace(processor, kind=replace(kind, threshold_db=kind.threshold_db + STEP_DB))
    if isinstance(kind, MultibandCompressor):
        eased = tuple(
            replace(b, compressor=replace(b.compressor, threshold_db=b.compressor.threshold_db + STEP_DB))
            for b in kind.bands
        )
        return replace(processor, kind=replace(kind, bands=eased))
    return processor


def _calmed(processor: Processor) -> Processor:
    """A step less of lifting."""
    kind = processor.kind
    if isinstance(kind, TransientShaper) and kind.attack_db > 0.0:
        return replace(processor, kind=replace(kind, attack_db=max(0.0, kind.attack_db - STEP_DB)))
    if isinstance(kind, Compressor) and kind.ratio < 1.0:
        return replace(processor, kind=replace(kind, range_db=max(0.0, kind.range_db - STEP_DB)))
    return processor


def _placed(plan: MixPlan) -> Iterator[tuple[str, Processor]]:
    """What is in the path, with the name of its strip or bus."""
    parts = [(s.stem, s.chain) for s in plan.strips] + [(b.name, b.chain) for b in plan.buses]
    for name, chain in (*parts, (MIX_NAME, plan.master_chain)):
        yield from ((name, one) for one in chain if not one.bypass)


def _equalizer_gains_db(plan: MixPlan) -> Iterator[float]:
    for _, processor in _placed(plan):
        kind = processor.kind
        if isinstance(kind, Equalizer):
            yield from (abs(b.gain_db) for b in kind.bands if b.shape in ("peak", "low_shelf", "high_shelf"))
        elif isinstance(kind, DynamicEqualizer):
            yield from (abs(b.range_db) for b in kind.bands)
        elif isinstance(kind, DeEsser | Unmasker):
            yield abs(kind.range_db)
        elif isinstance(kind, CurveEqualizer):
            yield from (abs(point.gain_db) for point in kind.points)


def _side_gains(plan: MixPlan) -> Iterator[float]:
    for _, processor in _placed(plan):
        kind = processor.kind
        if isinstance(kind, StereoWidth):
            yield kind.side_gain
        elif isinstance(kind, StereoField):
            yield from (band.side_gain for band in kind.bands)
