"""Metallic resonances between 8 and 12 kHz ("shimmer"): where they are, how bad they are, and taming them.

Vocoders and upsampling layers leave narrow peaks that stay at one frequency for many seconds and follow the music's
level. Music has narrow peaks there too (upper partials), but they move with the notes. So a bin counts as resonant
where it stands out of its surroundings in most of the frames of a dozen seconds, and more lastingly or more loudly
than the peaks of the octave below, where partials that reach this high would have to be stronger still.

Spectra are those of a periodic square-root Hann window of about 85 ms, hop a quarter of it. Levels of surroundings
are medians over half a kilohertz, which narrow peaks do not move. Taming adds a correction ``istft(X * (gain - 1))``
to the signal, so that what is not corrected stays bit for bit as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from outboard.audio.overlap_add import (
    StreamingStft,
    added_by_position,
    nearest_window,
    spectra_by_position,
    square_root_hann,
)

Audio = NDArray[np.float32]
Levels = NDArray[np.float32]

BAND_HERTZ = (8_000.0, 12_000.0)
REFERENCE_BAND_HERTZ = (4_500.0, 7_500.0)  # where musical partials would show the same pattern
HOPS_PER_CELL = 64  # statistics are kept per cell: 1.37 s at 48 kHz
HORIZON_CELLS = 4  # persistence is judged over this many cells either side: 12.3 s
GROUP_BINS = 48  # surroundings: median over 560 Hz, every 140 Hz
GROUP_STEP_BINS = 12
PROMINENT_DB = 6.0  # over the surroundings; noise alone gets there in 6 % of the frames
LASTING_SHARE = (0.45, 0.65)  # of the active frames: below the first no resonance, above the second surely one
SURROUNDINGS_MARGIN_DB = 2.0  # mean of noise over its median: peaks come down to this
SILENCE_BELOW_PROGRAMME_DB = 75.0  # a frame whose band is this far below the loudest is not judged
SEVERE_BINS = 48.0  # a peak fills about two bins: two dozen sure ones make the index 1
MUSICAL_SHARE = 0.3  # lasting peaks of the octave below, from which on more is asked of a resonance
LOUDER_THAN_MUSIC_DB = (0.0, 6.0)  # over the loudest partials of the octave below: no music, surely none
TINY_POWER = 1e-20


def window_frames(sample_rate_hertz: int) -> int:
    """The power of two next to 85 ms: 4096 at 44.1 and 48 kHz."""
    return nearest_window(0.085, sample_rate_hertz)


class BandView:
    """A band of bins with the level of its surroundings.

    Args:
        sample_rate_hertz: of the audio.
        low_hertz, high_hertz: edges; what lies above Nyquist is cut off.
    """

    def __init__(self, sample_rate_hertz: int, low_hertz: float, high_hertz: float) -> None:
        size = window_frames(sample_rate_hertz)
        bin_hertz = sample_rate_hertz / size
        self.first = int(np.ceil(low_hertz / bin_hertz))
        self.last = min(int(high_hertz / bin_hertz), size // 2 - GROUP_BINS)
        self.bins = max(0, self.last - self.first)
        if not self.bins:
            return
        self._start = self.first - GROUP_BINS
        count = int(np.ceil((self.bins + GROUP_BINS) / GROUP_STEP_BINS)) + 1
        count = min(count, (size // 2 - self._start - GROUP_BINS) // GROUP_STEP_BINS + 1)
        self._stop = self._start + (count - 1) * GROUP_STEP_BINS + GROUP_BINS
        centres = np.arange(count) * GROUP_STEP_BINS + GROUP_BINS / 2 - GROUP_BINS
        weights = np.maximum(0.0, 1.0 - np.abs(np.arange(self.bins)[:, None] - centres[None, :]) / GROUP_STEP_BINS)
        weights[weights.sum(axis=1) == 0, -1] = 1.0
        self._weights = (weights / weights.sum(axis=1, keepdims=True)).T.astype(np.float32)

    def levels(self, power: NDArray[np.float32]) -> tuple[Levels, Levels]:
        """Level of each bin and of its surroundings in dB, both (steps, bins), from power (steps, all bins)."""
        level_db = 10.0 * np.log10(power[:, self._start : self._stop] + np.float32(TINY_POWER))
        groups = np.lib.stride_tricks.sliding_window_view(level_db, GROUP_BINS, axis=1)[:, ::GROUP_STEP_BINS]
        # The median of an even number; sorting rows this short is several times faster than `np.median`.
        middle = np.sort(groups, axis=2)[:, :, GROUP_BINS // 2 - 1 : GROUP_BINS // 2 + 1]
        surroundings: Levels = np.mean(middle, axis=2) @ self._weights
        return level_db[:, GROUP_BINS : GROUP_BINS + self.bins], surroundings


@dataclass(frozen=True)
class Survey:
    """What a pass over a stem found.

    Attributes:
        active: frames judged per cell, (cells,).
        lasting: share of the active frames around a cell in which a bin is prominent, (cells, bins), 0 to 1.
        index: shimmer from 0 (clean) to 1 (severe); None where nothing sounds in the band.
        reference_share: mean of the most lasting twentieth of the bins in the octave below.
        resonance: how surely each bin resonates in each cell, (cells, bins), 0 to 1.
    """

    active: NDArray[np.int64]
    lasting: Levels
    index: float | None
    reference_share: float
    resonance: Levels


@dataclass
class Surveyor:
    """Collects a survey from a stream, given in blocks of whole hops (the last one padded with silence).

    Args:
        sample_rate_hertz: of the stream.
        channels: of the stream.
        programme_power: mean power of the loudest passages, by which silence is told from sound.
    """

    sample_rate_hertz: int
    channels: int
    programme_power: float
    _active: list[int] = field(default_factory=list)
    _prominent: list[NDArray[np.uint8]] = field(default_factory=list)
    _reference: list[NDArray[np.uint8]] = field(default_factory=list)
    _louder_db: list[NDArray[np.float16]] = field(default_factory=list)

    def __post_init__(self) -> None:
        size = window_frames(self.sample_rate_hertz)
        self.hop_frames = size // 4
        self.cell_frames = self.hop_frames * HOPS_PER_CELL
        self._stft = StreamingStft(self.channels, size, self.hop_frames)
        self.band = BandView(self.sample_rate_hertz, *BAND_HERTZ)
        self._reference_band = BandView(self.sample_rate_hertz, *REFERENCE_BAND_HERTZ)
        # Sum of the squared window, so that power is that of the signal.
        self._floor_power = self.programme_power * 10.0 ** (-SILENCE_BELOW_PROGRAMME_DB / 10.0) * size / 2

    def add(self, cell: Audio) -> None:
        """Judge one cell of `cell_frames` frames (the last one padded)."""
        spectra = self._stft.process(cell)
        if not self.band.bins:
            return
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        in_band = power[:, self.band.first : self.band.last]
        active = np.sum(in_band, axis=1) > max(self._floor_power, 1e-12)
        self._active.append(int(np.sum(active)))
        level_db, surroundings_db = self.band.levels(power)
        prominent = (level_db - surroundings_db > PROMINENT_DB) & active[:, None]
        self._prominent.append(np.sum(prominent, axis=0).astype(np.uint8))
        reference_db, below_db = self._reference_band.levels(power)
        lasting = (reference_db - below_db > PROMINENT_DB) & active[:, None]
        self._reference.append(np.sum(lasting, axis=0).astype(np.uint8))
        judged = power[active] if np.any(active) else power
        mean_db = 10.0 * np.log10(np.mean(judged, axis=0) + TINY_POWER)
        loudest_db = np.max(mean_db[self._reference_band.first : self._reference_band.last])
        self._louder_db.append((mean_db[self.band.first : self.band.last] - loudest_db).astype(np.float16))

    def finish(self, known_hertz: Sequence[float] = ()) -> Survey:
        """The survey of everything added; peaks at the frequencies given are somebody else's."""
        active = np.array(self._active, dtype=np.int64)
        if not self.band.bins or not np.any(active):
            nothing = np.zeros((active.size, self.band.bins), np.float32)
            return Survey(active, nothing, None, 0.0, nothing)
        lasting = _share_around(self._prominent, active)
        lasting[:, self._bins_at(known_hertz)] = 0.0
        reference = _share_around(self._reference, active)
        ranked = np.sort(reference[active > 0], axis=1)[:, -max(1, reference.shape[1] // 20) :]
        reference_share = float(np.mean(ranked))
        resonance = _resonance(lasting, reference_share, np.stack(self._louder_db).astype(np.float32))
        index = float(np.clip(np.average(np.sum(resonance, axis=1), weights=active) / SEVERE_BINS, 0.0, 1.0))
        return Survey(active, lasting, index, reference_share, resonance)

    def _bins_at(self, hertz: Sequence[float]) -> NDArray[np.int64]:
        """Bins of the band that a steady tone fills, its skirts included."""
        bin_hertz = self.sample_rate_hertz / window_frames(self.sample_rate_hertz)
        middles = np.round(np.array(hertz, dtype=np.float64) / bin_hertz).astype(np.int64) - self.band.first
        places = (middles[:, None] + np.arange(-2, 3)).ravel()
        return np.asarray(places[(places >= 0) & (places < self.band.bins)])


def _resonance(lasting: Levels, reference_share: float, louder_db: Levels) -> Levels:
    """How surely each bin resonates: how lasting its peaks are against what the music of the octave below explains."""
    low, high = LASTING_SHARE
    quiet, loud = LOUDER_THAN_MUSIC_DB
    unlike_music = np.clip((louder_db - quiet) / (loud - quiet), 0.0, 1.0)
    raised = max(0.0, reference_share - MUSICAL_SHARE) * (1.0 - unlike_music)
    return np.asarray(np.clip((lasting - low - raised) / (high - low), 0.0, 1.0), dtype=np.float32)


def _share_around(counts: list[NDArray[np.uint8]], active: NDArray[np.int64]) -> Levels:
    """Share of active frames within the horizon of each cell in which each bin counted, (cells, bins)."""
    padding = ((HORIZON_CELLS + 1, HORIZON_CELLS), (0, 0))
    summed = np.cumsum(np.pad(np.stack(counts).astype(np.int32), padding), axis=0)
    frames = np.cumsum(np.pad(active, padding[0]))
    width = 2 * HORIZON_CELLS + 1
    inside = np.maximum(frames[width:] - frames[:-width], HOPS_PER_CELL)  # a lone short sound proves nothing
    return np.asarray((summed[width:] - summed[:-width]) / inside[:, None], dtype=np.float32)


class Tamer:
    """Brings resonances down to their surroundings, block by block, from a survey.

    Args:
        survey: of the whole stem.
        sample_rate_hertz: of the stem.
        amount: 0 (nothing) to 1 (down to the surroundings), in dB proportion.
    """

    def __init__(self, survey: Survey, sample_rate_hertz: int, amount: float) -> None:
        self._size = window_frames(sample_rate_hertz)
        self.hop_frames = self._size // 4
        self.cell_frames = self.hop_frames * HOPS_PER_CELL
        self._window = square_root_hann(self._size)
        self._band = BandView(sample_rate_hertz, *BAND_HERTZ)
        resonance = _widened(survey.resonance)
        self._amount = np.float32(amount) * resonance
        self.lookaround_frames = self._size - self.hop_frames

    def correction(self, padded: Audio, cell: int) -> Audio | None:
        """What to add to one cell, (channels, cell_frames); None where nothing resonates.

        Args:
            padded: the cell with `lookaround_frames` of the stem before and after it (silence past the ends).
            cell: its number from the start of the stem.
        """
        if not self._band.bins:
            return None
        amounts = self._amounts_around(cell)
        if not np.any(amounts):
            return None
        spectra = spectra_by_position(padded, self._window, self.hop_frames)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        level_db, surroundings_db = self._band.levels(power)
        excess_db = np.maximum(0.0, level_db - surroundings_db - SURROUNDINGS_MARGIN_DB)
        gain = 10.0 ** (-amounts * excess_db / 20.0)
        band = slice(self._band.first, self._band.last)
        change = np.zeros_like(spectra)
        change[:, :, band] = spectra[:, :, band] * (gain[:, None, :] - 1.0)
        total = added_by_position(change, self._window, self.hop_frames, padded.shape[1])
        return total[:, self.lookaround_frames : self.lookaround_frames + self.cell_frames]

    def _amounts_around(self, cell: int) -> Levels:
        """Amount per step of the padded cell: cells' values, joined by straight lines between their middles."""
        steps = HOPS_PER_CELL + 3
        position = cell + (np.arange(steps) - 1.5 + 0.5) / HOPS_PER_CELL - 0.5
        last = self._amount.shape[0] - 1
        before = np.floor(position).astype(np.int64)
        share = (position - before).astype(np.float32)[:, None]
        left, right = self._amount[np.clip(before, 0, last)], self._amount[np.clip(before + 1, 0, last)]
        return np.asarray(left + share * (right - left), dtype=np.float32)


def _widened(resonance: Levels) -> Levels:
    """Two bins more on either side: the skirts of a peak."""
    padded = np.pad(resonance, ((0, 0), (2, 2)))
    return np.asarray(np.max(np.lib.stride_tricks.sliding_window_view(padded, 5, axis=1), axis=2), dtype=np.float32)
