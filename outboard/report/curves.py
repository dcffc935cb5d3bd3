"""How a song runs over time, before and after: what the report's plots and its comparison of sections show.

One pass over each side gives columns (at most 600, at least 100 ms long): short-term loudness, extremes of the
waveform, correlation. What is kept is bounded; songs of any length give curves of the same size.

**Sections** are found on the song as it came, from the levels of its columns in four bands: novelty (J. Foote,
*Automatic audio segmentation using a measure of audio novelty*, ICME 2000), here with the Euclidean distance of the
means of the 6 s before and after each column, for which Foote's checkerboard kernel reduces to a difference of sums.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from outboard.audio.filter_bank import FilterBank, band_taps
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.song_profile import splits_for
from outboard.audio.spool import blocks
from outboard.report.comparison import Comparison, Curves, Levels, Section
from outboard.report.preview import Progress

Array = NDArray[np.float32]
Values = NDArray[np.float64]

MOST_COLUMNS = 600
MOST_SECTIONS = 12
_SHORTEST_COLUMN_SECONDS = 0.1
_SHORT_TERM_SECONDS = 3.0
_SILENT_LUFS = -70.0
_KERNEL_SECONDS, _SHORTEST_SECTION_SECONDS = 12.0, 8.0
_FLOOR_POWER = 1e-9


def compare_over_time(before: Array, after: Array, sample_rate_hertz: int, progress: Progress) -> Comparison:
    """Measures both sides.

    Args:
        before, after: (1 or 2, frames), of one rate and length; may be mapped.
        progress: told the fraction done; may raise.
    """
    one = _Side(before.shape[0], before.shape[1], sample_rate_hertz)
    one.measure(before, lambda fraction: progress(0.5 * fraction))
    other = _Side(after.shape[0], after.shape[1], sample_rate_hertz)
    other.measure(after, lambda fraction: progress(0.5 + 0.5 * fraction))
    edges = [0, *one.boundaries(), one.columns]
    sections = tuple(
        Section(
            start * one.column_seconds,
            min(end * one.column_seconds, before.shape[1] / sample_rate_hertz),
            one.levels(start, end),
            other.levels(start, end),
        )
        for start, end in itertools.pairwise(edges)
        if end > start
    )
    return Comparison(one.curves(), other.curves(), sections)


class _Side:
    """Sums per column of one side."""

    def __init__(self, channels: int, frames: int, rate: int) -> None:
        self._rate, self._frames, self._channels = rate, frames, channels
        seconds = frames / rate
        self.column_seconds = max(_SHORTEST_COLUMN_SECONDS, seconds / MOST_COLUMNS)
        self._column_frames = max(1, round(self.column_seconds * rate))
        self.columns = max(1, math.ceil(frames / self._column_frames))
        self._extremes = np.zeros((2, self.columns))
        self._sums = np.zeros((3, self.columns))  # left², right², left * right
        self._loudness = LoudnessMeter(rate, channels)
        splits = splits_for(rate)
        self._bank = FilterBank(band_taps(splits, rate)[:, None], channels)
        self._bands = np.zeros((len(splits) + 1, self.columns))

    def measure(self, array: Array, progress: Progress) -> None:
        start = banded = 0
        for block in blocks(array):
            self._loudness.process(block)
            left, right = block[0].astype(np.float64), block[-1].astype(np.float64)
            self._add(self._sums, start, np.stack([left * left, right * right, left * right]))
            self._widen(start, block)
            start += block.shape[1]
            for piece in self._bank.process(block):
                banded = self._add_bands(banded, piece)
            progress(start / self._frames)
        for piece in self._bank.process(np.zeros((self._channels, 0), np.float32), last=True):
            banded = self._add_bands(banded, piece)

    def _add_bands(self, start: int, piece: Array) -> int:
        self._add(self._bands, start, np.einsum("bcf,bcf->bf", piece, piece).astype(np.float64) / self._channels)
        return start + int(piece.shape[2])

    def _add(self, sums: Values, start: int, values: Values) -> None:
        first, edges = self._edges(start, values.shape[1])
        sums[:, first : first + len(edges)] += np.add.reduceat(values, edges, axis=1)

    def _widen(self, start: int, block: Array) -> None:
        first, edges = self._edges(start, block.shape[1])
        columns = slice(first, first + len(edges))
        low, high = np.minimum.reduceat(block.min(axis=0), edges), np.maximum.reduceat(block.max(axis=0), edges)
        self._extremes[0, columns] = np.minimum(self._extremes[0, columns], low)
        self._extremes[1, columns] = np.maximum(self._extremes[1, columns], high)

    def _edges(self, start: int, frames: int) -> tuple[int, NDArray[np.int64]]:
        """The first column that frames start .. start + frames touch, and where within them each column begins."""
        first, last = start // self._column_frames, (start + frames - 1) // self._column_frames
        return first, np.maximum(np.arange(first, last + 1) * self._column_frames - start, 0)

    def curves(self) -> Curves:
        """What the plots show."""
        left, right, cross = self._sums
        audible = np.minimum(left, right) > _FLOOR_POWER
        correlation = cross / np.sqrt(np.maximum(left * right, 1e-30))
        return Curves(
            self.column_seconds,
            tuple(round(float(value), 4) for value in self._extremes[0]),
            tuple(round(float(value), 4) for value in self._extremes[1]),
            self._short_term(),
            tuple(round(float(c), 3) if a else None for c, a in zip(correlation, audible, strict=True)),
        )

    def _short_term(self) -> tuple[float | None, ...]:
        series = self._loudness.short_term_lufs  # every 100 ms, the first at 3 s
        values: list[float | None] = []
        for column in range(self.columns):
            index = round((min((column + 1) * self.column_seconds, self._frames / self._rate) - 3.0) * 10.0)
            lufs = series[index] if 0 <= index < len(series) else None
            values.append(round(lufs, 2) if lufs is not None and lufs > _SILENT_LUFS else None)
        return tuple(values)

    def levels(self, start: int, end: int) -> Levels:
        """Figures of columns start .. end."""
        left, right, cross = self._sums[:, start:end].sum(axis=1)
        total = left + right
        if total <= _FLOOR_POWER:
            return Levels(None, None, None, None, None)
        frames = min(end * self._column_frames, self._frames) - start * self._column_frames
        peak = max(float(-self._extremes[0, start:end].min()), float(self._extremes[1, start:end].max()))
        mid, side = total + 2.0 * cross, max(total - 2.0 * cross, 0.0)
        bands = self._bands[:, start:end].sum(axis=1)
        stereo = self._channels == 2 and mid > 0.0 and side > 1e-6 * mid
        return Levels(
            self._loudness_of(start, end),
            20.0 * math.log10(peak) - 10.0 * math.log10(total / (2.0 * frames)),
            10.0 * math.log10(side / mid) if stereo else None,
            _share_db(bands[0], bands.sum()),
            _share_db(bands[-1], bands.sum()),
        )

    def _loudness_of(self, start: int, end: int) -> float | None:
        """Mean of the short-term loudness within a section, by energy and ungated."""
        first = round((start * self.column_seconds - _SHORT_TERM_SECONDS / 2.0) * 10.0)
        last = round((end * self.column_seconds - _SHORT_TERM_SECONDS / 2.0) * 10.0)
        inside = [lufs for lufs in self._loudness.short_term_lufs[max(0, first) : max(0, last)] if lufs is not None]
        if not inside:
            return None
        return float(10.0 * np.log10(np.mean(10.0 ** (np.array(inside) / 10.0))))

    def boundaries(self) -> list[int]:
        """Columns at which sections begin, without the first."""
        width = round(0.5 * _KERNEL_SECONDS / self.column_seconds)
        if self.columns < 4 * width or width < 2:
            return []
        novelty = _novelty(10.0 * np.log10(np.maximum(self._bands, _FLOOR_POWER)), width)
        apart = max(1, round(_SHORTEST_SECTION_SECONDS / self.column_seconds))
        least = float(novelty.mean() + 0.5 * novelty.std())
        found: list[int] = []
        for column in np.argsort(novelty)[::-1]:
            position = int(column)
            if novelty[position] < least or len(found) == MOST_SECTIONS - 1:
                break
            inside = apart <= position <= self.columns - apart
            if inside and all(abs(position - other) >= apart for other in found):
                found.append(position)
        return sorted(found)


def _novelty(levels_db: Values, width: int) -> Values:
    """(columns,) how unlike the `width` columns before and after each are."""
    features = levels_db - levels_db.mean(axis=1, keepdims=True)
    features /= np.maximum(features.std(axis=1, keepdims=True), 1e-6)
    columns = features.shape[1]
    sums = np.concatenate([np.zeros((len(features), 1)), np.cumsum(features, axis=1)], axis=1)
    novelty = np.zeros(columns)
    for column in range(width, columns - width + 1):
        before = (sums[:, column] - sums[:, column - width]) / width
        after = (sums[:, min(column + width, columns)] - sums[:, column]) / width
        novelty[column - (column == columns)] = float(np.linalg.norm(after - before))
    return novelty


def _share_db(part: float, whole: float) -> float | None:
    return 10.0 * math.log10(part / whole) if part > 0.0 and whole > 0.0 else None
