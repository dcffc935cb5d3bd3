"""What an MP3 coder rounded away, put back where it can be told: on the coder's own grid of granules.

A coder rounds the lines of a granule to multiples of a step (to powers of 4/3 of whole numbers), and to zero what lies
below half of it. Where the grid is known (`outboard.audio.mp3_grid`) the step is, too: it is the smallest line left in
the neighbourhood. That mends two things:

**Lines of one step** stand for anything from 0.5 to 1.9 steps. Where few lines are left at all, the sound is soft
against the step, and what just made it over the threshold is mostly nearer to that; where nearly all are left, what was
rounded down to one step is more than what was rounded up. So such lines come to the mean of what they stand for, which
hardly depends on the music: 0.64 steps where no other line is left, 1 where two thirds are, more where all are.
Decoders take a full step.

**Holes**: where a zero has zeros around it, in frequency and in the granules before and after, something softer than
half a step was there: half of the finest step that rounded it away, in this granule or in those beside it. It is filled
with noise, 18 dB below that step read within 12 lines, which is less than noise has that is hardly ever rounded up;
22 dB below one that lies further away, up to 48 lines. The signs are drawn by the granule's place, and where middle and
side were coded, in these.

Partials that last are no noise, and between them there may be nothing at all: where lines are left at the same place
for three granules, the noise is 12 dB softer. A partial's line of one step is more often one of a skirt that goes on
under the threshold than noise that made it over, and stands for more.

Figures: the means were measured on 14 recordings and demo songs at 64 and 128 kbit/s, none of which the benchmark of
restoration uses; they differ by 0.1 from one to the other. Among partials half of the way is gone (decibels count what
is too soft more than what is too loud). The levels of the fill were chosen on the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio import mp3_filter_bank as bank
from outboard.audio.mp3_filter_bank import BANDS, GRANULE_FRAMES, LINES_PER_BAND, REACH_FRAMES
from outboard.audio.mp3_grid import Granules, granules, middle_side

Audio = NDArray[np.float32]
Lines = NDArray[np.float32]
Mask = NDArray[np.bool_]

LOWEST_LINE = 4
_SURVEYED_GRANULES = 16  # of every cell
_CODED_SHARE = 0.01  # of granules in which the topmost line is left, and in more than one
_SOUNDING_SHARE = 1e-3  # of the loudest line of a cell: granules whose loudest line is softer do not sound
_STEP_REACH, _STEP_BELOW_DB = 12, 18.0  # lines; the fill below the step
_FAR_STEP_REACH, _FAR_STEP_BELOW_DB = 48, 22.0
_STEP_GRANULES = 3  # of which the finest step tells
_HOLE_GRANULES, _HOLE_LINES = 3, 5  # all zeros
_LASTING_FILL = 0.25  # of the fill among partials that last
_ONE_STEP = 1.1
_DENSITY_GRANULES, _DENSITY_LINES = 5, 17
_DENSITIES = (0.0, 0.035, 0.075, 0.15, 0.27, 0.42, 0.6, 0.8, 0.95)
_CENTROIDS = (0.64, 0.70, 0.74, 0.79, 0.86, 0.93, 1.0, 1.05, 1.08)
_LASTING_CENTROIDS = (0.91, 0.91, 0.91, 0.92, 0.935, 0.965, 1.01, 1.05, 1.08)
_LASTING_GRANULES, _LASTING_LINES = 17, 49
_LASTING_SHARES = (0.35, 0.5)  # of lines that last: up to the first they are noise, from the second on partials
_CONTEXT = _LASTING_GRANULES // 2 + 2
_SEED = 0x4D5033
_BEFORE = 64  # granules before the stem's start have numbers too


@dataclass(frozen=True)
class CodecTrace:
    """What a coder left behind.

    Attributes:
        grid: frame at which a granule begins, 0 to 575.
        hole_ratio: share of the lines below `top` that were rounded to zero, in granules that sound.
        top: the number of lines that were coded at all.
    """

    grid: int
    hole_ratio: float
    top: int


class CodecSurveyor:
    """Counts what was rounded to zero, fed cells in order.

    Args:
        grid: frame at which a granule begins.
        top: the number of lines that the coder coded, where it is known (whatever was added above is none of its);
            None: found.
    """

    def __init__(self, grid: int, top: int | None = None) -> None:
        self._grid, self._top = grid, top
        self._done = self._sounding = 0
        self._zeros = np.zeros(GRANULE_FRAMES, np.int64)

    def add(self, cell: Audio) -> None:
        """Look at some granules of the next cell."""
        first = (self._grid - self._done) % GRANULE_FRAMES
        self._done += cell.shape[1]
        part = cell[:, first : first + _SURVEYED_GRANULES * GRANULE_FRAMES + REACH_FRAMES]
        if part.shape[1] < REACH_FRAMES:
            return
        found = granules(part)
        # By the loudest line, which no mending changes: how many are left is what it changes.
        peaks = np.max(np.where(found.is_zero, np.float32(0.0), np.abs(found.lines)), axis=2)
        sounds = peaks > _SOUNDING_SHARE * np.max(peaks)
        self._sounding += int(np.count_nonzero(sounds))
        self._zeros += np.sum(found.is_zero & sounds[:, :, None], axis=(0, 1))

    def finish(self) -> CodecTrace | None:
        """What was found; None where nothing sounds."""
        left = self._sounding - self._zeros
        coded = np.flatnonzero(left > max(1.0, _CODED_SHARE * self._sounding))
        if not coded.size:
            return None
        top = self._top or int(coded[-1]) + 1
        return CodecTrace(self._grid, float(np.mean(self._zeros[:top]) / self._sounding), top)


class CodecMender:
    """Computes what is to be added to a decoded stem, cell by cell, by position.

    Args:
        trace: of the coder.
        cell_frames: of a cell.
        amount: 0 (nothing) to 1.
    """

    lookaround_frames = (_CONTEXT + 1) * GRANULE_FRAMES + REACH_FRAMES

    def __init__(self, trace: CodecTrace, cell_frames: int, amount: float) -> None:
        self._trace = trace
        # Two bands more: the topmost lines have surroundings, and one band holds nothing that was coded.
        self._bands = min(BANDS, -(-trace.top // LINES_PER_BAND) + 2)
        self._cell_frames = cell_frames
        self._amount = np.float32(amount)

    def correction(self, padded: Audio, start: int) -> Audio | None:
        """What to add to one cell, (channels, cell_frames); None where nothing was coded.

        Args:
            padded: the cell with `lookaround_frames` of the stem before and after it (silence past the ends).
            start: frame of the stem at which the cell begins.
        """
        first = (self._trace.grid - start + self.lookaround_frames) % GRANULE_FRAMES
        number = (start - self.lookaround_frames + first - self._trace.grid) // GRANULE_FRAMES
        found = granules(padded[:, first:], self._bands)
        if np.all(found.is_zero):
            return None
        lasting = _lasting(found)
        lines = _centred(found, lasting) + self._noise(found, number) * (1.0 - (1.0 - _LASTING_FILL) * lasting)
        lines[:, :, :LOWEST_LINE] = 0.0
        lines[:, :, self._trace.top :] = 0.0
        inside = slice(_CONTEXT, lines.shape[1] - _CONTEXT)
        lines, is_middle_side = lines[:, inside], found.is_middle_side[inside]
        if is_middle_side.any():
            lines[:, is_middle_side] = middle_side(lines[:, is_middle_side])
        made = bank.signal(np.ascontiguousarray(lines), found.blocks[inside])
        begin = self.lookaround_frames - first - _CONTEXT * GRANULE_FRAMES
        return self._amount * made[:, begin : begin + self._cell_frames]

    def _noise(self, found: Granules, number: int) -> Lines:
        """Noise for the holes of granules of which the first has this number."""
        magnitude = _left(found)
        near, far = (_smallest(magnitude, reach) for reach in (_STEP_REACH, _FAR_STEP_REACH))
        level = np.where(np.isfinite(near), _gain(_STEP_BELOW_DB) * near, _gain(_FAR_STEP_BELOW_DB) * far)
        level = ndimage.minimum_filter1d(level, _STEP_GRANULES, axis=1, mode="nearest")
        size = (1, _HOLE_GRANULES, _HOLE_LINES)
        is_hole = ndimage.minimum_filter(found.is_zero.view(np.uint8), size, mode="nearest") > 0
        level = np.where(is_hole & np.isfinite(level), level, 0.0)
        return np.asarray(level * self._signs(number, level.shape), np.float32)

    def _signs(self, number: int, shape: tuple[int, ...]) -> Lines:
        """Signs of every granule by its number."""
        channels, count, size = shape
        signs = np.empty((channels, count, size), np.float32)
        for place in range(count):
            generator = np.random.Philox(key=_SEED, counter=[0, 0, 0, number + place + _BEFORE])
            words = generator.random_raw(-(-channels * size // 64))
            bits = np.unpackbits(words.view(np.uint8))[: channels * size]
            signs[:, place] = bits.reshape(channels, size) * np.float32(2.0) - np.float32(1.0)
        return signs


def _left(found: Granules) -> Lines:
    """Magnitudes of lines that were not rounded to zero; infinite where they were."""
    return np.where(found.is_zero, np.float32(np.inf), np.abs(found.lines))


def _smallest(magnitude: Lines, reach: int) -> Lines:
    """The smallest within so many lines of each."""
    return np.asarray(ndimage.minimum_filter1d(magnitude, 2 * reach + 1, axis=2, mode="nearest"))


def _centred(found: Granules, lasting: Lines) -> Lines:
    """What takes lines of one step to the mean of what they stand for."""
    magnitude = _left(found)
    is_one = (magnitude <= _ONE_STEP * _smallest(magnitude, _STEP_REACH)) & ~found.is_zero
    density = _mean((~found.is_zero).astype(np.float32), _DENSITY_GRANULES, _DENSITY_LINES)
    noise, partials = (np.interp(density, _DENSITIES, means) for means in (_CENTROIDS, _LASTING_CENTROIDS))
    change = noise + lasting * (partials - noise) - 1.0
    return np.asarray(np.where(is_one, found.lines * change, 0.0), dtype=np.float32)


def _lasting(found: Granules) -> Lines:
    """0 where the lines around come and go, as those of noise do, 1 where they are partials that last."""
    left = (~found.is_zero).astype(np.float32)
    near = ndimage.maximum_filter1d(left, 3, axis=2, mode="nearest")
    padded = np.pad(near, ((0, 0), (1, 1), (0, 0)), mode="edge")
    lasting = left * padded[:, :-2] * padded[:, 2:]
    shares = _mean(lasting, _LASTING_GRANULES, _LASTING_LINES) / np.maximum(
        _mean(left, _LASTING_GRANULES, _LASTING_LINES), 1e-6
    )
    low, high = _LASTING_SHARES
    return np.asarray(np.clip((shares - low) / (high - low), 0.0, 1.0), dtype=np.float32)


def _mean(values: Lines, of_granules: int, of_lines: int) -> Lines:
    over_lines = ndimage.uniform_filter1d(values, of_lines, axis=2, mode="nearest")
    return np.asarray(np.maximum(ndimage.uniform_filter1d(over_lines, of_granules, axis=1, mode="nearest"), 0.0))


def _gain(below_db: float) -> np.float32:
    return np.float32(10.0 ** (-below_db / 20.0))
