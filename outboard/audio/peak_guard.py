"""The last word on a ceiling: measures with all three meters of the audio contract, and dips the gain where one of them
reads over.

True-peak meters differ by up to 2 dB on hostile signals, because each interpolates differently; a limiter that watches
one of them says nothing about the others. What is guarded here is the maximum of

1. soxr at its "VHQ" setting, 16 times the rate;
2. a Kaiser-windowed sinc, 8 times the rate, 64 taps per phase (`peak_envelope`);
3. the filter printed in ITU-R BS.1770-4 Annex 2, 4 times the rate, 12 taps per phase.

The offending moments are few and short, so dips of a few milliseconds mend them at a cost in loudness that cannot be
measured, where lowering everything would cost up to 2 LU. A dip changes what the interpolators see around it, so
measuring and dipping repeat until all three meters agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import soxr
from numba import njit
from numpy.typing import NDArray

from outboard.audio.peak_envelope import (
    STEP_FRAMES,
    TAPS_PER_PHASE,
    kaiser_phases,
    read_padded,
    step_count,
    step_peaks,
)
from outboard.audio.spool import Spool
from outboard.audio.true_peak import ANNEX_2

DIP_MS = 3.0
"""Length of the shortest dip: short enough to go unheard, long enough not to click."""

_SOXR_FACTOR = 16
_SOXR_CONTEXT_FRAMES = 1024  # longer than the resampler's impulse response
_BLOCK_FRAMES = 16384
_METER_SPREAD_DB = 3.0  # no meter reads further than this above another (2 dB is the most that was ever seen)
_DIP_MARGIN_DB = 0.01
_ANNEX_2_PHASES = np.ascontiguousarray(ANNEX_2[:, ::-1], dtype=np.float32)  # here taps run with time, not against it


@dataclass(frozen=True)
class PeakReading:
    """What the three meters say of a signal.

    Attributes:
        envelope: (1, steps) float32 linear, the highest reading of each control step (the 16-fold meter is left out
            where it cannot matter).
        true_peak_dbtp: the highest of all; None for digital silence.
    """

    envelope: NDArray[np.float32]
    true_peak_dbtp: float | None


def read_peaks(
    array: NDArray[np.floating],
    sample_rate_hertz: int,
    ceiling_dbtp: float,
    spool_factory: Callable[[int], Spool],
    progress: Callable[[float], None] | None = None,
) -> PeakReading:
    """Measures a signal with all three meters.

    The two cheap meters read everything. The 16-fold one reads only blocks where they come within 3 dB of the ceiling,
    or of the highest peak if that is lower: nowhere else can it find the maximum or an offence.

    Args:
        array: (channels, frames), may be mapped.
        sample_rate_hertz: of the audio.
        ceiling_dbtp: the level that matters.
        spool_factory: makes an empty spool of that many channels.
        progress: called with the fraction done, once a block.
    """
    frames = array.shape[1]
    with spool_factory(1) as coarse:
        block_peaks: list[float] = []
        for start in range(0, frames, _BLOCK_FRAMES):
            steps = _cheap_steps(array, start, min(_BLOCK_FRAMES, frames - start))
            coarse.append(steps[None, :])
            block_peaks.append(float(steps.max()))
            if progress is not None:
                progress(0.4 * min(1.0, (start + _BLOCK_FRAMES) / frames))
        level = min(10.0 ** (ceiling_dbtp / 20.0), max(block_peaks, default=0.0))
        threshold = level * 10.0 ** (-_METER_SPREAD_DB / 20.0)
        hot = [peak > 0.0 and peak >= threshold for peak in block_peaks]
        with spool_factory(1) as fine:
            highest = 0.0
            for index, steps in _refined(array, sample_rate_hertz, coarse.array, hot):
                fine.append(steps[None, :])
                highest = max(highest, float(steps.max()))
                if progress is not None:
                    progress(0.4 + 0.6 * (index + 1) / len(hot))
            return PeakReading(fine.array, 20.0 * math.log10(highest) if highest > 0.0 else None)


def deepen(
    dips_db: NDArray[np.float32] | None, reading: PeakReading, ceiling_dbtp: float, spool: Spool
) -> NDArray[np.float32]:
    """Adds what each step still reads over the ceiling to the dips so far.

    Args:
        dips_db: (1, steps) from an earlier round; None at first.
        reading: of the signal rendered with these dips.
        spool: an empty one-channel spool that receives the deeper dips.

    Returns:
        (1, steps) float32 dB, at least 0, before smoothing.
    """
    for start in range(0, reading.envelope.shape[1], _BLOCK_FRAMES):
        part = reading.envelope[:, start : start + _BLOCK_FRAMES].astype(np.float64)
        over = 20.0 * np.log10(np.maximum(part, 1e-12)) - ceiling_dbtp
        added = np.where(over > 0.0, over + _DIP_MARGIN_DB, 0.0)
        if dips_db is not None:
            added += dips_db[:, start : start + _BLOCK_FRAMES]
        spool.append(added)
    return spool.array


def _cheap_steps(array: NDArray[np.floating], start: int, frames: int) -> NDArray[np.float32]:
    size = step_count(frames) * STEP_FRAMES
    highest = np.zeros(size // STEP_FRAMES, dtype=np.float32)
    half = TAPS_PER_PHASE // 2
    padded = read_padded(array, start - half + 1, start + size + half)
    for phases in (kaiser_phases(), _ANNEX_2_PHASES):
        inset = half - phases.shape[1] // 2
        view = padded[:, inset : padded.shape[1] - inset]
        np.maximum(highest, step_peaks(view, phases, size), out=highest)
    return highest


def _refined(
    array: NDArray[np.floating], rate: int, coarse: NDArray[np.float32], hot: list[bool]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Step peaks block by block, those of hot blocks raised to what the 16-fold meter reads."""
    block_steps = _BLOCK_FRAMES // STEP_FRAMES
    index = 0
    while index < len(hot):
        if not hot[index]:
            yield index, np.array(coarse[0, index * block_steps : (index + 1) * block_steps])
            index += 1
            continue
        stop = index
        while stop < len(hot) and hot[stop]:
            stop += 1
        for fine in _soxr_steps(array, rate, index, stop):
            yield index, np.maximum(fine, coarse[0, index * block_steps : (index + 1) * block_steps])
            index += 1


def _soxr_steps(array: NDArray[np.floating], rate: int, first: int, stop: int) -> Iterator[NDArray[np.float32]]:
    """Step peaks of the blocks [first, stop), interpolated by soxr in one stream with silence or context on both
    sides.
    """
    channels, frames = array.shape
    stream = soxr.ResampleStream(rate, rate * _SOXR_FACTOR, channels, dtype="float32", quality="VHQ")
    begin, end = first * _BLOCK_FRAMES, min(stop * _BLOCK_FRAMES, step_count(frames) * STEP_FRAMES)
    step = STEP_FRAMES * _SOXR_FACTOR
    skip = _SOXR_CONTEXT_FRAMES * _SOXR_FACTOR
    held = np.empty((0, channels), dtype=np.float32)
    position = begin - _SOXR_CONTEXT_FRAMES
    for block_start in range(begin, end, _BLOCK_FRAMES):
        wanted = (min(block_start + _BLOCK_FRAMES, end) - block_start) // STEP_FRAMES
        while held.shape[0] < wanted * step:
            piece = read_padded(array, position, position + _BLOCK_FRAMES)
            position += _BLOCK_FRAMES
            out = stream.resample_chunk(np.ascontiguousarray(piece.T))
            dropped = min(skip, out.shape[0])
            skip -= dropped
            held = np.concatenate([held, out[dropped:]])
        yield _step_maxima(held, wanted, step)
        held = held[wanted * step :]


@njit(nogil=True, cache=True)
def _step_maxima(samples: NDArray[np.float32], steps: int, step: int) -> NDArray[np.float32]:
    """Largest magnitude of each run of `step` rows of interleaved samples (rows, channels)."""
    maxima = np.zeros(steps, dtype=np.float32)
    for index in range(steps):
        highest = np.float32(0.0)
        for row in range(index * step, (index + 1) * step):
            for channel in range(samples.shape[1]):
                highest = max(highest, abs(samples[row, channel]))
        maxima[index] = highest
    return maxima
