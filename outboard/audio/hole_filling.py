"""Holes in the time-frequency plane: finding them, and filling them from their surroundings.

Separation masks and codecs at low rates empty patches of some 100 ms by some 100 Hz while all around them sounds on.
Music has gaps in time (between strokes, over all frequencies) and gaps in frequency (between partials, all the time),
but hardly ever both: a hole is where the level lies 15 dB or more below the loudest of each of the four sides, within
210 ms before and after and 470 Hz below and above, over at least three bins and three frames.

Two strings of a synthesiser that beat dip as deep, but slowly: what empties a patch begins and ends within a window. A
stem's holes are therefore told by those that a bin enters and leaves with 20 dB within four frames; all are filled once
a stem is known to have such.

The level of a hole is interpolated across time and frequency at once: what its bins have at other times, plus what its
frame has at other frequencies, less what both have in the mean (levels in dB as a sum of a row and a column, so that a
partial goes on through the hole and a stroke is not smeared), never above the louder of the two. The phase is that of
what is left in the hole, which is a mask's residue or what leaks in from the sides.

Spectra are those of a square-root Hann window of about 43 ms, hop a quarter of it. Filling adds ``istft(X * (gain -
1))`` to the signal, so that what is no hole stays as it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio import resonance
from outboard.audio.overlap_add import StreamingStft, added_by_position, spectra_by_position, square_root_hann

Audio = NDArray[np.float32]
Levels = NDArray[np.float32]
Mask = NDArray[np.bool_]

LOWEST_HERTZ = 300.0
HOPS_PER_CELL = 128
_HOPS_PER_WINDOW = 4
DEPTH_DB = 15.0
SIDE = 20  # frames or bins on each side, in which something must be louder
SILENCE_DB = 65.0  # below the mean power, spread over all bins: around a hole something is louder
ABRUPT_DB = 20.0  # by which the level changes ...
_EDGE_FRAMES = 2  # ... from so many frames before the end of a hole to so many after it
_SMOOTH = 3
_AROUND = 21  # frames and bins over which levels are averaged for interpolation
_MOST_GAIN_DB = 45.0
_LIFT_DB = 1.5  # mean levels in dB lie 2.5 dB below the mean power of noise
_CONTEXT = SIDE + 2  # frames that finding needs on either side
_TINY = 1e-12


def window_frames(sample_rate_hertz: int) -> int:
    """Half the window of `outboard.audio.resonance`, so that both have the same cells: 2048 at 44.1 and 48 kHz."""
    return resonance.window_frames(sample_rate_hertz) // 2


class _Plane:
    """The part of the plane in which holes are looked for.

    Args:
        sample_rate_hertz: of the audio.
        programme_power: mean power of the stem.
    """

    def __init__(self, sample_rate_hertz: int, programme_power: float) -> None:
        self.size = window_frames(sample_rate_hertz)
        self.hop = self.size // _HOPS_PER_WINDOW
        bin_hertz = sample_rate_hertz / self.size
        self.first = int(np.ceil(LOWEST_HERTZ / bin_hertz))
        # The sum of the squared window is half its size.
        self._silence = max(_TINY, programme_power * self.size / 2.0 * 10.0 ** (-SILENCE_DB / 10.0))

    def find(self, power: Levels) -> tuple[Mask, Mask, Levels]:
        """Holes, what was judged, and smoothed power, each (frames, bins from `first` on); the edges lack a side."""
        power = power[:, self.first :]
        over_bins = np.maximum(ndimage.uniform_filter1d(power, _SMOOTH, axis=1, mode="nearest"), 0.0)
        smooth = np.maximum(ndimage.uniform_filter1d(over_bins, _SMOOTH, axis=0, mode="nearest"), 0.0)
        softest = np.minimum(_softer_side(smooth), _softer_side(smooth.T).T)
        judged = softest > self._silence
        holes = judged & (softest > (over_bins + _TINY) * 10.0 ** (DEPTH_DB / 10.0))
        return _widened(_narrowed(holes)), judged, over_bins


def _softer_side(power: Levels) -> Levels:
    """The highest value from 2 to `SIDE` entries before each one, or after it, whichever is lower; (entries, lines).

    There is nothing beyond the edges. Maxima of 2, 4, 8 and 16 entries make that of `SIDE` - 1.
    """
    count = power.shape[0]
    highest = np.zeros((count + 2 * SIDE, power.shape[1]), power.dtype)
    highest[SIDE : SIDE + count] = power
    width = 1
    while 2 * width < SIDE:
        highest = np.maximum(highest[:-width], highest[width:])
        width *= 2
    rest = SIDE - 1 - width
    highest = np.maximum(highest[: highest.shape[0] - rest], highest[rest:])
    return np.minimum(highest[:count], highest[SIDE + 2 : SIDE + 2 + count])


def _widened(mask: Mask) -> Mask:
    """What is within a place of the mask, in both directions."""
    padded = np.pad(mask, 1)
    over_frames = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(over_frames[:, :-2] | over_frames[:, 1:-1] | over_frames[:, 2:])


def _narrowed(mask: Mask) -> Mask:
    """What has the mask on all sides, in both directions; the edges have not."""
    return ~_widened(~np.pad(mask, 1))[1:-1, 1:-1]


def _abrupt_frames(holes: Mask, power: Levels, begin: int, stop: int) -> int:
    """How many places from a frame up to another belong to holes that their bin enters and leaves abruptly."""
    along = np.pad(holes.T, ((0, 0), (1, 1))).view(np.int8)
    steps = np.diff(along, axis=1)
    bins, first = np.nonzero(steps > 0)
    last = np.nonzero(steps < 0)[1] - 1
    inwards = np.minimum((last - first) // 2, _EDGE_FRAMES)

    def level(frames: NDArray[np.int64]) -> Levels:
        return power[np.clip(frames, 0, power.shape[0] - 1), bins] + np.float32(_TINY)

    change = np.minimum(
        level(first - _EDGE_FRAMES) / level(first + inwards), level(last + _EDGE_FRAMES) / level(last - inwards)
    )
    inside = np.clip(np.minimum(last + 1, stop) - np.maximum(first, begin), 0, None)
    return int(np.sum(inside[change >= 10.0 ** (ABRUPT_DB / 10.0)]))


class HoleSurveyor:
    """Measures which share of what sounds is abrupt holes; fed cells of whole hops, the last padded with silence."""

    def __init__(self, sample_rate_hertz: int, channels: int, programme_power: float) -> None:
        self._plane = _Plane(sample_rate_hertz, programme_power)
        self._stft = StreamingStft(channels, self._plane.size, self._plane.hop)
        self._kept: Levels = np.zeros((0, self._plane.size // 2 + 1), np.float32)
        self._seen = False
        self._holes = self._judged = 0

    def add(self, cell: Audio) -> None:
        """Look at the next cell."""
        spectra = self._stft.process(cell)
        self._kept = np.concatenate([self._kept, np.mean(spectra.real**2 + spectra.imag**2, axis=1)])
        self._count(self._kept.shape[0] - _CONTEXT)

    def finish(self) -> float | None:
        """Share of abrupt holes among what sounds, 0 to 1; None where nothing does."""
        self._count(self._kept.shape[0])
        return self._holes / self._judged if self._judged else None

    def _count(self, stop: int) -> None:
        """Count up to a frame of those kept; what later frames need as context is kept on."""
        begin = _CONTEXT if self._seen else 0
        if stop <= begin:
            return
        holes, judged, power = self._plane.find(self._kept)
        self._holes += _abrupt_frames(holes, power, begin, stop)
        self._judged += int(np.count_nonzero(judged[begin:stop]))
        self._kept = self._kept[max(0, stop - _CONTEXT) :]
        self._seen = True


class HoleFiller:
    """Fills holes, cell by cell, by position.

    Args:
        sample_rate_hertz: of the stem.
        programme_power: its mean power.
        amount: 0 (nothing) to 1 (up to the interpolated level), in dB proportion.
    """

    def __init__(self, sample_rate_hertz: int, programme_power: float, amount: float) -> None:
        self._plane = _Plane(sample_rate_hertz, programme_power)
        self._window = square_root_hann(self._plane.size)
        self._amount = amount
        self.cell_frames = self._plane.hop * HOPS_PER_CELL
        self._edge = _CONTEXT + _AROUND // 2 + 1
        self.lookaround_frames = (self._edge + _HOPS_PER_WINDOW - 1) * self._plane.hop

    def correction(self, padded: Audio) -> Audio | None:
        """What to add to one cell, (channels, cell_frames); None where it has no holes.

        Args:
            padded: the cell with `lookaround_frames` of the stem before and after it (silence past the ends).
        """
        hop = self._plane.hop
        spectra = spectra_by_position(padded, self._window, hop)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        holes, _, over_bins = self._plane.find(power)
        inside = slice(self._edge, holes.shape[0] - self._edge)
        if not np.any(holes[inside]):
            return None
        wide = _widened(holes)
        level_db = 10.0 * np.log10(over_bins + np.float32(_TINY))
        lift_db = np.where(wide, np.clip(_interpolated(level_db, wide) - level_db, 0.0, _MOST_GAIN_DB), 0.0)
        gain = 10.0 ** (self._amount * lift_db[inside] / 20.0) - 1.0
        change = np.zeros_like(spectra[inside])
        change[:, :, self._plane.first :] = spectra[inside][:, :, self._plane.first :] * gain[:, None, :]
        total = added_by_position(change, self._window, hop, padded.shape[1], first=self._edge)
        return total[:, self.lookaround_frames : self.lookaround_frames + self.cell_frames]


def _interpolated(level_db: Levels, holes: Mask) -> Levels:
    """Levels in dB as a sum of a row and a column, from what is no hole around each place."""
    known = (~holes).astype(np.float32)
    weighted = level_db * known

    def mean(axes: tuple[int, ...]) -> Levels:
        above, below = weighted, known
        for axis in axes:
            above = ndimage.uniform_filter1d(above, _AROUND, axis=axis, mode="nearest")
            below = ndimage.uniform_filter1d(below, _AROUND, axis=axis, mode="nearest")
        # Where nothing is known around, the level is taken as it is, and nothing happens.
        return np.where(below > 0.5 / _AROUND, above / np.maximum(below, 1e-6), level_db)

    over_bins, over_frames, over_both = mean((1,)), mean((0,)), mean((0, 1))
    wanted = np.minimum(over_bins + over_frames - over_both, np.maximum(over_bins, over_frames))
    return np.asarray(wanted + _LIFT_DB, dtype=np.float32)
