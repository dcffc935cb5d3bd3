"""A new top for a stem whose spectrum was cut off: spectral band replication with an envelope of the stem's own.

**Fine structure.** The band below the wall is copied upwards, shifted by whole bins of a short Fourier transform whose
hop is a quarter of its window, in multiples of four bins: that is exactly a modulation in time, so a transient stays as
sharp as it was (M. Dietz, L. Liljeryd, K. Kjörling, O. Kunz, *Spectral band replication*, AES 112, 2002).

**Envelope.** What the ear expects up there is the level, in time and in frequency. In time it follows the half octave
below the wall, frame by frame (5 ms): over real stems that leaves a third of the error of the best steady level. Where
levels move more the higher they lie, as in singing with its sibilants, that goes on above. In frequency it falls as the
stem itself does over the octave below the wall, drawn half way to what stems do in the mean, and faster from 14 kHz
on, as nearly all music does. Levels are those of noise: tones stand out of them and don't count.

**Noise and tones.** Partials are weaker against noise the higher they are, and copies of them lie off the harmonic
series: bins that stand out of their surroundings for three frames are lowered, more so further from the wall. Where
the copy is emptier than the envelope (a codec's holes), noise fills it; its seed and the frame's number decide it, not
the way the stem was read.

**The original stays.** What is still there above the wall is taken off the level that is added; below the wall nothing
is added but in the lower half of the cross-fade (a linear-phase high-pass over the addition).

**Where in doubt, nothing.** A guess at what was very soft is no nearer to it than silence: bins fade out with the level
that the envelope gives them, from -74 dB of a full-scale sine down, and are gone at -84.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal

from outboard.audio.overlap_add import (
    StreamingStft,
    added_by_position,
    nearest_window,
    spectra_by_position,
    square_root_hann,
)

Audio = NDArray[np.float32]
Power = NDArray[np.float32]

CROSSFADE_HERTZ = 250.0  # half of it below the cutoff; under that the original is left alone
TOP_HERTZ = 20_000.0  # nobody hears more
HOPS_PER_CELL = 256
_HOPS_PER_WINDOW = 4
_WIDEST_SOURCE_HERTZ = 5_000.0
_MARGIN_SHARE = 0.97  # of the cutoff: up to here the source is whole
_FADED_DB = 50.0  # below the loudest frame: softer ones don't tell of the envelope
_OWN_SHARE = 0.6  # of the stem's own slope; the rest is that of stems in the mean
_USUAL_SLOPE_DB = -9.0  # an octave
_STEEPEST_SLOPE_DB = -36.0
_AIR_HERTZ, _AIR_SLOPE_DB = 14_000.0, -18.0  # from here on the fall is so much steeper
_TONE_DB = 9.0  # over the mean level of the surroundings
_TONE_SLOPE_DB = -12.0  # an octave, on top of the envelope's
_SURROUNDINGS_BINS = 17
_SMOOTH_BINS, _SMOOTH_FRAMES = 9, 3
_MEAN_OVER_GEOMETRIC_DB = 2.5  # of the powers of noise: Euler's constant in dB
_OWN_EXPANSION_SHARE = 0.5
_MOST_EXPANSION = 0.5
_SOFTEST_DB, _LOUDNESS_STEPS = -140, 260  # by which levels are kept apart, in dB
_MOST_GAIN = 10.0  # of a copied bin, 20 dB
_FILL_SHARE = 0.25  # of the envelope's power: what the copy lacks of it is noise
_SILENT_DB, _HEARD_DB = -84.0, -74.0  # of a full-scale sine: bins of up to the first level are not added
_STOP_DB = 90.0  # of the high-pass over the addition
_TINY = 1e-14


@dataclass(frozen=True)
class Envelope:
    """What a stem's own frames say about the level above its wall.

    Attributes:
        cutoff_hertz: the wall.
        level_db: of a bin at the wall, over the half octave below it in the same frame.
        slope_db_per_octave: from there on, negative or 0.
        mean_db: level of that half octave, mean over the frames that sound.
        expansion_per_octave: by how much more the level moves around its mean, the higher.
    """

    cutoff_hertz: float
    level_db: float
    slope_db_per_octave: float
    mean_db: float
    expansion_per_octave: float


def window_frames(sample_rate_hertz: int) -> int:
    """The power of two next to 21 ms: 1024 at 44.1 and 48 kHz."""
    return nearest_window(0.0213, sample_rate_hertz)


def cell_frames(sample_rate_hertz: int) -> int:
    """Frames of the cells in which a stem is extended: 65536 at 44.1 and 48 kHz."""
    return window_frames(sample_rate_hertz) // _HOPS_PER_WINDOW * HOPS_PER_CELL


class _Bands:
    """Bins below a wall: four quarters of an octave, and the half octave that gives the level."""

    def __init__(self, cutoff_hertz: float, sample_rate_hertz: int) -> None:
        bin_hertz = sample_rate_hertz / window_frames(sample_rate_hertz)
        self.end = int(_MARGIN_SHARE * cutoff_hertz / bin_hertz)
        edges = np.round(self.end * 2.0 ** (np.arange(-4, 1) / 4.0)).astype(int)
        self.quarters = [slice(int(low), int(high)) for low, high in pairwise(edges)]
        self.half = slice(int(edges[2]), self.end)


class EnvelopeMeter:
    """Learns the envelope of a stem from cells of `cell_frames` (the last one padded with silence).

    Args:
        cutoff_hertz: the wall, at least 3000.
        sample_rate_hertz: of the stem.
        channels: of the stem.
    """

    def __init__(self, cutoff_hertz: float, sample_rate_hertz: int, channels: int) -> None:
        self._cutoff_hertz = cutoff_hertz
        self._bands = _Bands(cutoff_hertz, sample_rate_hertz)
        size = window_frames(sample_rate_hertz)
        self._stft = StreamingStft(channels, size, size // _HOPS_PER_WINDOW)
        # Sums of levels in dB by loudness, so that what is too soft can be left out at the end.
        self._sums = np.zeros((_LOUDNESS_STEPS, 5))
        self._squares = np.zeros((_LOUDNESS_STEPS, 5))
        self._counts = np.zeros(_LOUDNESS_STEPS, np.int64)

    def add(self, cell: Audio) -> None:
        """Take the next cell."""
        spectra = self._stft.process(cell)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        bands = [*self._bands.quarters, self._bands.half]
        levels = np.stack([_noise_level_db(power[:, band]) for band in bands], axis=1)
        steps = np.clip(levels[:, -1] - _SOFTEST_DB, 0, _LOUDNESS_STEPS - 1).astype(np.int64)
        np.add.at(self._sums, steps, levels)
        np.add.at(self._squares, steps, levels**2)
        self._counts += np.bincount(steps, minlength=_LOUDNESS_STEPS)

    def finish(self) -> Envelope | None:
        """The envelope; None where nothing sounds below the wall."""
        loudest = int(np.max(np.flatnonzero(self._counts), initial=0))
        first = max(1, loudest - int(_FADED_DB))
        count = int(self._counts[first:].sum())
        if not count:
            return None
        means = self._sums[first:].sum(axis=0) / count
        *quarters, half = means.tolist()
        deviations = np.sqrt(np.maximum(0.0, self._squares[first:].sum(axis=0) / count - means**2))
        # The quarters' middles in octaves from the wall.
        middles = np.arange(-4, 0) / 4.0 + 0.125
        own, at_wall = np.polyfit(middles, np.array(quarters), 1)
        # What rises towards the wall, a whistle say, does not go on rising; what dips there is as low as that.
        at_wall = min(float(at_wall), quarters[-1], float(np.mean(quarters)))
        slope = _OWN_SHARE * own + (1.0 - _OWN_SHARE) * _USUAL_SLOPE_DB
        level = float(np.clip(at_wall - half, _STEEPEST_SLOPE_DB / 2.0, 6.0))
        # Half an octave lies between the second quarter and the fourth.
        expansion = 2.0 * (float(deviations[3] / max(1.0, deviations[1])) - 1.0)
        return Envelope(
            self._cutoff_hertz,
            level,
            float(np.clip(slope, _STEEPEST_SLOPE_DB, 0.0)),
            half,
            float(np.clip(_OWN_EXPANSION_SHARE * expansion, 0.0, _MOST_EXPANSION)),
        )


class Replicator:
    """Computes what is to be added to a stem, cell by cell, by position.

    Args:
        envelope: of the whole stem.
        sample_rate_hertz: of the stem.
        channels: of the stem.
        seed: of the noise.
        amount: 0 (nothing) to 1, of the new band's amplitude.
    """

    def __init__(self, envelope: Envelope, sample_rate_hertz: int, channels: int, seed: int, amount: float) -> None:
        self._size = window_frames(sample_rate_hertz)
        self.hop_frames = self._size // _HOPS_PER_WINDOW
        self.cell_frames = cell_frames(sample_rate_hertz)
        self._window = square_root_hann(self._size)
        self._sine = np.float32((np.sum(self._window) / 2.0) ** 2)  # power of a full-scale sine's bin
        self._channels, self._seed, self._amount = channels, seed, np.float32(amount)
        self._bands = _Bands(envelope.cutoff_hertz, sample_rate_hertz)
        bin_hertz = sample_rate_hertz / self._size
        # One bin of the cross-fade's inside is enough: the high-pass shapes it.
        self._first = max(1, int((envelope.cutoff_hertz - CROSSFADE_HERTZ) / bin_hertz))
        self._last = min(self._size // 2, int(TOP_HERTZ / bin_hertz))
        bins = np.arange(self._first, self._last)
        self._source = bins - self._shifts(bins, bin_hertz)
        octaves = np.maximum(0.0, np.log2((bins + 0.5) * bin_hertz / envelope.cutoff_hertz))
        air = np.maximum(0.0, np.log2((bins + 0.5) * bin_hertz / _AIR_HERTZ))
        slope_db = envelope.slope_db_per_octave * octaves + _AIR_SLOPE_DB * air
        self._target = (10.0 ** ((envelope.level_db + slope_db) / 10.0)).astype(np.float32)
        self._expansion = (envelope.expansion_per_octave * (octaves + 0.25)).astype(np.float32)
        self._mean_db = envelope.mean_db
        self._tone_db = (_TONE_SLOPE_DB * octaves).astype(np.float32)
        self._taps = _high_pass(envelope.cutoff_hertz, sample_rate_hertz)
        around = self._taps.size // 2
        # Frames that reach into the filter's surroundings, and one more on either side to smooth over.
        self._margin_hops = -(-around // self.hop_frames) + _HOPS_PER_WINDOW - 1 + 1
        self.lookaround_frames = self._margin_hops * self.hop_frames
        self._noises: dict[int, NDArray[np.complex64]] = {}

    def _shifts(self, bins: NDArray[np.int64], bin_hertz: float) -> NDArray[np.int64]:
        """How far each new bin is from its source: multiples of four, within the source's band."""
        widest = min(self._bands.end / 2.0, _WIDEST_SOURCE_HERTZ / bin_hertz)
        width = max(_HOPS_PER_WINDOW, int(widest) // _HOPS_PER_WINDOW * _HOPS_PER_WINDOW)
        shifts: NDArray[np.int64] = width * (1 + (bins - self._bands.end) // width)
        return np.maximum(shifts, width)

    def addition(self, padded: Audio, cell: int) -> Audio | None:
        """What to add to one cell, (channels, cell_frames); None where the cell is silent.

        Args:
            padded: the cell with `lookaround_frames` of the stem before and after it (silence past the ends).
            cell: its number from the start of the stem.
        """
        if self._last <= self._first or not np.any(padded):
            return None
        spectra = spectra_by_position(padded, self._window, self.hop_frames)
        new = self._new_band(spectra, cell)
        change = np.zeros_like(spectra[1:-1])
        change[:, :, self._first : self._last] = new
        total = added_by_position(change, self._window, self.hop_frames, padded.shape[1], first=1)
        around = self._taps.size // 2
        reach = total[:, self.lookaround_frames - around : self.lookaround_frames + self.cell_frames + around]
        added = signal.oaconvolve(reach, self._taps[None, :], mode="valid", axes=1)
        return np.asarray(self._amount * added, dtype=np.float32)

    def _new_band(self, spectra: NDArray[np.complex64], cell: int) -> NDArray[np.complex64]:
        """The new bins of all frames but the first and last, (steps - 2, channels, bins)."""
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        smooth = _smoothed(power)
        level_db = ndimage.uniform_filter1d(_noise_level_db(power[:, self._bands.half]), _SMOOTH_FRAMES, mode="nearest")
        moved_db = np.clip(level_db - self._mean_db, -40.0, 40.0)[:, None] * self._expansion
        wanted = (10.0 ** ((level_db[:, None] + moved_db) / 10.0)).astype(np.float32) * self._target
        gain = np.sqrt(wanted / (smooth[:, self._source] + np.float32(_TINY)))
        gain = np.minimum(gain, np.float32(_MOST_GAIN)) * 10.0 ** (
            self._toned(power)[:, self._source] * self._tone_db / 20
        )
        copied = power[:, self._source] * gain**2
        lacking = np.sqrt(np.maximum(0.0, _FILL_SHARE * wanted - _smoothed(copied)))
        # What is there already need not be added.
        there = np.sqrt(np.clip(1.0 - smooth[:, self._first : self._last] / (wanted + np.float32(_TINY)), 0.0, 1.0))
        level = 10.0 * np.log10(wanted / self._sine + np.float32(_TINY))
        there *= np.clip((level - _SILENT_DB) / (_HEARD_DB - _SILENT_DB), 0.0, 1.0)
        gain, lacking = (gain * there)[1:-1, None, :], (lacking * there)[1:-1, None, :]
        new = spectra[1:-1][:, :, self._source] * gain.astype(np.float32)
        new += self._noise(cell, spectra.shape[0])[1:-1] * lacking.astype(np.float32)
        return np.asarray(new, dtype=np.complex64)

    def _toned(self, power: Power) -> Power:
        """Which bins are tones, (frames, bins up to the wall), 0 to 1."""
        level_db = 10.0 * np.log10(power[:, : self._bands.end + 1] + np.float32(_TINY))
        excess = level_db - ndimage.uniform_filter1d(level_db, _SURROUNDINGS_BINS, axis=1, mode="nearest")
        lasting = ndimage.minimum_filter1d(excess, _SMOOTH_FRAMES, axis=0, mode="nearest")
        share = np.clip((lasting - _TONE_DB) / 3.0 + 1.0, 0.0, 1.0)
        return np.asarray(ndimage.maximum_filter1d(share, 3, axis=1, mode="nearest"), dtype=np.float32)

    def _noise(self, cell: int, steps: int) -> NDArray[np.complex64]:
        """Complex noise of unit power for the frames of a padded cell, each by its number in the stem."""
        first = cell * HOPS_PER_CELL - self._margin_hops
        owners = range(first // HOPS_PER_CELL, (first + steps - 1) // HOPS_PER_CELL + 1)
        self._noises = {owner: self._noises[owner] for owner in owners if owner in self._noises}
        for owner in owners:
            if owner not in self._noises:
                self._noises[owner] = self._drawn(owner)
        joined = np.concatenate([self._noises[owner] for owner in owners])
        start = first - owners[0] * HOPS_PER_CELL
        return joined[start : start + steps]

    def _drawn(self, owner: int) -> NDArray[np.complex64]:
        generator = np.random.Generator(np.random.Philox(key=self._seed % 2**64, counter=[0, 0, 0, owner + 1]))
        shape = (HOPS_PER_CELL, self._channels, self._last - self._first, 2)
        parts = generator.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(0.5))
        return np.ascontiguousarray(parts).view(np.complex64)[..., 0]


def _noise_level_db(power: Power) -> NDArray[np.float64]:
    """Level of the noise in a band, per frame: the geometric mean of its bins, which tones hardly move."""
    return np.asarray(10.0 * np.log10(power + np.float32(_TINY)).mean(axis=1) + _MEAN_OVER_GEOMETRIC_DB, np.float64)


def _smoothed(power: Power) -> Power:
    over_bins = ndimage.uniform_filter1d(power, _SMOOTH_BINS, axis=1, mode="nearest")
    smooth = ndimage.uniform_filter1d(over_bins, _SMOOTH_FRAMES, axis=0, mode="nearest")
    # A running sum may end up a rounding error below 0.
    return np.asarray(np.maximum(smooth, 0.0), dtype=np.float32)


def _high_pass(cutoff_hertz: float, sample_rate_hertz: int) -> Audio:
    """Linear-phase filter whose edge, `CROSSFADE_HERTZ` wide, has its middle at the cutoff; an odd number of taps."""
    nyquist = sample_rate_hertz / 2.0
    count, beta = signal.kaiserord(_STOP_DB, CROSSFADE_HERTZ / nyquist)
    middle = min(cutoff_hertz, nyquist - CROSSFADE_HERTZ)
    taps = signal.firwin(count | 1, middle, window=("kaiser", beta), fs=sample_rate_hertz, pass_zero=False)
    return np.asarray(taps, dtype=np.float32)
