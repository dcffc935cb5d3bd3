"""Clipped peaks: finding flat tops and drawing the missing crests.

A clipped peak is a run of samples at one level, the highest of its channel. What the signal enters rising and leaves
falling proves that a stem was clipped: square-shaped waves, whose tops are flat by design, jump into their runs. Once
that is proven every sample at the level counts as clipped, also where noise around it hides the rise.

The missing samples of a segment are those that an autoregressive model of it predicts best (Janssen, Veldhuis & Vries
1986, "Adaptive interpolation of discrete-time signals that can be modeled as autoregressive processes"). The model is
that of the segment with rough crests, cubics with the slopes at the edges: one of the flat tops would expect flat
tops, and let the long crests of a kick or a bass sag. No sample comes out below the level at which it was clipped
(consistent with what is known of it: Kitić, Bertin & Gribonval 2015); those that would are held half way from there to
their rough crest and the others solved for again, so that no kink is left where they meet. A crest is bounded by twice
the clipping level. All other samples stay as they are.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Audio = NDArray[np.float32]

LEVEL_TOLERANCE = 5e-4  # relative; what counts as "at the level" (16-bit steps are 3e-5 of full scale)
LONGEST_RUN_FRAMES = 960  # 20 ms at 48 kHz: longer is no clipped peak
SURE_RUN_FRAMES = 3  # runs that prove clipping
HIGHEST_CREST = 2.0  # of the clipping level
NEIGHBOUR_SHARE = 0.25  # of the level, which a signal that rises into clipping has passed one sample before
LOWEST_ORDER, HIGHEST_ORDER = 16, 48  # of the autoregressive model
LONG_RUN_FRAMES = 32  # from here on a model is no better than a cubic, where the edges are smooth
ROUNDS = 4  # of solving, and holding what would lie below the level
HELD_SHARE = 0.5  # of its rough crest over the level that a sample gets which the model puts below the level
SLOPE_FRAMES = 6  # over which a slope at a run's edge is taken ...
SMOOTH_SHARE = 0.25  # ... and smooth where no step differs by more
CORE_FRAMES = 2048  # redrawn at a time, with a model of this and its context
CONTEXT_FRAMES = 1024
LOOKAROUND_FRAMES = CONTEXT_FRAMES + LONGEST_RUN_FRAMES + 64


@njit(nogil=True, cache=True)
def _mark_runs(samples: NDArray[np.float32], level: float, is_proof: bool, missing: NDArray[np.bool_]) -> int:
    """Marks the clipped samples of one channel in `missing`; returns how many.

    As a proof only runs of `SURE_RUN_FRAMES` and more count that are entered rising and left falling.
    """
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
        is_peak = min(before, after) > NEIGHBOUR_SHARE * level and length <= LONGEST_RUN_FRAMES
        if is_proof:
            rises, falls = before > samples[start - 2] * sign, after > samples[position + 1] * sign
            is_peak = is_peak and length >= SURE_RUN_FRAMES and rises and falls
        if is_peak:
            missing[start:position] = True
            marked += length
    return marked


@njit(nogil=True, cache=True)
def _slope(segment: NDArray[np.float64], missing: NDArray[np.bool_], edge: int, direction: int) -> tuple[float, bool]:
    """Slope outside a run's edge, a sample away from the run, and whether it is that of a smooth line."""
    nearest = segment[edge + direction] - segment[edge]
    last = edge + SLOPE_FRAMES * direction
    if not 0 <= last < segment.size:
        return nearest, False
    mean = (segment[last] - segment[edge]) / SLOPE_FRAMES
    is_smooth = True
    for step in range(SLOPE_FRAMES):
        place = edge + step * direction
        if missing[place] or missing[place + direction]:
            return nearest, False
        if abs(segment[place + direction] - segment[place] - mean) > SMOOTH_SHARE * abs(mean):
            is_smooth = False
    return (mean if is_smooth else nearest), is_smooth


@njit(nogil=True, cache=True)
def _draw_rough(
    segment: NDArray[np.float64], missing: NDArray[np.bool_], level: float, is_done: NDArray[np.bool_]
) -> None:
    """Replaces the missing runs of a segment in place by cubics that go on as the signal comes in and leaves.

    Long runs that are entered and left smoothly need no more: they are marked in `is_done`.
    """
    size = segment.size
    position = 0
    while position < size:
        if not missing[position]:
            position += 1
            continue
        start = position
        while position < size and missing[position]:
            position += 1
        if start < 2 or position > size - 2:
            continue
        length = position - start + 1.0
        left, right = segment[start - 1], segment[position]
        into, is_smooth_before = _slope(segment, missing, start - 1, -1)
        out, is_smooth_after = _slope(segment, missing, position, 1)
        is_done[start:position] = position - start > LONG_RUN_FRAMES and is_smooth_before and is_smooth_after
        sign = 1.0 if segment[start] > 0 else -1.0
        for place in range(start, position):
            x = (place - start + 1.0) / length
            ends = (1.0 + 2.0 * x) * (1.0 - x) ** 2 * left + x * x * (3.0 - 2.0 * x) * right
            crest = sign * (ends - x * (1.0 - x) * length * ((1.0 - x) * into + x * out))
            segment[place] = sign * min(max(crest, level), HIGHEST_CREST * level)


@njit(nogil=True, cache=True)
def _predictor(segment: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    """Autoregressive coefficients, a[0] = 1, by Levinson's recursion on the windowed autocorrelation.

    Of all orders the one with the shortest description (Rissanen 1978, "Modeling by shortest data description"): what a
    higher order predicts better must be worth its coefficients.
    """
    windowed = segment * window
    lags = np.empty(HIGHEST_ORDER + 1)
    for lag in range(HIGHEST_ORDER + 1):
        lags[lag] = np.dot(windowed[: windowed.size - lag], windowed[lag:])
    weights = window * window
    frames = np.sum(weights) ** 2 / np.sum(weights * weights)
    coefficients = np.zeros(HIGHEST_ORDER + 1)
    coefficients[0] = 1.0
    error = lags[0] * (1.0 + 1e-9) + 1e-30
    best, shortest = coefficients[: LOWEST_ORDER + 1].copy(), np.inf
    for order in range(1, HIGHEST_ORDER + 1):
        total = 0.0
        for index in range(order):
            total += coefficients[index] * lags[order - index]
        reflection = -total / error
        previous = coefficients[: order + 1].copy()
        for index in range(1, order + 1):
            coefficients[index] = previous[index] + reflection * previous[order - index]
        error *= 1.0 - reflection * reflection
        length = frames * np.log(max(error, 1e-300)) + order * np.log(frames)
        if order <= LOWEST_ORDER or length < shortest:
            best, shortest = coefficients[: max(order, LOWEST_ORDER) + 1].copy(), length
        if error <= 1e-14 * lags[0]:
            break
    return best


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
def _solve(segment: NDArray[np.float64], places: NDArray[np.int64], kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """The samples at some places that make the segment's prediction errors smallest, given all others."""
    order = kernel.size - 1
    matrix = np.zeros((places.size, order + 1))
    right = np.zeros(places.size)
    is_free = np.zeros(segment.size, dtype=np.bool_)
    is_free[places] = True
    for row in range(places.size):
        place = places[row]
        for offset in range(min(row, order) + 1):
            lag = place - places[row - offset]
            if lag <= order:
                matrix[row, offset] = kernel[lag]
        matrix[row, 0] *= 1.0 + 1e-9
        for lag in range(-order, order + 1):
            other = place + lag
            if 0 <= other < segment.size and not is_free[other]:
                right[row] -= kernel[abs(lag)] * segment[other]
    _solve_banded(matrix, right)
    return right


@njit(nogil=True, cache=True)
def _interpolate(
    segment: NDArray[np.float64], missing: NDArray[np.bool_], window: NDArray[np.float64], level: float
) -> None:
    """Replaces the missing samples of a segment in place by those that its own autoregressive model predicts best."""
    is_done = np.zeros(segment.size, dtype=np.bool_)
    signs = np.sign(segment)
    _draw_rough(segment, missing, level, is_done)
    rough = np.abs(segment)
    places = np.nonzero(missing & ~is_done)[0]
    if not places.size:
        return
    predictor = _predictor(segment, window)
    kernel = np.empty(predictor.size)
    for lag in range(predictor.size):
        kernel[lag] = np.dot(predictor[: predictor.size - lag], predictor[lag:])
    for _ in range(ROUNDS):
        crests = _solve(segment, places, kernel) * signs[places]
        is_low = crests < level
        for row in range(places.size):
            place = places[row]
            crest = (
                level + HELD_SHARE * (rough[place] - level) if is_low[row] else min(crests[row], HIGHEST_CREST * level)
            )
            segment[place] = signs[place] * crest
        if not is_low.any() or is_low.all():
            break
        places = places[~is_low]


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
            total += _mark_runs(channel, float(level), True, np.zeros(channel.size, dtype=np.bool_))
    return total


def declip(block: Audio, levels: NDArray[np.float64]) -> tuple[Audio, int]:
    """Redraws the clipped peaks of a block of a stem that is proven to be clipped.

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
        if level <= 0 or not _mark_runs(block[channel], float(level), False, missing):
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
