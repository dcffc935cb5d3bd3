"""The engine `bandwidth`: a new top for a stem that was cut off, without weights.

It acts on walls only (`outboard.audio.cutoff`): what faded by itself, what is silent, and what reaches 17.5 kHz is left
alone. In automatic mode the new band is kept 41 dB below a stem that reaches 16 kHz, which is full band to nearly
everyone, and 36 dB below a voice that reaches 10 kHz: a recording of singing that never had more than 11 kHz stays what
it was to within 35 dB. Such recordings are soft at their end; the louder a voice still is at its wall, the surer it was
cut there, and the higher its limit.

Under a limit the loudest moments give way: a cap over the band's power in every 5 ms, which leaves the softer ones
their full top and keeps sibilants from growing. The stem is read three times in fixed cells, so memory does not grow
with it (but for a number per 5 ms) and the result does not depend on how it lay there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio.band_replication import HOPS_PER_CELL, EnvelopeMeter, Replicator, cell_frames
from outboard.audio.cutoff import Cutoff
from outboard.audio.reporting import Progress, part
from outboard.audio.spool import Spool
from services.restorer.cells import padded_part
from services.restorer.voice import VOICES

Audio = NDArray[np.float32]

HIGHEST_WALL_HERTZ = 17_500.0
FULL_BAND_HERTZ = 16_000.0
SOFTEST_WALL_DB = -105.0  # of a sine, per bin: a softer edge is nothing that anyone hears
FULL_BAND_LIMIT_DB = -41.0  # of the new band against the stem, in automatic mode
VOICE_LIMIT_DB = -36.0
VOICE_HERTZ = 10_000.0  # a voice that ends below was cut, whatever it was recorded with
SOFT_EDGE_DB = -48.0  # of a bin below the wall against the voice: up to here it may have been recorded so ...
SURE_DB_PER_DB = 3.0  # ... and by so much the limit rises for every dB more
_SHARES = (0.3, 0.9)  # of the work: after the first pass, after the second
_BISECTIONS = 40
_TINY = 1e-30


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


def plan(role: str, amount: float | None, cutoff: Cutoff | None, power: float) -> BandwidthPlan:
    """How much of a new band a stem gets.

    Args:
        role: what the stem plays, lower case.
        amount: as asked for, 0 to 1; None: what the diagnosis calls for.
        cutoff: the stem's end; None: silence.
        power: mean power of the stem.
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
    if cutoff.hertz >= HIGHEST_WALL_HERTZ:
        return BandwidthPlan(0.0, f"reaches {end}, which is full band")
    if cutoff.level_db < SOFTEST_WALL_DB:
        return BandwidthPlan(0.0, f"cut off at {end}, where nothing is heard any more")
    if amount is not None:
        return BandwidthPlan(amount, f"cut off at {end}", cutoff.hertz)
    limit_db = FULL_BAND_LIMIT_DB if cutoff.hertz >= FULL_BAND_HERTZ else None
    if limit_db is None and role in VOICES and cutoff.hertz >= VOICE_HERTZ:
        edge_db = cutoff.level_db - 10.0 * float(np.log10(power + _TINY))
        limit_db = VOICE_LIMIT_DB + SURE_DB_PER_DB * max(0.0, edge_db - SOFT_EDGE_DB)
    return BandwidthPlan(1.0, f"cut off at {end}", cutoff.hertz, limit_db)


def rendered(
    array: Audio,
    sample_rate_hertz: int,
    how: BandwidthPlan,
    power: float,
    seed: int,
    directory: Path | None,
    progress: Progress,
) -> tuple[Spool, float]:
    """The stem with its new band, and the amount used in the end in the mean over the band's energy, 0 to 1.

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
        powers: list[NDArray[np.float64]] = []
        if envelope is not None:
            replicator = Replicator(envelope, sample_rate_hertz, array.shape[0], seed, how.amount)
            around = replicator.lookaround_frames
            for number, start in enumerate(starts):
                added = replicator.addition(padded_part(array, start - around, size + 2 * around), number)
                added = np.zeros((array.shape[0], size), np.float32) if added is None else added
                powers.append(step_powers(added))
                additions.append(added)
                second((start + size) / array.shape[1])
        return held(array, additions, powers, how, power, size, directory, last)


def held(
    array: Audio,
    additions: Spool,
    powers: list[NDArray[np.float64]],
    how: BandwidthPlan,
    power: float,
    size: int,
    directory: Path | None,
    progress: Progress,
) -> tuple[Spool, float]:
    """The stem and what was made for it, as much of that as the limit allows; and the amount used, 0 to 1.

    Args:
        array: the stem.
        additions: at the plan's amount, at least as long.
        powers: of the additions, by :func:`step_powers` for every cell.
        how: what is done.
        power: mean power of the stem.
        size: frames of a cell.
        directory: for the result.
        progress: called after every cell.
    """
    gains = _gains(np.concatenate([*powers, np.zeros(0)]), how, power)
    used = how.amount * _kept_share(powers, gains)
    return _sum(array, additions, gains, size, directory, progress), used


def step_powers(added: Audio) -> NDArray[np.float64]:
    """Mean power of every step of a cell."""
    squared = np.mean(np.square(added, dtype=np.float64), axis=0)
    return np.asarray(squared.reshape(HOPS_PER_CELL, -1).mean(axis=1))


def _gains(powers: NDArray[np.float64], how: BandwidthPlan, power: float) -> NDArray[np.float64]:
    """A gain per step: what is louder than a cap comes down to it, and the cap is as high as the limit allows."""
    allowed = power * 10.0 ** ((how.limit_db or 0.0) / 10.0)
    if how.limit_db is None or not powers.size or float(np.mean(powers)) <= allowed:
        return np.ones(powers.size)
    # Over the steps around, so that a gain never moves within one.
    around = ndimage.maximum_filter1d(powers, 3, mode="nearest")
    low, high = 0.0, float(np.max(around))
    for _ in range(_BISECTIONS):
        cap = (low + high) / 2.0
        is_too_much = float(np.mean(powers * np.minimum(1.0, cap / np.maximum(around, cap)))) > allowed
        low, high = (low, cap) if is_too_much else (cap, high)
    gains = np.sqrt(np.minimum(1.0, low / np.maximum(around, max(low, _TINY))))
    return np.asarray(ndimage.uniform_filter1d(gains, 3, mode="nearest"))


def _kept_share(powers: list[NDArray[np.float64]], gains: NDArray[np.float64]) -> float:
    """Amplitude that is left of the new band, 0 to 1; of none all."""
    joined = np.concatenate([*powers, np.zeros(0)])
    total = float(np.sum(joined))
    return float(np.sqrt(np.sum(joined * gains**2) / total)) if total > 0.0 else 1.0


def _sum(
    array: Audio,
    additions: Spool,
    gains: NDArray[np.float64],
    size: int,
    directory: Path | None,
    progress: Progress,
) -> Spool:
    result = Spool(array.shape[0], directory)
    try:
        added = additions.array
        middles = (np.arange(gains.size) + 0.5) * (size // HOPS_PER_CELL)
        for start in range(0, array.shape[1], size):
            cell = np.array(array[:, start : start + size], dtype=np.float32)
            if added.shape[1]:
                gain = np.interp(np.arange(start, start + cell.shape[1]), middles, gains).astype(np.float32)
                cell += gain * added[:, start : start + cell.shape[1]]
            result.append(cell)
            progress((start + size) / array.shape[1])
    except BaseException:
        result.close()
        raise
    return result
