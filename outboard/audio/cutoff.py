"""Where a spectrum ends, how steeply, and whether a codec's or a low-pass's wall ended it.

Music fades out upwards: even a steep synthesiser filter falls by some tens of dB an octave, and where exactly the last
partial lies changes with the notes. A codec's low-pass and a sampling rate converter's fall by hundreds of dB an
octave, always at the same place. So the meter keeps, per stretch of 32 spectra, the level of every 94 Hz (the median
over their bins, so that single partials make no edge), and a wall is where

- the level over the 500 Hz below is at least 15 dB above that over the 600 Hz above, over the whole piece, and so,
  within 3 dB, is that over the two kilohertz below: a whistle at the end of a fade is no edge,
- nothing further up comes back to within 12 dB of it,
- the fall is at least 100 dB an octave,
- and most of the stretches that sound there show at least 9 dB of it at that very place.

Without a wall the end is the highest frequency within 80 dB of the spectrum's highest point, as in
``outboard.audio.analysis``, and the slope is that of the octave below. All is relative, so gain does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.spectrum import SpectrumBatch

Levels = NDArray[np.float64]

GROUP_HERTZ = 94.0
LOWEST_WALL_HERTZ = 3_000.0
HIGHEST_WALL_SHARE = 0.97  # of Nyquist: above it lies the converter's own edge
BELOW_HERTZ = (100.0, 600.0)  # from an edge down to what is compared ...
FAR_BELOW_HERTZ = 2_000.0
FAR_BELOW_DB = 3.0
ABOVE_HERTZ = (150.0, 750.0)  # ... and up
WALL_DB = 15.0
STAYS_BELOW_DB = 12.0
WALL_DB_PER_OCTAVE = 100.0
STRETCH_WALL_DB = 9.0
STRETCHES_SHARE = 0.6
ACTIVE_DB = 25.0  # below the loudest stretch at the edge: what is softer does not tell
END_DB = 80.0
EDGE_DB = 6.0  # below the level under a wall: its edge
_TINY = 1e-20


@dataclass(frozen=True)
class Cutoff:
    """The upper end of a spectrum.

    Attributes:
        hertz: where it lies.
        slope_db_per_octave: how steeply it falls there, positive.
        is_wall: whether it was cut off and did not fade.
        level_db: mean level of a bin just below, in dB of a full-scale sine; what lies above a wall is at least
            `WALL_DB` lower.
    """

    hertz: float
    slope_db_per_octave: float
    is_wall: bool
    level_db: float


class CutoffMeter:
    """Collects the levels of all stretches: a kilobyte for 1.4 s at 48 kHz."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        self._bins = max(1, round(GROUP_HERTZ / bin_hertz))
        self._groups = bins // self._bins
        self.group_hertz = self._bins * bin_hertz
        self._nyquist_hertz = (bins - 1) * bin_hertz
        self._stretches: list[NDArray[np.float32]] = []

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch: one stretch."""
        mean = batch.power.mean(axis=0, dtype=np.float64)[: self._groups * self._bins]
        self._stretches.append(np.median(mean.reshape(self._groups, self._bins), axis=1).astype(np.float32))

    def finish(self) -> Cutoff | None:
        """The end of what was taken; None for silence."""
        if not self._stretches:
            return None
        powers = np.stack(self._stretches).astype(np.float64)
        mean = powers.mean(axis=0)
        if mean.max() <= _TINY:
            return None
        level_db = 10.0 * np.log10(mean + _TINY)
        return self._wall(level_db, powers) or self._fade(level_db)

    def _wall(self, level_db: Levels, powers: NDArray[np.float64]) -> Cutoff | None:
        below_db, above_db = self._sides(level_db)
        # What comes back further up: the loudest of three groups' means.
        upwards = np.maximum.accumulate(_mean_of_three(level_db)[::-1])[::-1]
        far = min(level_db.size - 1, round(ABOVE_HERTZ[0] / self.group_hertz))
        returns_db = np.concatenate([upwards[far:], np.full(far, -np.inf)])
        places = np.arange(level_db.size) * self.group_hertz
        inside = (places >= LOWEST_WALL_HERTZ) & (places <= HIGHEST_WALL_SHARE * self._nyquist_hertz)
        falls = below_db - above_db
        found = inside & (falls >= WALL_DB) & (returns_db <= below_db - STAYS_BELOW_DB)
        for first in np.flatnonzero(found):
            # Of the edges next to each other the one with the largest fall.
            near = slice(first, first + max(1, round(ABOVE_HERTZ[1] / self.group_hertz)))
            place = int(first + np.argmax(np.where(found[near], falls[near], -np.inf)))
            edge, slope = self._edge(level_db, place, below_db[place], above_db[place])
            if slope >= WALL_DB_PER_OCTAVE and self._is_steady(powers, place):
                return Cutoff(edge, slope, True, float(below_db[place]))
        return None

    def _sides(self, level_db: Levels) -> tuple[Levels, Levels]:
        """Level under and over every group, dB: medians, which neither partials nor single holes move."""
        size = level_db.size
        below, above = np.full(size, -np.inf), np.full(size, np.inf)
        near, far = (round(hertz / self.group_hertz) for hertz in BELOW_HERTZ)
        next_, last = (round(hertz / self.group_hertz) for hertz in ABOVE_HERTZ)
        widest = round(FAR_BELOW_HERTZ / self.group_hertz)
        # No wall lies so low that there is less below it.
        places = np.arange(widest, size - next_ - 1)
        if places.size:
            whole = _medians(level_db, widest - near + 1)[places - widest]
            below[places] = np.minimum(_medians(level_db, far - near + 1)[places - far], whole + FAR_BELOW_DB)
            over = _medians(level_db, last - next_ + 1)[widest + next_ :]
            above[widest : widest + over.size] = over
            for place in range(widest + over.size, size - next_ - 1):  # less is left above than is looked at
                above[place] = np.median(level_db[place + next_ :])
        return below, above

    def _edge(self, level_db: Levels, place: int, below_db: float, above_db: float) -> tuple[float, float]:
        """Where the level leaves what is below, in hertz, and the slope from there in dB an octave."""
        first = max(1, place - round(BELOW_HERTZ[1] / self.group_hertz))
        start = first + int(np.argmax(level_db[first:] < below_db - EDGE_DB))
        # A group is as high as its middle; its lower edge is the upper one of what still sounds.
        top = start * self.group_hertz
        low_db = max(above_db, below_db - 3.0 * WALL_DB) + 3.0
        end = start + int(np.argmax(level_db[start:] <= low_db))
        octaves = np.log2((end + 0.5) / max(0.5, start - 0.5))
        return top, float((below_db - level_db[end]) / octaves)

    def _is_steady(self, powers: NDArray[np.float64], place: int) -> bool:
        """Whether the stretches that sound below the edge end there, each for itself."""
        near, far = (round(hertz / self.group_hertz) for hertz in BELOW_HERTZ)
        next_, last = (round(hertz / self.group_hertz) for hertz in ABOVE_HERTZ)
        below_db = 10.0 * np.log10(powers[:, place - far : place - near + 1].mean(axis=1) + _TINY)
        above_db = 10.0 * np.log10(powers[:, place + next_ : place + last + 1].mean(axis=1) + _TINY)
        active = below_db >= below_db.max() - ACTIVE_DB
        return float(np.mean((below_db - above_db)[active] >= STRETCH_WALL_DB)) >= STRETCHES_SHARE

    def _fade(self, level_db: Levels) -> Cutoff:
        end = int(np.flatnonzero(level_db >= level_db.max() - END_DB)[-1])
        first = max(1, end // 2)
        slope = 0.0
        if end - first >= 4:
            octaves = np.log2(np.arange(first, end + 1) + 0.5)
            slope = -float(np.polyfit(octaves, level_db[first : end + 1], 1)[0])
        low = max(0, end - round(BELOW_HERTZ[1] / self.group_hertz))
        return Cutoff((end + 1) * self.group_hertz, max(0.0, slope), False, float(np.mean(level_db[low : end + 1])))


def _medians(levels: Levels, width: int) -> Levels:
    """Of every stretch of so many values, by its first."""
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(levels, width), axis=1))


def _mean_of_three(levels: Levels) -> Levels:
    return np.convolve(np.pad(levels, 1, mode="edge"), np.full(3, 1.0 / 3.0), mode="valid")
