"""All cues of a batch of steps, in two looks: the near one needs only the neighbouring batches, the wide one several
seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outboard.audio.overlap_add import Spectra
from services.separator.spectral import bands, low, percussion, repetition, stereo, voice
from services.separator.spectral.grid import BATCH_STEPS, Grid
from services.separator.spectral.medians import Plane

# What each cue says stands in the module that measures it; the order is that of the table of weights.
CUES = (
    "percussiveness", "steadiness", "strike", "centre", "distance", "novelty", "local_stroke", "stroke",
    "peakedness", "comb", "voiced", "activity", "recurrence", "level",
    "low_percussiveness", "low_steadiness", "low_novelty", "low_stroke", "low_attack",
)  # fmt: skip
# Width of the "local" stroke, in octaves, and the range over which strokes count as one.
LOCAL_OCTAVES = 1.5
STROKE_HERTZ = (300.0, 12_000.0)


@dataclass(frozen=True)
class Batch:
    """Spectra of one batch: (64, channels, bins) complex, and powers over all channels at three resolutions."""

    spectra: Spectra
    power: Plane
    long_power: Plane
    short_power: Plane


@dataclass(frozen=True)
class Look:
    """A batch with what its neighbours tell about it; all planes (64, bins) but where said.

    Attributes:
        saliences: of pitches, (64, pitches).
        activity: share of what may be a voice, (64,).
        fingerprint: band powers, (64, bands).
    """

    batch: Batch
    percussiveness: Plane
    steadiness: Plane
    strike: Plane
    saliences: Plane
    activity: Plane
    fingerprint: Plane


def look_near(batches: Sequence[Batch], index: int, grid: Grid) -> Look:
    """Measures batch ``index`` with its direct neighbours as context."""
    here = batches[index]
    first = index * BATCH_STEPS
    power = _joined([batch.power for batch in batches]) + bands.POWER_FLOOR
    long_power = _joined([batch.long_power for batch in batches]) + bands.POWER_FLOOR
    short_power = _joined([batch.short_power for batch in batches]) + bands.POWER_FLOOR
    percussiveness = percussion.percussiveness(power, first, BATCH_STEPS, grid)
    steadiness = percussion.steadiness(long_power, first, BATCH_STEPS, grid)
    strike = percussion.strike(short_power, first, BATCH_STEPS, grid)
    own = power[first : first + BATCH_STEPS]
    maybe_voice = voice.candidate(own, steadiness, percussiveness, strike)
    return Look(
        batch=here,
        percussiveness=percussiveness,
        steadiness=steadiness,
        strike=strike,
        saliences=voice.salience(maybe_voice, grid),
        activity=voice.activity(maybe_voice, own, grid),
        fingerprint=repetition.fingerprint(own),
    )


def measure(looks: Sequence[Look], index: int, grid: Grid) -> Plane:
    """All cues of batch ``index``, with several seconds of context.

    Returns:
        (len(CUES), 64, bins), each within about -1.5..1.5.
    """
    here = looks[index]
    first = index * BATCH_STEPS
    power = _joined([look.batch.power for look in looks]) + bands.POWER_FLOOR
    own = power[first : first + BATCH_STEPS]
    magnitude = np.sqrt(own)
    centre, distance = _position(looks, index)
    pitch, strength = voice.follow(_joined([look.saliences for look in looks]))
    steps = slice(first, first + BATCH_STEPS)
    novelty = repetition.novelty(own, power)
    stroke = _whole_stroke(here.strike, magnitude, grid)[:, None]
    below = low.low_weight(grid)
    columns = {
        "percussiveness": here.percussiveness,
        "steadiness": here.steadiness,
        "strike": here.strike,
        "centre": centre,
        "distance": distance,
        "novelty": novelty,
        "local_stroke": bands.interval_mean(here.strike, magnitude, LOCAL_OCTAVES),
        "stroke": stroke,
        "peakedness": bands.peakedness(own),
        "comb": voice.comb(pitch[steps], strength[steps], grid),
        "voiced": strength[steps, None],
        "activity": here.activity[:, None],
        "recurrence": repetition.recurrence(
            power, _joined([look.fingerprint for look in looks]), first, BATCH_STEPS, grid
        ),
        "level": bands.relative_level(own, np.mean(power, axis=0, keepdims=True)),
        "low_percussiveness": here.percussiveness * below,
        "low_steadiness": here.steadiness * below,
        "low_novelty": novelty * below,
        "low_stroke": stroke * below,
        "low_attack": low.attack(low.low_level(power, grid), grid)[steps] * below,
    }
    cues = np.empty((len(CUES), BATCH_STEPS, grid.bins), np.float32)
    for place, name in enumerate(CUES):
        cues[place] = columns[name]
    return cues


def _position(looks: Sequence[Look], index: int) -> tuple[Plane, Plane]:
    """Stereo position with one step of context on each side where there is one."""
    spectra = looks[index].batch.spectra
    before = looks[index - 1].batch.spectra[-1:] if index else spectra[:0]
    after = looks[index + 1].batch.spectra[:1] if index + 1 < len(looks) else spectra[:0]
    centre, distance = stereo.position(np.concatenate([before, spectra, after]))
    steps = slice(len(before), len(before) + BATCH_STEPS)
    return centre[steps], distance[steps]


def _whole_stroke(strike: Plane, magnitude: Plane, grid: Grid) -> Plane:
    """Mean strike over the range that drums share, weighted by magnitude; (steps,)."""
    within = ((grid.hertz > STROKE_HERTZ[0]) & (grid.hertz < STROKE_HERTZ[1])).astype(np.float32)
    weight = magnitude * within
    return np.asarray(np.sum(strike * weight, axis=1) / (np.sum(weight, axis=1) + 1e-20), dtype=np.float32)


def _joined(planes: Sequence[Plane]) -> Plane:
    return np.concatenate(planes, axis=0)
