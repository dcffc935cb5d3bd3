"""What a chain must keep to, whoever wrote it: numbers that render, and the guard-rails of tone and width."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from outboard.audio.chain import Chain, filter_sections
from outboard.audio.filters import response_db
from outboard.audio.processors import Equalizer, LinearPhaseEqualizer, Processor, StereoField, StereoWidth
from outboard.errors import Violation

_RATE_HERTZ = 48000  # numbers that render at this rate render at every one
_FEWEST_TAPS, _MOST_TAPS = 63, 65535
_GRID_HERTZ = np.geomspace(20.0, 20000.0, 200)


def processor_violations(processor: Processor, equalizer_db: float, side_gain: float, path: str) -> list[Violation]:
    """What is wrong with one slot of a plan's chain; empty where nothing is.

    Args:
        processor: the slot.
        equalizer_db: highest gain of a static equaliser.
        side_gain: highest factor on the side signal.
        path: of the slot in the plan.
    """
    kind = processor.kind
    if isinstance(kind, LinearPhaseEqualizer):
        wrong = _curve_violations(kind, equalizer_db, path)
    elif isinstance(kind, Equalizer):
        lift = sum(response_db(filter_sections(band, _RATE_HERTZ), _GRID_HERTZ, _RATE_HERTZ) for band in kind.bands)
        wrong = _too_high(float(np.max(lift)), equalizer_db, f"{path}.bands")
    elif isinstance(kind, StereoWidth):
        wrong = _too_wide(kind.side_gain, side_gain, f"{path}.side_gain")
    elif isinstance(kind, StereoField):
        wrong = _too_wide(max((band.side_gain for band in kind.bands), default=0.0), side_gain, f"{path}.bands")
    else:
        wrong = []
    return wrong or _unrenderable(processor, path)


def _curve_violations(kind: LinearPhaseEqualizer, equalizer_db: float, path: str) -> list[Violation]:
    hertz = [point.frequency_hertz for point in kind.points]
    if not hertz or hertz[0] <= 0.0 or any(high <= low for low, high in pairwise(hertz)):
        return [Violation(f"{path}.points", "an equaliser needs points of rising frequency above 0 Hz")]
    if kind.taps % 2 == 0 or not _FEWEST_TAPS <= kind.taps <= _MOST_TAPS:
        return [Violation(f"{path}.taps", f"{kind.taps} is not an odd number from {_FEWEST_TAPS} to {_MOST_TAPS}")]
    return _too_high(max(point.gain_db for point in kind.points), equalizer_db, f"{path}.points")


def _too_high(gain_db: float, limit_db: float, path: str) -> list[Violation]:
    if gain_db <= limit_db + 1e-6:
        return []
    return [Violation(path, f"a lift of {gain_db:.1f} dB: the guard-rail allows {limit_db} dB")]


def _too_wide(gain: float, limit: float, path: str) -> list[Violation]:
    return [] if gain <= limit else [Violation(path, f"a side gain of {gain}: the guard-rail allows {limit}")]


def _unrenderable(processor: Processor, path: str) -> list[Violation]:
    try:
        chain = Chain((processor,), _RATE_HERTZ)
    except ValueError as error:
        return [Violation(path, str(error))]
    if chain.key_names:
        return [Violation(path, "a master has no strips that could drive a sidechain")]
    return []
