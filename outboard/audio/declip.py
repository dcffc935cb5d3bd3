"""Clipped peaks: finding flat tops and drawing the missing crests.

A clipped peak is a run of samples at one level, the highest of its channel, that the signal enters rising and leaves
falling. The missing samples of a segment are those that an autoregressive model of it predicts best (Janssen,
Veldhuis & Vries 1986, "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive
processes"), never below the level at which they were clipped (consistent with what is known of them: Kitić, Bertin &
Gribonval 2015). All other samples stay as they are. A crest is bounded by twice the clipping level. Square-shaped
waves, whose tops are flat by design, jump into their runs and are left alone.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Audio = NDArray[np.float32]

LEVEL_TOLERANCE = 5e-4  # relative; what counts as "at the level" (16-bit steps are 3e-5 of full scale)
SHORTEST_RUN_FRAMES = 2
LONGEST_RUN_FRAMES = 960  # 20 ms at 48 kHz: longer is no clipped peak
SURE_RUN_FRAMES = 3  # runs that prove clipping
HIGHEST_CREST = 2.0  # of the clipping level
NEIGHBOUR_SHARE = 0.25  # of the level, which a signal that rises into clipping has passed one sample before
ORDER = 48  # of the autoregressive model
ITERATIONS = 2  # of model and samples in turn
CORE_FRAMES = 2048  # redrawn at a time, with a model of this and its context
CONTEXT_FRAMES = 1024
LOOKAROUND_FRAMES = CONTEXT_FRAMES + LONGEST_RUN_FRAMES + 64


@njit(nogil=True, cache=True)
def _mark_runs(samples: NDArray[np.float32], level: float, shortest: int, missing: NDArray[np.bool_]) -> int:
    """Marks every sample of a clipped peak of one channel in `missing`; returns how many."""
    floor, ceiling = level * (1.0 - LEVEL_TOLERANCE), level * (1.0 + LEVEL_TOLERANCE)
    marked = 0
    size = samples.size
    position = 2
    while position < size - 2:
        if not floor <= abs(samples[position]) <= ceiling:
            position += 1
            continue
        start = position
        sign = 1.0 if samples[start] > 0 else -1.0
        while position < size - 2 and floor <= samples[position] * sign <= ceiling:
            position += 1
        length = position - start
        before, after = samples[start - 1] * sign, samples[position] * sign
        rises = before > samples[start - 2] * sign and before > NEIGHBOUR_SHARE * level
        falls = after > samples[position + 1] * sign and after > NEIGHBOUR_SHARE * level
        if shortest <= length <= LONGEST_RUN_FRAMES and rises and falls:
            missing[start:position] = True
            marked += length
    return marked


@njit(nogil=True, cache=True)
def _predictor(segment: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Autoregressive coefficients, a[0] = 1, by Levinson's recursion on the windowed autocorrelation."""
    windowed = segment * window
    lags = np.empty(ORDER + 1)
    for lag in range(ORDER + 1):
        lags[lag] = np.dot(windowed[: windowed.size - lag], windowed[lag:])
    coefficients = np.zeros(ORDER + 1)
    coefficients[0] = 1.0
    error = lags[0] * (1.0 + 1e-9) + 1e-30
    for order in range(1, ORDER + 1):
        total = 0.0
        for index in range(order):
            total += coefficients[index] * lags[order - index]
        reflection = -total / error
        previous = coefficients[: order + 1].copy()
        for index in range(1, order + 1):
            coefficients[index] = previous[index] + reflection * previous[order - index]
        error *= 1.0 - reflection * reflection
        if error <= 1e-14 * lags[0]:
            break
    return coefficients


@njit(nogil=True, cache=True)
def _solve_banded(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> None:
    """Solves a symmetric positive system in place by Cholesky; `matrix[i, k]` is the element (i, i - k)."""
    count, width = matrix.shape
    for row in range(count):
        for offset in range(min(row, width - 1), -1, -1):
            column = row - offset
            total = matrix[row, offset]
            for inner in range(max(row - width + 1, column - width + 1, 0), column):
                total -= matrix[row, row - inner] * matrix[column, column - inner]
            matrix[row, offset] = np.sqrt(max(total, 1e-30)) if offset == 0 else total / matrix[column, 0]
    for row in range(count):
        for offset in range(1, min(row, width - 1) + 1):
            right[row] -= matrix[row, offset] * right[row - offset]
        right[row] /= matrix[row, 0]
    for row in range(count - 1, -1, -1):
        right[row] /= matrix[row, 0]
        for offset in range(1, min(row, width - 1) + 1):
            right[row - offset] -= matrix[row, offset] * right[row]


@njit(nogil=True, cache=True)
def _interpolate(
    segment: NDArray[np.float64], missing: NDArray[np.bool_], window: NDArray[np.float64], level: float
) -> None:
    """Replaces the missing samples of a segment in place by those that its own autoregressive model predicts best."""
    places = np.nonzero(missing)[0]
    signs = np.sign(segment[places])
    for _ in range(ITERATIONS):
        predictor = _predictor(segment, window)
        kernel = np.empty(ORDER + 1)
        for lag in range(ORDER + 1):
            kernel[lag] = np.dot(predictor[: ORDER + 1 - lag], predictor[lag:])
        matrix = np.zeros((places.size, ORDER + 1))
        right = np.zeros(places.size)
        for row in range(places.size):
            place = places[row]
            for offset in range(min(row, ORDER) + 1):
                lag = place - places[row - offset]
                if lag <= ORDER:
                    matrix[row, offset] = kernel[lag]
            matrix[row, 0] *= 1.0 + 1e-9
            for lag in range(-ORDER, ORDER + 1):
                other = place + lag
                if 0 <= other < segment.size and not missing[other]:
                    right[row] -= kernel[abs(lag)] * segment[other]
        _solve_banded(matrix, right)
        for row in range(places.size):
            crest = min(max(right[row] * signs[row], level), HIGHEST_CREST * level)
            segment[places[row]] = signs[row] * crest


def count_clipped(block: Audio, levels: NDArray[np.float64]) -> int:
    """Samples of a block in flat runs of at least three at the channels' highest levels.

    Args:
        block: (channels, frames), with `LOOKAROUND_FRAMES` or what there is of the neighbours not needed:
        runs at its edges are counted as far as they lie inside. levels: highest absolute sample of each
        channel in the whole song.
    """
    total = 0
    for channel, level in zip(block, levels, strict=True):
        if level > 0 and np.max(np.abs(channel)) >= level * (1.0 - LEVEL_TOLERANCE):
            total += _mark_runs(channel, float(level), SURE_RUN_FRAMES, np.zeros(channel.size, dtype=np.bool_))
    return total


def declip(block: Audio, levels: NDArray[np.float64]) -> tuple[Audio, int]:
    """Redraws the clipped peaks of a block.

    Args:
        block: float32 (channels, LOOKAROUND_FRAMES + n * CORE_FRAMES + LOOKAROUND_FRAMES): a part of the song
        with its neighbours. levels: clipping level of each channel, the highest absolute sample of the whole
        song.

    Returns:
        the middle part with crests, (channels, n * CORE_FRAMES), and how many of its samples changed.
    """
    middle = block[:, LOOKAROUND_FRAMES : block.shape[1] - LOOKAROUND_FRAMES]
    output = middle.copy()
    window = np.hanning(CORE_FRAMES + 2 * CONTEXT_FRAMES)
    changed = 0
    for channel, level in enumerate(levels):
        missing = np.zeros(block.shape[1], dtype=np.bool_)
        if level <= 0 or not _mark_runs(block[channel], float(level), SHORTEST_RUN_FRAMES, missing):
            continue
        for start in range(0, middle.shape[1], CORE_FRAMES):
            first = LOOKAROUND_FRAMES + start
            core = slice(first, first + CORE_FRAMES)
            if not np.any(missing[core]):
                continue
            whole = slice(first - CONTEXT_FRAMES, first + CORE_FRAMES + CONTEXT_FRAMES)
            segment = block[channel, whole].astype(np.float64)
            _interpolate(segment, missing[whole].copy(), window, float(level))
            redrawn = segment[CONTEXT_FRAMES : CONTEXT_FRAMES + CORE_FRAMES].astype(np.float32)
            where = missing[core]
            output[channel, start : start + CORE_FRAMES][where] = redrawn[where]
            changed += int(np.sum(where))
    return output, changed
