"""What a network takes from a voice, held against the noise that was found in every band.

A network made for speech takes for noise what it does not know: breath, whispers, vowels that are held long. The noise
beneath a stem is known band by band (`services.restorer.noise`). Where what is taken exceeds it, in a band and over a
tenth of a second, the voice was taken along: then less is taken, the further it exceeds, the less. Noise between
the partials and above them goes, and the partials stay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio.overlap_add import added_by_position, spectra_by_position, square_root_hann
from services.restorer.noise import BandNoise

Audio = NDArray[np.float32]

MARGIN_DB = 6.0  # above the noise found: it is not quite steady, and neither are its levels over a tenth of a second
HOPS_PER_CELL = 256
_HOPS_PER_WINDOW = 4
_SMOOTH_FRAMES = 19  # of 5 ms
_TINY = 1e-20


class NoiseGuard:
    """Gives back what was taken of the voice, cell by cell, by position.

    Args:
        noise: found in the stem.
    """

    def __init__(self, noise: BandNoise) -> None:
        self._size = noise.frame
        self._hop = noise.frame // _HOPS_PER_WINDOW
        self.cell_frames = self._hop * HOPS_PER_CELL
        self.lookaround_frames = (_SMOOTH_FRAMES // 2 + _HOPS_PER_WINDOW - 1) * self._hop
        self._window = square_root_hann(self._size)
        # From |X|^2 of one-sided bins to mean power.
        self._scale = 2.0 / (self._size * float(np.sum(self._window.astype(np.float64) ** 2)))
        self._allowed = noise.power * 10.0 ** (MARGIN_DB / 10.0)
        self._starts = noise.starts
        middles = (noise.starts + np.append(noise.starts[1:], self._size // 2 + 1) - 1) / 2.0
        places = np.interp(np.arange(self._size // 2 + 1), middles, np.arange(middles.size))
        self._lower = np.minimum(places.astype(np.int64), middles.size - 2)
        self._part = (places - self._lower).astype(np.float32)

    def noise_of(self, taken: Audio) -> Audio:
        """The part of what was taken from one cell that is noise, (channels, cell_frames).

        Args:
            taken: (channels, `cell_frames` + 2 `lookaround_frames`): stem less what the network gives for it, with its
                surroundings (silence past the ends).
        """
        spectra = spectra_by_position(taken, self._window, self._hop)
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=1)
        bands = np.add.reduceat(power, self._starts, axis=1) * self._scale
        smooth = np.maximum(ndimage.uniform_filter1d(bands, _SMOOTH_FRAMES, axis=0, mode="nearest"), _TINY)
        shares = np.minimum(1.0, self._allowed / smooth).astype(np.float32)
        gains = shares[:, self._lower] * (1.0 - self._part) + shares[:, self._lower + 1] * self._part
        total = added_by_position(spectra * gains[:, None, :], self._window, self._hop, taken.shape[1])
        return total[:, self.lookaround_frames : self.lookaround_frames + self.cell_frames]
