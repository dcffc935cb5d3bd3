"""The engine `bandwidth`: a new top for a stem that was cut off, without weights.

It acts on walls only (`outboard.audio.cutoff`): what faded by itself, what is silent, and what reaches 16 kHz is left
alone. In automatic mode a voice gets at most a band 36 dB below itself: a recording of singing that never had more
than 11 kHz stays what it was to within 35 dB, at the price of a softer top where a codec took a bright one. The stem
is read three times in fixed cells, so memory does not grow with it and the result does not depend on how it lay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.band_replication import EnvelopeMeter, Replicator, cell_frames
from outboard.audio.cutoff import Cutoff
from outboard.audio.reporting import Progress, part
from outboard.audio.spool import Spool
from services.restorer.cells import padded_part
from services.restorer.voice import VOICES

Audio = NDArray[np.float32]

FULL_BAND_HERTZ = 16_000.0
SOFTEST_WALL_DB = -105.0  # of a sine, per bin: a softer edge is nothing that anyone hears
VOICE_LIMIT_DB = -36.0  # of the new band against a voice, in automatic mode
_SHARES = (0.3, 0.9)  # of the work: after the first pass, after the second


@dataclass(frozen=True)
class BandwidthPlan:
    """What is done to a stem.

    Attributes:
        amount: 0 (nothing) to 1, of the new band's amplitude.
        reason: why, in a sentence.
        cutoff_hertz: the wall.
        limit_db: most energy of the new band against the stem's; None: any.
    """

    amount: float
    reason: str
    cutoff_hertz: float = 0.0
    limit_db: float | None = None


def plan(role: str, amount: float | None, cutoff: Cutoff | None) -> BandwidthPlan:
    """How much of a new band a stem gets.

    Args:
        role: what the stem plays, lower case.
        amount: as asked for, 0 to 1; None: what the diagnosis calls for.
        cutoff: the stem's end; None: silence.
    """
    if amount == 0:
        return BandwidthPlan(0.0, "amount 0 was asked for")
    if cutoff is None:
        return BandwidthPlan(0.0, "silence has no band to extend")
    end = f"{cutoff.hertz / 1000.0:.1f} kHz"
    if not cutoff.is_wall:
        return BandwidthPlan(
            0.0, f"fades by {cutoff.slope_db_per_octave:.0f} dB an octave up to {end}: nothing was cut"
        )
    if cutoff.hertz >= FULL_BAND_HERTZ:
        return BandwidthPlan(0.0, f"reaches {end}, which is full band")
    if cutoff.level_db < SOFTEST_WALL_DB:
        return BandwidthPlan(0.0, f"cut off at {end}, where nothing is heard any more")
    limit_db = VOICE_LIMIT_DB if amount is None and role in VOICES else None
    return BandwidthPlan(1.0 if amount is None else amount, f"cut off at {end}", cutoff.hertz, limit_db)


def rendered(
    array: Audio,
    sample_rate_hertz: int,
    how: BandwidthPlan,
    power: float,
    seed: int,
    directory: Path | None,
    progress: Progress,
) -> tuple[Spool, float]:
    """The stem with its new band, and the amount used in the end, 0 to 1.

    Args:
        array: float32 (channels, frames), may be a memory map.
        sample_rate_hertz: of the stem.
        how: what is done.
        power: mean power of the stem.
        seed: of the noise.
        directory: for spools.
        progress: called after every cell; may raise to cancel.

    Raises:
        ResourceExhausted: STORAGE_FULL.
    """
    size = cell_frames(sample_rate_hertz)
    starts = range(0, array.shape[1], size)
    first, second = part(progress, 0.0, _SHARES[0]), part(progress, _SHARES[0], _SHARES[1])
    last = part(progress, _SHARES[1], 1.0)
    meter = EnvelopeMeter(how.cutoff_hertz, sample_rate_hertz, array.shape[0])
    for start in starts:
        meter.add(padded_part(array, start, size))
        first((start + size) / array.shape[1])
    envelope = meter.finish()
    with Spool(array.shape[0], directory) as additions:
        energy = 0.0
        if envelope is not None:
            replicator = Replicator(envelope, sample_rate_hertz, array.shape[0], seed, 1.0)
            around = replicator.lookaround_frames
            for number, start in enumerate(starts):
                added = replicator.addition(padded_part(array, start - around, size + 2 * around), number)
                added = np.zeros((array.shape[0], size), np.float32) if added is None else added
                energy += float(np.sum(np.square(added, dtype=np.float64)))
                additions.append(added)
                second((start + size) / array.shape[1])
        amount = _limited(how, energy / max(1, array.size), power)
        return _sum(array, additions, amount, size, directory, last), amount


def _limited(how: BandwidthPlan, added_power: float, power: float) -> float:
    """The amount at which the new band is as loud as it may be."""
    if how.limit_db is None or added_power <= 0.0:
        return how.amount
    return min(how.amount, float(np.sqrt(power * 10.0 ** (how.limit_db / 10.0) / added_power)))


def _sum(array: Audio, additions: Spool, amount: float, size: int, directory: Path | None, progress: Progress) -> Spool:
    result = Spool(array.shape[0], directory)
    try:
        added = additions.array
        for start in range(0, array.shape[1], size):
            cell = np.array(array[:, start : start + size], dtype=np.float32)
            if added.shape[1]:
                cell += np.float32(amount) * added[:, start : start + cell.shape[1]]
            result.append(cell)
            progress((start + size) / array.shape[1])
    except BaseException:
        result.close()
        raise
    return result
