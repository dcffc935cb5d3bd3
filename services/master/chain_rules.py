"""What a plan must keep to, whoever wrote it: numbers that render, and the guard-rails of tone and width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from outboard.audio.chain import filter_sections
from outboard.audio.filters import response_db
from outboard.audio.processor_ranges import Ranges, chain_violations, number_violations
from outboard.audio.processors import (
    CurveEqualizer,
    Equalizer,
    Plugin,
    Processor,
    ProcessorKind,
    StereoField,
    StereoWidth,
    member_name,
)
from outboard.errors import Violation

_GRID_HERTZ = np.geomspace(20.0, 20000.0, 200)
_TIME_MS = (0.1, 10_000.0)
_LEVEL_DB = (-300.0, 300.0)  # measured, for reports: finite is all that counts
# Of what a plan holds beside its chain, by class and field.
_RANGES: dict[str, Ranges] = {
    "Limiter": {
        "lookahead_ms": (0.1, 100.0), "release_ms": _TIME_MS, "slow_release_ms": _TIME_MS, "dip_ms": _TIME_MS,
        "hold_ms": (0.0, 1_000.0), "transient_ms": (0.0, 1_000.0), "transient_db": (0.0, 24.0), "dip_share": (0.0, 1.0),
        "stereo_link": (1.0, 1.0),
    },
    "GuardRails": {
        "average_limiting_db": (0.0, 24.0), "side_gain": (0.0, 1.4), "correlation": (-1.0, 1.0),
        "equalizer_db": (0.0, 24.0), "crest_factor_db": (0.0, 40.0),
    },
    "ReferenceMatch": {"intensity": (0.0, 100.0)},
    "MatchBand": {
        "frequency_hertz": (1.0, 96_000.0), "mid_gain_db": (-144.0, 24.0), "side_gain_db": (-144.0, 27.0),
        "before_db": _LEVEL_DB, "target_db": _LEVEL_DB, "after_db": _LEVEL_DB,
    },
    "DynamicsBand": {"low_hertz": (0.0, 96_000.0), "high_hertz": (0.0, 96_000.0), "mean_db": _LEVEL_DB},
    "LevelPoint": {"level_db": _LEVEL_DB, "gain_db": (-24.0, 24.0)},
    "HeardReference": {"integrated_lufs": _LEVEL_DB, "distance": (0.0, 1e6)},
}  # fmt: skip


@dataclass(frozen=True)
class Treatment:
    """What a plan does to tone and width: its highest static lift in dB, and its highest factor on the sides (None: the
    sides are not touched band by band, as in mono).
    """

    lift_db: float
    side_gain: float | None


def treatment(chain: tuple[Processor, ...], sample_rate_hertz: int) -> Treatment:
    """Of a chain's equalisers and of its stereo field."""
    lifts, sides = [0.0], [1.0]
    for processor in chain:
        if processor.bypass:
            continue
        lifts.append(_lift_db(processor.kind, sample_rate_hertz))
        sides.append(_side_gain(processor.kind))
    return Treatment(max(lifts), max(sides))


def _lift_db(kind: ProcessorKind, sample_rate_hertz: int) -> float:
    if isinstance(kind, CurveEqualizer):
        return max(point.gain_db for point in kind.points)
    if isinstance(kind, Equalizer):
        sections = [filter_sections(band, sample_rate_hertz) for band in kind.bands]
        return float(np.max(sum(response_db(section, _GRID_HERTZ, sample_rate_hertz) for section in sections)))
    return 0.0


def _side_gain(kind: ProcessorKind) -> float:
    if isinstance(kind, StereoWidth):
        return kind.side_gain
    if isinstance(kind, StereoField):
        return max((band.side_gain for band in kind.bands), default=0.0)
    return 0.0


def part_violations(part: Any, path: str) -> Iterator[Violation]:
    """Numbers of the limiter, the guard-rails or the match that are out of range."""
    return number_violations(part, path, lambda kind: _RANGES[kind.__name__])


def processor_violations(
    chain: tuple[Processor, ...], equalizer_db: float, side_gain: float, sample_rate_hertz: int
) -> list[Violation]:
    """What is wrong with the chain of a plan; empty where nothing is.

    Args:
        chain: of the plan.
        equalizer_db: highest gain of a static equaliser.
        side_gain: highest factor on the side signal.
        sample_rate_hertz: at which it is rendered.
    """
    wrong = list(chain_violations(chain, "chain", sample_rate_hertz))
    if wrong:
        return wrong
    for index, processor in enumerate(chain):
        kind, path = processor.kind, f"chain[{index}].{member_name(processor.kind)}"
        if isinstance(kind, Plugin):
            wrong.append(Violation(path, "plugins run on the console: a master has none"))
        elif isinstance(kind, CurveEqualizer | Equalizer):
            member = "points" if isinstance(kind, CurveEqualizer) else "bands"
            wrong += _too_high(_lift_db(kind, sample_rate_hertz), equalizer_db, f"{path}.{member}")
        elif isinstance(kind, StereoWidth | StereoField):
            member = "side_gain" if isinstance(kind, StereoWidth) else "bands"
            wrong += _too_wide(_side_gain(kind), side_gain, f"{path}.{member}")
    return wrong


def _too_high(gain_db: float, limit_db: float, path: str) -> list[Violation]:
    if gain_db <= limit_db + 1e-6:
        return []
    return [Violation(path, f"a lift of {gain_db:.1f} dB: the guard-rail allows {limit_db} dB")]


def _too_wide(gain: float, limit: float, path: str) -> list[Violation]:
    return [] if gain <= limit else [Violation(path, f"a side gain of {gain}: the guard-rail allows {limit}")]
