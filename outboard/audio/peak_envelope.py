"""Where a signal peaks between its samples: the highest interpolated magnitude of every control step, over all
channels.

A control step is `STEP_FRAMES` frames. Gains that follow peaks move far more slowly than audio, so everything that
decides about gain works on one value per step, and only the multiplication runs at the audio's rate.

The interpolator is the contract's second true-peak meter: a sinc at 8 times the rate under a Kaiser window, 64 taps per
phase (Oppenheim & Schafer, Discrete-Time Signal Processing, 4.6 and 7.5). It is evaluated phase by phase on short
blocks, so the 8-fold signal never exists as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.spool import Spool

STEP_FRAMES = 8
"""Frames per control step (6 kHz at 48 kHz)."""

OVERSAMPLING = 8
TAPS_PER_PHASE = 64
_KAISER_BETA = 8.0  # the contract's meter (`true_peak`): 80 dB of image rejection
_BLOCK_FRAMES = 65536
_INNER_FRAMES = (
    512  # fits the first-level cache; the inner loop runs over frames so that it can use vector instructions
)


@cache
def kaiser_phases() -> NDArray[np.float32]:
    """The interpolator as phases, shape (8, 64): phase p gives the signal p/8 of a frame after tap 31."""
    half = TAPS_PER_PHASE // 2
    offsets = np.arange(TAPS_PER_PHASE)[None, :] - (half - 1) - np.arange(OVERSAMPLING)[:, None] / OVERSAMPLING
    window = np.i0(_KAISER_BETA * np.sqrt(np.clip(1.0 - (offsets / half) ** 2, 0.0, None))) / np.i0(_KAISER_BETA)
    phases: NDArray[np.float32] = (np.sinc(offsets) * window).astype(np.float32)
    return phases


def read_padded(array: NDArray[np.floating], start: int, stop: int) -> NDArray[np.float32]:
    """Frames [start, stop) of (channels, frames) as a contiguous float32 copy, with silence outside of the array."""
    frames = array.shape[1]
    inside_start, inside_stop = min(max(start, 0), frames), max(min(stop, frames), 0)
    out = np.zeros((array.shape[0], stop - start), dtype=np.float32)
    if inside_stop > inside_start:
        out[:, inside_start - start : inside_stop - start] = array[:, inside_start:inside_stop]
    return out


def step_count(frames: int) -> int:
    """Control steps that cover `frames` frames."""
    return -(-frames // STEP_FRAMES)


def step_peaks(padded: NDArray[np.float32], phases: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """Interpolated peak of each control step of a block.

    Args:
        padded: (channels, frames + taps - 1), the block with taps/2 - 1 frames before and taps/2 after it.
        phases: (phases, taps), float32.
        frames: length of the block, a multiple of `STEP_FRAMES`.

    Returns:
        (frames / STEP_FRAMES,) float32, linear.
    """
    peaks = np.zeros(frames, dtype=np.float32)
    _accumulate_peaks(padded, phases, peaks)
    steps: NDArray[np.float32] = peaks.reshape(-1, STEP_FRAMES).max(axis=1)
    return steps


def peak_envelope(
    array: NDArray[np.floating], spool: Spool, progress: Callable[[float], None] | None = None
) -> NDArray[np.float32]:
    """Interpolated peaks of a whole signal.

    Args:
        array: (channels, frames), may be mapped.
        spool: an empty one-channel spool that receives the envelope.
        progress: called with the fraction done, once a block.

    Returns:
        (1, steps) float32, linear, mapped from the spool.
    """
    phases = kaiser_phases()
    before = TAPS_PER_PHASE // 2 - 1
    frames = array.shape[1]
    for start in range(0, frames, _BLOCK_FRAMES):
        size = min(_BLOCK_FRAMES, step_count(frames - start) * STEP_FRAMES)
        padded = read_padded(array, start - before, start + size + TAPS_PER_PHASE // 2)
        spool.append(step_peaks(padded, phases, size)[None, :])
        if progress is not None:
            progress(min(1.0, (start + size) / frames))
    return spool.array


@njit(nogil=True, cache=True)
def _accumulate_peaks(padded: NDArray[np.float32], phases: NDArray[np.float32], peaks: NDArray[np.float32]) -> None:
    channels = padded.shape[0]
    count, taps = phases.shape
    frames = peaks.size
    sums = np.empty(_INNER_FRAMES, dtype=np.float32)
    for channel in range(channels):
        signal = padded[channel]
        for start in range(0, frames, _INNER_FRAMES):
            size = min(_INNER_FRAMES, frames - start)
            for phase in range(count):
                sums[:size] = np.float32(0.0)
                for tap in range(
                    0, taps, 4
                ):  # four taps a pass: the running sums are loaded and stored a quarter as often
                    w0, w1 = phases[phase, tap], phases[phase, tap + 1]
                    w2, w3 = phases[phase, tap + 2], phases[phase, tap + 3]
                    shifted = signal[start + tap : start + tap + size + 3]
                    for n in range(size):
                        sums[n] += w0 * shifted[n] + w1 * shifted[n + 1] + w2 * shifted[n + 2] + w3 * shifted[n + 3]
                for n in range(size):
                    magnitude = abs(sums[n])
                    if magnitude > peaks[start + n]:
                        peaks[start + n] = magnitude
