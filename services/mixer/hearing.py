"""What the planner hears of a stem over time, beyond its analysis: bands, strokes, sibilants, tails.

Band levels are taken over the whole stem (`masking`). The rest is judged on the loudest excerpts (`listening`), at the
filters that will later act on it: strokes of a kick through the dynamic band that gives way to them, sibilants through
the de-esser's own meter.

A **tail** is told from free decays, as blind estimates of reverberation do (R. Ratnam et al., *Blind estimation of
reverberation time*, JASA 114, 2003): where the level falls steadily, by 12 dB and over 60 ms at least, its slope is a
decay time. Sounds may ring for longer than their room, never shorter: the fastest quarter of all decays bounds it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.de_esser import SibilanceMeter
from outboard.audio.filters import SosFilter, band_pass
from services.mixer.listening import excerpts
from services.mixer.masking import Levels, erb_levels

LOW_HERTZ, HIGH_HERTZ = 40.0, 120.0
"""Where kick and bass meet."""
KICK_HERTZ = math.sqrt(LOW_HERTZ * HIGH_HERTZ)
KICK_Q = KICK_HERTZ / (HIGH_HERTZ - LOW_HERTZ)
SIBILANCE_HERTZ = 5_500.0
"""Corner of the de-esser."""

_STEP_SECONDS = 0.01
# A stroke rises by this much within 30 ms and comes within this of the loudest.
_STROKE_RISE_DB, _STROKE_STEPS = 8.0, 3
_STROKE_WITHIN_DB = 15.0
_STROKE_LASTS_STEPS = 6
# Strokes are told apart from a bass line by standing this far over what lies between them.
_STROKE_STANDS_DB = 6.0
_STROKES_A_SECOND = (0.3, 8.0)
_SILENT_DB = -70.0
# What counts as a sibilant: the loudest moments of the top, this share of the voice's time.
_SIBILANT_SHARE = 0.02
_VOICE_WITHIN_DB = 25.0
_FALL_DB, _FALL_STEPS, _FALL_BUMP_DB = 12.0, 6, 0.5
_FEWEST_FALLS = 4
_TAIL_PERCENTILE = 25.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Strokes:
    """Strokes of a kick at 40 to 120 Hz.

    Attributes:
        level_dbfs: median level of the strokes in that band, RMS over 10 ms.
        gap_dbfs: median level between them.
        per_second: how many there are.
    """

    level_dbfs: float
    gap_dbfs: float
    per_second: float


@dataclass(frozen=True)
class Heard:
    """What is heard of a stem.

    Attributes:
        levels: of the auditory bands, four times a second.
        strokes: of a kick in it; None where there is none.
        sibilance_db: how loud its strongest sibilants are against the voice, at the de-esser's meter; None: silence.
        tail_seconds: the shortest decay to -60 dB that its sounds show: a bound of its reverberation; None: untold.
    """

    levels: Levels
    strokes: Strokes | None = None
    sibilance_db: float | None = None
    tail_seconds: float | None = None


def hear(stem: NDArray[np.float32], sample_rate_hertz: int) -> Heard:
    """Listens to ``stem`` ``(channels, frames)``, which may be a memory map."""
    parts = excerpts(stem, sample_rate_hertz) if stem.shape[1] >= sample_rate_hertz // 2 else []
    return Heard(
        levels=erb_levels(stem, sample_rate_hertz),
        strokes=_strokes(parts, sample_rate_hertz),
        sibilance_db=_sibilance_db(parts, sample_rate_hertz),
        tail_seconds=_tail_seconds(parts, sample_rate_hertz),
    )


def _steps_db(power: Floats, sample_rate_hertz: int) -> Floats:
    """Mean of a power ``(frames,)`` over 10 ms each, in dB."""
    size = int(_STEP_SECONDS * sample_rate_hertz)
    whole = power[: len(power) // size * size].reshape(-1, size).mean(axis=1)
    return np.asarray(10.0 * np.log10(whole + 1e-12), np.float64)


def _power(excerpt: NDArray[np.floating]) -> Floats:
    return np.asarray(np.mean(np.square(excerpt, dtype=np.float64), axis=0))


def _strokes(parts: list[NDArray[np.float32]], sample_rate_hertz: int) -> Strokes | None:
    sos = band_pass(KICK_HERTZ, KICK_Q, sample_rate_hertz)
    found: list[float] = []
    gaps: list[Floats] = []
    seconds = 0.0
    envelopes = [_steps_db(_power(SosFilter(sos, len(part)).process(part)), sample_rate_hertz) for part in parts]
    loudest = max((float(level.max(initial=_SILENT_DB)) for level in envelopes), default=_SILENT_DB)
    for level in envelopes:
        seconds += len(level) * _STEP_SECONDS
        strokes = _starts(level, max(loudest - _STROKE_WITHIN_DB, _SILENT_DB))
        found += [float(level[at : at + _STROKE_LASTS_STEPS].max()) for at in strokes]
        between = np.ones(len(level), bool)
        for at in strokes:
            between[max(0, at - 1) : at + 2 * _STROKE_LASTS_STEPS] = False
        gaps.append(level[between])
    if not found or not _STROKES_A_SECOND[0] <= len(found) / seconds <= _STROKES_A_SECOND[1]:
        return None
    rest = np.concatenate(gaps)
    gap = float(np.median(rest)) if rest.size else _SILENT_DB
    kick = Strokes(float(np.median(found)), gap, len(found) / seconds)
    return kick if kick.level_dbfs - kick.gap_dbfs >= _STROKE_STANDS_DB else None


def _starts(level: Floats, least_db: float) -> list[int]:
    """Where strokes begin, in steps."""
    rise = np.zeros_like(level)
    rise[_STROKE_STEPS:] = level[_STROKE_STEPS:] - level[:-_STROKE_STEPS]
    rising = (rise >= _STROKE_RISE_DB) & (level >= least_db)
    return [int(at) for at in np.flatnonzero(rising & ~np.concatenate([[False], rising[:-1]]))]


def _sibilance_db(parts: list[NDArray[np.float32]], sample_rate_hertz: int) -> float | None:
    ratios, levels = [], []
    for part in parts:
        meter = SibilanceMeter(SIBILANCE_HERTZ, sample_rate_hertz, len(part))
        ratios.append(_steps_db(meter.process(part), sample_rate_hertz))
        levels.append(_steps_db(_power(part), sample_rate_hertz))
    if not ratios:
        return None
    level = np.concatenate(levels)
    sung = level > max(float(np.percentile(level, 95)) - _VOICE_WITHIN_DB, _SILENT_DB)
    return float(np.quantile(np.concatenate(ratios)[sung], 1.0 - _SIBILANT_SHARE)) if sung.any() else None


def _tail_seconds(parts: list[NDArray[np.float32]], sample_rate_hertz: int) -> float | None:
    found: list[float] = []
    for part in parts:
        level = _steps_db(_power(part), sample_rate_hertz)
        smooth = np.convolve(level, np.ones(3) / 3.0, mode="valid") if len(level) > 3 else level
        found += _falls(smooth)
    return float(np.percentile(found, _TAIL_PERCENTILE)) if len(found) >= _FEWEST_FALLS else None


def _falls(level: Floats) -> list[float]:
    """Decay times in seconds of all steady falls."""
    found, start = [], 0
    for at in range(1, len(level) + 1):
        if at < len(level) and level[at] <= level[at - 1] + _FALL_BUMP_DB and level[at] > _SILENT_DB:
            continue
        fall = level[start:at]
        if len(fall) >= _FALL_STEPS and fall[0] - fall[-1] >= _FALL_DB:
            # The start still holds the sound itself.
            rest = fall[fall <= fall[0] - 3.0]
            if len(rest) >= 4:
                slope = float(np.polyfit(np.arange(len(rest)) * _STEP_SECONDS, rest, 1)[0])
                if slope < 0.0:
                    found.append(-60.0 / slope)
        start = at
    return found
