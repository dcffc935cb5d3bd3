"""The noise beneath a stem: what each band never falls below.

In every band of hearing some moments hold nothing but noise (between words, between harmonics), so a low percentile of
the band's level over time is the noise in it: minimum statistics, Martin 2001, over the whole stem and so with no
window to choose. It is blind to noise that comes and goes, and takes a note that lasts all the time for noise; a
stem that is silent for a tenth of its time has none. Levels are counted in steps of half a dB: memory is fixed.

The floor is steady where quiet moments are alike: in the bands of at least six bins, the levels that a twentieth and a
fifth of the frames stay below lie about 2 dB apart in steady noise. What they lie further apart, e, gives the
stationarity ``exp(-e / 6 dB)``, averaged by the bands' power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from outboard.audio.overlap_add import nearest_window

Audio = NDArray[np.float32]

_BANDS = 32
_QUIETEST_SHARE = 0.1
_LOWEST_DB, _HIGHEST_DB, _STEP_DB = -160.0, 60.0, 0.5
_STEADY_SHARES = (0.05, 0.2)
_FEWEST_STEADY_BINS = 6
_STEADY_SPREAD_DB, _SPREAD_SCALE_DB = 2.0, 6.0
_FEWEST_FRAMES = 40  # 0.85 s: in less there may be no quiet moment


@dataclass(frozen=True)
class BandNoise:
    """Noise by band of a spectrum.

    Attributes:
        frame: samples of the spectrum's frame, 21 ms.
        starts: first bin of every band; the last one ends at Nyquist.
        power: mean power of the noise in every band.
    """

    frame: int
    starts: NDArray[np.int64]
    power: NDArray[np.float64]


class NoiseMeter:
    """Noise floor of audio that is fed in cells; of each, what is short of a frame of 21 ms at its end is left out."""

    def __init__(self, sample_rate_hertz: int) -> None:
        self._frame = nearest_window(0.0213, sample_rate_hertz)
        edges = np.unique(np.round(np.geomspace(2, self._frame // 2, _BANDS + 1)).astype(int))
        self._starts = edges[:-1]
        self._bins = np.diff(np.append(self._starts, self._frame // 2 + 1))  # of every band
        self._levels_db = np.arange(_LOWEST_DB, _HIGHEST_DB, _STEP_DB)
        self._counts = np.zeros((self._starts.size, self._levels_db.size), np.int64)
        window = np.hanning(self._frame)
        self._window = window.astype(np.float32)
        # From |X|^2 of one-sided bins to mean power.
        self._scale = 2.0 / (self._frame * float(np.sum(window**2)))

    def add(self, cell: Audio) -> None:
        """Count the levels of the next (channels, frames)."""
        whole = cell.shape[1] // self._frame * self._frame
        frames = cell[:, :whole].reshape(cell.shape[0], -1, self._frame)
        spectra = np.fft.rfft(frames * self._window, axis=2)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=0) * self._scale
        bands = np.add.reduceat(power, self._starts, axis=1)
        at = (10.0 * np.log10(np.maximum(bands, 1e-18)) - _LOWEST_DB) / _STEP_DB
        index = np.clip(at.astype(np.int64), 0, self._levels_db.size - 1)
        for band, counts in enumerate(self._counts):
            counts += np.bincount(index[:, band], minlength=counts.size)

    def floor_dbfs(self) -> float | None:
        """Mean power of the noise in dB of full scale; None where there is too little of it."""
        frames = int(np.sum(self._counts[0]))
        if frames < _FEWEST_FRAMES:
            return None
        return float(10.0 * np.log10(np.sum(10.0 ** (self._exceeded_db(_QUIETEST_SHARE) / 10.0))))

    def bands(self) -> BandNoise | None:
        """The noise in every band; None where there is too little of it.

        A few bins of noise are rarely as soft as their mean: by how much the quietest tenth of them lies below it
        follows from their number, as powers of noise are distributed (chi-squared, two degrees of freedom a bin, both
        channels taken for alike).
        """
        if int(np.sum(self._counts[0])) < _FEWEST_FRAMES:
            return None
        shares = special.gammaincinv(self._bins, _QUIETEST_SHARE) / self._bins
        return BandNoise(self._frame, self._starts, 10.0 ** (self._exceeded_db(_QUIETEST_SHARE) / 10.0) / shares)

    def stationarity(self) -> float | None:
        """How steady the noise is, 0 to 1; None where there is too little of it, or none."""
        if int(np.sum(self._counts[0])) < _FEWEST_FRAMES:
            return None
        low_db, high_db = (self._exceeded_db(share) for share in _STEADY_SHARES)
        wide = self._bins >= _FEWEST_STEADY_BINS
        weights = 10.0 ** (self._exceeded_db(_QUIETEST_SHARE)[wide] / 10.0)
        if np.sum(weights) <= np.count_nonzero(wide) * 10.0 ** ((_LOWEST_DB + _STEP_DB) / 10.0):
            return None
        over_db = np.maximum(0.0, (high_db - low_db)[wide] - _STEADY_SPREAD_DB)
        return float(np.average(np.exp(-over_db / _SPREAD_SCALE_DB), weights=weights))

    def _exceeded_db(self, share: float) -> NDArray[np.float64]:
        """The level that a share of the frames stays below, per band."""
        frames = int(np.sum(self._counts[0]))
        quiet = np.argmax(np.cumsum(self._counts, axis=1) >= share * frames, axis=1)
        return np.asarray(self._levels_db[quiet] + _STEP_DB / 2)
