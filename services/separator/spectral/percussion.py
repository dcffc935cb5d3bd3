"""Harmonic and percussive evidence at three resolutions.

In a spectrogram a steady tone is a ridge along time and a stroke a ridge along frequency; the median along a ridge
keeps it and the median across removes it (Fitzgerald 2010). What counts as steady depends on the window: in a long
window only tones of fixed pitch are ridges, and a voice with its glides and vibrato is not; in a short window a
voice is still a ridge along time and only a stroke is one along frequency (Tachibana et al. 2010; Driedger, Müller &
Disch 2014). So the three together part tones, voice and strokes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.separator.spectral.bands import contrast
from services.separator.spectral.grid import RESOLUTION_RATIO, Grid
from services.separator.spectral.medians import Plane, median_along_frequency, median_along_time

# Half widths of the medians, in seconds and hertz; one constant per resolution.
BASE_HALF_SECONDS, BASE_HALF_HERTZ = 0.17, 176.0
LONG_HALF_SECONDS, LONG_HALF_HERTZ = 0.51, 88.0
SHORT_HALF_SECONDS, SHORT_HALF_HERTZ = 0.043, 375.0
# Strokes seen in the short window are spread to the steps of the base window that they sound in, in short hops.
SPREAD = np.hanning(19)[1:-1].astype(np.float32)


def percussiveness(power: Plane, first: int, count: int, grid: Grid) -> Plane:
    """How much more a bin belongs to a stroke than to a tone, -1..1, at base resolution.

    Args:
        power: (steps, bins) of base resolution, with context around the steps of interest.
        first, count: the steps of interest.

    Returns:
        (count, bins).
    """
    margin = max(3, grid.steps(BASE_HALF_SECONDS))
    near, start = _around(power, first, count, margin)
    along = median_along_time(near, margin)[start : start + count]
    across = median_along_frequency(near[start : start + count], max(3, grid.width(BASE_HALF_HERTZ)))
    return contrast(across, along)


def steadiness(long_power: Plane, first: int, count: int, grid: Grid) -> Plane:
    """How much a bin belongs to a tone of fixed pitch, -1..1, from the long window; given at base resolution.

    Args:
        long_power: (long steps, long bins), with context.
        first: step of base resolution, counted from the first long step of ``long_power``.
        count: base steps.
    """
    long_hop = grid.hop_frames * RESOLUTION_RATIO
    margin = max(3, round(LONG_HALF_SECONDS * grid.sample_rate_hertz / long_hop))
    # Step j of a resolution is centred (j - 1) hops after the start of the stream, so base step j lies at (j - 1) /
    # 4 + 1.
    place = (np.arange(first, first + count) - 1) / RESOLUTION_RATIO + 1
    low = int(place[0])
    near, start = _around(long_power, low, min(int(place[-1]) + 2, long_power.shape[0]) - low, margin)
    needed = min(int(place[-1]) + 2, long_power.shape[0]) - low
    along = median_along_time(near, margin)[start : start + needed]
    core = near[start : start + needed]
    half_width = max(3, round(LONG_HALF_HERTZ / grid.hertz_per_bin * RESOLUTION_RATIO))
    # What is neither steady nor struck, a glide say, has small medians both ways: compared with what is there, not
    # only with each other.
    share = np.minimum(2.0 * along / (along + median_along_frequency(core, half_width) + core), 1.0)
    edges = np.maximum(np.arange(grid.bins) * RESOLUTION_RATIO - RESOLUTION_RATIO // 2, 0)
    tonal = np.add.reduceat(core * share, edges, axis=1) / np.add.reduceat(core, edges, axis=1)
    before = np.minimum((place - low).astype(np.intp), needed - 1)
    after = np.minimum(before + 1, needed - 1)
    part = (place - np.floor(place)).astype(np.float32)[:, None]
    return np.asarray(2.0 * (tonal[before] * (1 - part) + tonal[after] * part) - 1.0, dtype=np.float32)


def strike(short_power: Plane, first: int, count: int, grid: Grid) -> Plane:
    """How much a bin belongs to a stroke, -1..1, from the short window; given at base resolution.

    Args:
        short_power: (short steps, short bins), with context.
        first: step of base resolution, counted from the first short step of ``short_power``.
        count: base steps.
    """
    short_hop = grid.hop_frames // RESOLUTION_RATIO
    median_margin = max(3, round(SHORT_HALF_SECONDS * grid.sample_rate_hertz / short_hop))
    spread_margin = len(SPREAD) // 2
    short_first = (first - 1) * RESOLUTION_RATIO + 1
    length = (count - 1) * RESOLUTION_RATIO + 1
    low = max(0, short_first - spread_margin)
    high = min(short_power.shape[0], short_first + length + spread_margin)
    near, start = _around(short_power, low, high - low, median_margin)
    core = near[start : start + high - low]
    along = median_along_time(near, median_margin)[start : start + high - low]
    half_width = max(3, round(SHORT_HALF_HERTZ / grid.hertz_per_bin / RESOLUTION_RATIO))
    across = median_along_frequency(core, half_width)
    struck = core * (across / (across + along))
    centres = short_first + RESOLUTION_RATIO * np.arange(count) - low
    share = _spread(struck, centres) / _spread(core, centres)
    short_bin = np.minimum((np.arange(grid.bins) + RESOLUTION_RATIO // 2) // RESOLUTION_RATIO, core.shape[1] - 1)
    return np.asarray((2.0 * share - 1.0)[:, short_bin], dtype=np.float32)


def _spread(plane: Plane, centres: NDArray[np.intp]) -> Plane:
    """Weighted sum of the short steps around each of the given ones; the edge steps are repeated outwards."""
    total = np.zeros((len(centres), plane.shape[1]), np.float32)
    for place, weight in enumerate(SPREAD):
        total += weight * plane[np.clip(centres + place - len(SPREAD) // 2, 0, len(plane) - 1)]
    return total


def _around(plane: Plane, first: int, count: int, margin: int) -> tuple[Plane, int]:
    """Steps of interest with up to ``margin`` more on each side, and where they begin in what is returned."""
    low = max(0, first - margin)
    return plane[low : first + count + margin], first - low
