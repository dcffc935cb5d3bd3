"""Tones on a fixed grid, as upsampling layers leave them: where they lie and how far they stand out.

A transposed convolution of stride n repeats one pattern of n samples for as long as its input has a bias: tones at the
multiples of its rate over n, at the same frequencies and the same level whatever the music does (Pons, Pascual,
Cengarle and Serra, "Upsampling artifacts in neural audio synthesis", ICASSP 2021). Music has lasting narrow peaks too,
so a peak counts where all of this holds:

- it stands out of its surroundings in the softest tenth of up to 64 looks at the stem, spread evenly over all of it,
  and is no louder in the softest third: it goes on at its level when notes end;
- it lies on a multiple of a rate that models work at over a stride made of twos, threes and fives, to a fifth of a
  hertz, together with so many others that chance does it once in a million stems;
- a fifth of the grid is there, from the lowest to the highest of them (a tenth aside at either end): notes leave gaps;
- nothing on the grid below 1 kHz is as steady and louder by 15 dB: a note that is held through all of the stem and
  happens to lie there has its partials above.

A look is a spectrum of two thirds of a second under a Hann window (1.5 Hz a bin), its strokes turned down by
:mod:`outboard.audio.calm_weights`, over which tones are raised again to their own level: so they stand out under drums
that strike often. Once there are 64 every other one is dropped and from then on every other one is taken, so memory is
fixed. The index holds the power of all tones against that of the stem: 0 from 80 dB below it, 1 from 30 dB below it;
gain does not matter. What comes and goes with the music belongs to :mod:`outboard.audio.resonance`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from outboard.audio.calm_weights import SHORT_FRAMES_PER_LOOK, calmed
from outboard.audio.overlap_add import nearest_window

Audio = NDArray[np.float32]
Levels = NDArray[np.float32]
Places = NDArray[np.float64]

MODEL_RATES_HERTZ = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
SPACINGS_HERTZ = (20.0, 6_000.0)
LOWEST_HERTZ = 1_000.0  # of a tone; what lies on the grid below it is looked at only
HIGHEST_HERTZ = 20_000.0
FEWEST_TONES = 3
PROMINENT_DB = 8.0  # over the median of the surroundings, in the softest looks
STEADY_DB = 3.0  # between the softest tenth and the softest third of the looks
SOFT_SHARES = (0.1, 0.33)
NEAR_HERTZ = 0.2  # from a multiple: a seventh of a bin, by which noise moves a peak
CHANCE = 1e-6
LEAST_COVERAGE = 0.2  # of the multiples between the tenth and the ninetieth hundredth of those found
NOTE_DB = 15.0  # loudest on the grid below 1 kHz over the middle one of the tones: a note that is held
INDEX_DB = (-80.0, -30.0)  # power of all tones against that of the stem: index 0, index 1
MOST_LOOKS = 64
FEWEST_LOOKS = 5  # 2 s
MOST_PEAKS = 512
_SHARED_FACTOR = 0.8  # of the multiples have a factor in common: the spacing is that much wider
_GROUP_BINS, _GROUP_STEP_BINS = 64, 16  # surroundings: median over 94 Hz, every 23 Hz
_LOWEST_LOOKED_AT_HERTZ = 60.0
_SILENT = 1e-12  # mean square; and below the loudest look by 90 dB
_TINY = 1e-20


def look_frames(sample_rate_hertz: int) -> int:
    """The power of two next to 0.68 s: 32768 at 44.1 and 48 kHz."""
    return nearest_window(0.683, sample_rate_hertz)


@dataclass(frozen=True)
class GridTones:
    """What stands on a grid.

    Attributes:
        spacing_hertz: of the grid; None where there is none.
        hertz: of every tone that was found, rising.
        index: 0 (none) to 1 (30 dB below the stem).
        grid_hertz: every place on the grid from 1 kHz on where a tone may stand, found or masked, rising.
        most_amplitude: of a tone: 6 dB over the loudest found. What is louder there is music.
    """

    spacing_hertz: float | None = None
    hertz: tuple[float, ...] = ()
    index: float = 0.0
    grid_hertz: tuple[float, ...] = ()
    most_amplitude: float = 0.0


@dataclass
class GridToneSurveyor:
    """Looks at a stream that is fed in blocks of any size; no look reaches past its end.

    Args:
        sample_rate_hertz: of the stream.
        channels: of the stream.
        programme_power: mean power of all of it.
    """

    sample_rate_hertz: int
    channels: int
    programme_power: float
    _looks: list[Levels] = field(default_factory=list)
    _powers: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._size = look_frames(self.sample_rate_hertz)
        self._hop = self._size // 2
        self.bin_hertz = self.sample_rate_hertz / self._size
        self._first = round(_LOWEST_LOOKED_AT_HERTZ / self.bin_hertz)
        highest = min(HIGHEST_HERTZ, 0.48 * self.sample_rate_hertz)
        self._last = int(highest / self.bin_hertz)
        window = np.hanning(self._size + 1)[:-1]
        # A sine of amplitude 1 reads 0 dB.
        self._window = (window * (2.0 / np.sum(window))).astype(np.float32)
        self._short_bins = np.arange(self._first, self._last) / SHORT_FRAMES_PER_LOOK
        self._kept = np.zeros((self.channels, 0), np.float32)
        self._number = 0
        self._every = 1

    def add(self, block: Audio) -> None:
        """Look at the next block."""
        kept = np.concatenate([self._kept, block], axis=1)
        starts = range(0, kept.shape[1] - self._size + 1, self._hop)
        for start in starts:
            if self._number % self._every == 0:
                self._look(kept[:, start : start + self._size])
            self._number += 1
        self._kept = kept[:, len(starts) * self._hop :]

    def _look(self, part: Audio) -> None:
        calm, gains = calmed(part, self._window)
        spectra = scipy.fft.rfft(calm * self._window, axis=-1)[:, self._first : self._last]
        spectra /= np.interp(self._short_bins, np.arange(gains.size), gains)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=0)
        self._looks.append((10.0 * np.log10(power + np.float32(_TINY))).astype(np.float32))
        self._powers.append(float(np.mean(np.square(part, dtype=np.float64))))
        if len(self._looks) == MOST_LOOKS:
            del self._looks[1::2], self._powers[1::2]
            self._every *= 2

    def finish(self) -> GridTones | None:
        """What was found; None where too little sounds to tell, or the band ends below 3 kHz."""
        if self._last * self.bin_hertz < FEWEST_TONES * LOWEST_HERTZ:
            return None
        powers = np.array(self._powers)
        sounding = powers > max(_SILENT, 1e-9 * float(np.max(powers, initial=0.0)))
        if int(np.sum(sounding)) < FEWEST_LOOKS:
            return None
        looks = np.stack([look for look, sounds in zip(self._looks, sounding, strict=True) if sounds])
        bins, levels_db = _peaks(looks)
        hertz = (self._first + bins) * self.bin_hertz
        grid = _grid(hertz, levels_db)
        if grid is None:
            return GridTones()
        spacing, found = grid
        # A sine's power is half its squared amplitude.
        power = 0.5 * float(np.sum(10.0 ** (levels_db[found] / 10.0)))
        below_db = 10.0 * np.log10(power / max(self.programme_power, _TINY))
        index = float(np.clip((below_db - INDEX_DB[0]) / (INDEX_DB[1] - INDEX_DB[0]), 0.0, 1.0))
        multiples = np.arange(np.ceil(LOWEST_HERTZ / spacing), np.floor(self._last * self.bin_hertz / spacing) + 1.0)
        return GridTones(
            spacing,
            hertz=tuple(float(one) for one in np.round(hertz[found] / spacing) * spacing),
            index=index,
            grid_hertz=tuple(float(one) for one in multiples * spacing),
            most_amplitude=2.0 * 10.0 ** (float(np.max(levels_db[found])) / 20.0),
        )


def _peaks(looks: Levels) -> tuple[Places, Places]:
    """Place (in bins) and level of what stays narrow and steady in looks (looks, bins)."""
    soft = np.quantile(looks, SOFT_SHARES, axis=0)
    level_db = soft[0]
    prominence_db = level_db - _surroundings(level_db)
    middle = level_db[1:-1]
    is_peak = (middle >= level_db[:-2]) & (middle > level_db[2:])
    is_peak &= (prominence_db[1:-1] >= PROMINENT_DB) & ((soft[1] - level_db)[1:-1] <= STEADY_DB)
    found = 1 + np.flatnonzero(is_peak)
    found = np.sort(found[np.argsort(-prominence_db[found], kind="stable")[:MOST_PEAKS]])
    # The top of the parabola through three bins, in dB: a main lobe is nearly one.
    left, top, right = level_db[found - 1], level_db[found], level_db[found + 1]
    offset = 0.5 * (left - right) / np.minimum(left - 2.0 * top + right, -1e-6)
    return found + offset, top


def _surroundings(level_db: Places) -> Places:
    """Medians of overlapping groups, joined by straight lines."""
    groups = np.lib.stride_tricks.sliding_window_view(level_db, _GROUP_BINS)[::_GROUP_STEP_BINS]
    middles = np.arange(len(groups)) * _GROUP_STEP_BINS + _GROUP_BINS / 2.0
    return np.interp(np.arange(level_db.size), middles, np.median(groups, axis=1))


@cache
def spacings_hertz() -> tuple[float, ...]:
    """Every spacing that a grid may have, falling."""
    strides = {2**twos * 3**threes * 5**fives for twos in range(12) for threes in range(4) for fives in range(4)}
    found = {rate / stride for rate in MODEL_RATES_HERTZ for stride in strides}
    return tuple(sorted((one for one in found if SPACINGS_HERTZ[0] <= one <= SPACINGS_HERTZ[1]), reverse=True))


def _grid(hertz: Places, levels_db: Places) -> tuple[float, NDArray[np.bool_]] | None:
    """The spacing that explains most peaks and which these are; of spacings that explain as many the widest."""
    best: tuple[float, NDArray[np.bool_]] | None = None
    is_tone = hertz >= LOWEST_HERTZ
    count, most = int(np.sum(is_tone)), FEWEST_TONES - 1
    for spacing in spacings_hertz():
        multiples = np.round(hertz / spacing)
        near = np.abs(hertz - multiples * spacing) <= NEAR_HERTZ
        found = near & is_tone
        fit = int(np.sum(found))
        if fit <= most:
            continue
        chance = scipy.special.betainc(fit, count - fit + 1, min(1.0, 2.0 * NEAR_HERTZ / spacing))
        if chance * len(spacings_hertz()) > CHANCE or _has_common_factor(multiples[found]):
            continue
        if _coverage(multiples[found]) >= LEAST_COVERAGE:
            most = fit
            loudest_below_db = np.max(levels_db[near & ~is_tone], initial=-np.inf)
            is_note = loudest_below_db > np.median(levels_db[found]) + NOTE_DB
            best = None if is_note else (spacing, found)
    return best


def _coverage(multiples: Places) -> float:
    """Share of what is found among all multiples between the outer ones, a tenth aside at either end."""
    low, high = np.quantile(multiples, (0.1, 0.9), method="nearest")
    inside = (multiples >= low) & (multiples <= high)
    return float(np.sum(inside)) / float(high - low + 1.0)


def _has_common_factor(multiples: Places) -> bool:
    """Whether most multiples share a factor: they are those of a wider spacing, or of a note."""
    primes = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    return any(float(np.mean(multiples % prime == 0)) >= _SHARED_FACTOR for prime in primes)
