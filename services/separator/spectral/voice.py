"""The predominant pitch among what may be a voice, and the comb of its partials.

Steady tones and strokes are taken down first; what is left is a voice, a solo, or rubble. Its pitch is the one whose
partials add up best (harmonic summation: Hermes 1988; Salamon & Gómez 2012), followed through time by a shortest
path that prefers small steps.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from services.separator.spectral.bands import interval_mean
from services.separator.spectral.grid import Grid
from services.separator.spectral.medians import Plane

LOWEST_PITCH_HERTZ, HIGHEST_PITCH_HERTZ = 85.0, 900.0
PITCHES_PER_OCTAVE = 36
PARTIALS = 10
PARTIAL_DECAY = 0.86
HIGHEST_PARTIAL_HERTZ = 5_500.0
# Weight of frequencies in the search for the pitch: below, bass and kick; above, breath and cymbals.
SEARCH_HERTZ = (0.0, 80.0, 150.0, 3_000.0, 5_500.0, 8_000.0)
SEARCH_WEIGHT = (0.0, 0.0, 1.0, 1.0, 0.3, 0.0)
# A partial counts at most as much as one of this multiple of its surroundings.
WHITENED_LIMIT = 4.0
# The path: cost of a step of one pitch bin, the widest step, and the cost of starting anew anywhere; in units of
# salience.
STEP_COST, WIDEST_STEP, LEAP_COST = 0.04, 8, 0.6
SALIENCE_LIMIT = 3.0
# A salience of this much is called certain; strength is cut at 1.5 times it.
CERTAIN_SALIENCE = 2.0
STRENGTH_LIMIT = 1.5
# Half width of a tooth of the comb: the main lobe of the window, and the width that vibrato adds in proportion to
# frequency.
TOOTH_HERTZ, TOOTH_PER_HERTZ = 10.0, 0.004


def candidate(power: Plane, steadiness: Plane, percussiveness: Plane, strike: Plane) -> Plane:
    """Magnitude of what may be a voice: neither steady nor struck. Evidence in -1..1, all (steps, bins)."""
    keep = 0.25 * (1 - steadiness) * (1 - percussiveness) * (1 - 0.25 * (1 + strike))
    return np.asarray(np.sqrt(power * np.maximum(keep, 0)), dtype=np.float32)


def search_weight(grid: Grid) -> Plane:
    """Weight of each bin in the search for a voice, (bins,)."""
    return np.interp(grid.hertz, SEARCH_HERTZ, SEARCH_WEIGHT).astype(np.float32)


def activity(magnitude: Plane, power: Plane, grid: Grid) -> Plane:
    """Share of the candidate in the magnitude of the voice's range, as -1..1; (steps,)."""
    weight = search_weight(grid)
    share = (magnitude @ weight) / (np.sqrt(power) @ weight + 1e-9)
    return np.asarray(2.0 * share - 1.0, dtype=np.float32)


def salience(magnitude: Plane, grid: Grid) -> Plane:
    """How far the sum over its partials makes each pitch stand out of the median pitch, (steps, pitches)."""
    surroundings = interval_mean(magnitude, np.ones_like(magnitude), 1.5)
    whitened = np.minimum(magnitude / (surroundings + 1e-6), WHITENED_LIMIT) * search_weight(grid)
    pitches = pitch_hertz()
    summed = np.zeros((len(magnitude), len(pitches)), np.float32)
    for partial in range(1, PARTIALS + 1):
        frequency = pitches * partial
        place = frequency / grid.hertz_per_bin
        low = np.minimum(place.astype(np.intp), grid.bins - 2)
        part = (place - low).astype(np.float32)
        weight = np.where(
            (frequency < HIGHEST_PARTIAL_HERTZ) & (place < grid.bins - 1), PARTIAL_DECAY ** (partial - 1), 0.0
        ).astype(np.float32)
        summed += weight * (whitened[:, low] * (1 - part) + whitened[:, low + 1] * part)
    usual = np.median(summed, axis=1, keepdims=True)
    return np.asarray((summed - usual) / (usual + 1e-6), dtype=np.float32)


def pitch_hertz() -> NDArray[np.float64]:
    """The pitches that are tried, (pitches,)."""
    count = int(np.log2(HIGHEST_PITCH_HERTZ / LOWEST_PITCH_HERTZ) * PITCHES_PER_OCTAVE)
    return LOWEST_PITCH_HERTZ * 2.0 ** (np.arange(count) / PITCHES_PER_OCTAVE)


def follow(saliences: Plane) -> tuple[NDArray[np.float64], Plane]:
    """Pitch in hertz and strength (0..1.5) of the leading voice at each step.

    Args:
        saliences: (steps, pitches).
    """
    smooth = gaussian_filter1d(saliences, 1.0, axis=0, mode="nearest")
    path = _best_path(np.clip(smooth, 0.0, SALIENCE_LIMIT).astype(np.float64), STEP_COST, WIDEST_STEP, LEAP_COST)
    strength = np.clip(smooth[np.arange(len(path)), path] / CERTAIN_SALIENCE, 0.0, STRENGTH_LIMIT)
    return pitch_hertz()[path], np.asarray(strength, dtype=np.float32)


def comb(pitch: NDArray[np.float64], strength: Plane, grid: Grid) -> Plane:
    """Whether a bin lies on a partial of the voice (1) or between partials (-1), times the strength; (steps,
    bins).
    """
    hertz = grid.hertz[None]
    order = np.round(np.maximum(hertz / pitch[:, None], 1.0))
    off = (np.abs(hertz - order * pitch[:, None]) / (TOOTH_HERTZ + TOOTH_PER_HERTZ * hertz)).astype(np.float32)
    reach = np.interp(grid.hertz, (0.0, 60.0, 5_000.0, 9_000.0), (1.0, 1.0, 1.0, 0.0)).astype(np.float32)
    teeth = np.exp(-0.5 * off**2) * reach
    return np.asarray((2.0 * teeth - 1.0) * strength[:, None], dtype=np.float32)


@njit(nogil=True, cache=True)
def _best_path(gain: NDArray[np.float64], step_cost: float, widest_step: int, leap_cost: float) -> NDArray[np.intp]:
    """Indices of the path of largest total gain, by dynamic programming (Viterbi); ties go to the lower index."""
    steps, states = gain.shape
    came_from = np.zeros((steps, states), np.intp)
    total = gain[0].copy()
    for step in range(1, steps):
        leader = 0
        for state in range(states):
            if total[state] > total[leader]:
                leader = state
        new = np.empty(states)
        for state in range(states):
            best = total[leader] - leap_cost
            source = leader
            for other in range(max(0, state - widest_step), min(states, state + widest_step + 1)):
                value = total[other] - step_cost * abs(other - state)
                if value > best:
                    best = value
                    source = other
            new[state] = best + gain[step, state]
            came_from[step, state] = source
        total = new
    path = np.zeros(steps, np.intp)
    path[-1] = np.argmax(total)
    for step in range(steps - 1, 0, -1):
        path[step - 1] = came_from[step, path[step]]
    return path
