"""Shimmer index: metallic ringing, narrow peaks between 8 and 12 kHz that stay in place.

Upsampling layers and vocoders leave tones that do not move with the notes. In a mean of *logarithmic* spectra over
about 3 s such a tone stands out of its surroundings, while noise averages to a smooth floor and moving partials are
smeared out. Per such window (64 frames, half overlapped), the excess of each bin over the running median of 400 Hz,
less what chance gives, is averaged over 8 to 12 kHz: the prominence, in decibels. Held harmonics of a synthesiser or
a harmonica stand out too, but even more so lower down; so the same prominence at 3.5 to 7 kHz is taken off. The index
is ``1 - exp(-p / 0.8)`` with p the mean over the sounding windows (within 50 dB of the loudest); clean recordings
give p of 0.00 to 0.02. Each frame's floor is 90 dB under its own level, and all is a ratio, so gain does not matter.
None where the sampling rate ends under 12.6 kHz, under 1.4 s, and for silence.
"""

from __future__ import annotations

import math
from array import array

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from outboard.audio.spectrum import SpectrumBatch

_CORE_HERTZ = (8000.0, 12000.0)
_COMPARED_HERTZ = (3500.0, 7000.0)
_MARGIN_HERTZ = 600.0
_MEDIAN_HERTZ = 400.0
_CHANCE_DB = 20.0  # over the square root of the number of frames: about 3.5 deviations of a mean of log spectra
_SCALE_DB = 0.8
_FRAME_FLOOR = 1e-9
_ACTIVE_POWER = 1e-5
_LEAST_FRAMES = 32


class ShimmerMeter:
    """Averages log spectra per batch; a window is two successive batches."""

    def __init__(self, bin_hertz: float, bins: int) -> None:
        self._measurable = (bins - 1) * bin_hertz >= _CORE_HERTZ[1] + _MARGIN_HERTZ
        self._median_bins = max(3, round(_MEDIAN_HERTZ / bin_hertz) | 1)
        self._previous: tuple[NDArray[np.float32], float, int] | None = None
        self._windows = 0
        self._prominences = array("d")
        self._powers = array("d")

    def take(self, batch: SpectrumBatch) -> None:
        """Add a batch."""
        frames = batch.power.shape[0]
        total = batch.power.sum(axis=1, keepdims=True)
        if not self._measurable or not total.any():
            return
        span = batch.band(_COMPARED_HERTZ[0] - _MARGIN_HERTZ, _CORE_HERTZ[1] + _MARGIN_HERTZ)
        logs = 10 * np.log10(batch.power[:, span] + _FRAME_FLOOR * total + 1e-30)
        current = (logs.sum(axis=0), float(total.sum()), frames)
        previous = self._previous or (np.zeros_like(current[0]), 0.0, 0)
        count = frames + previous[2]
        if count >= 2 * _LEAST_FRAMES or (self._windows == 0 and count >= _LEAST_FRAMES):
            self._measure((current[0] + previous[0]) / count, count, batch, span.start)
            self._powers.append((current[1] + previous[1]) / count)
        self._previous = current

    def _measure(self, mean_db: NDArray[np.float32], frames: int, batch: SpectrumBatch, first: int) -> None:
        excess = mean_db - scipy.ndimage.median_filter(mean_db, self._median_bins) - _CHANCE_DB / math.sqrt(frames)
        core, compared = (
            float(np.maximum(excess[band.start - first : band.stop - first], 0.0).mean())
            for band in (batch.band(*_CORE_HERTZ), batch.band(*_COMPARED_HERTZ))
        )
        self._prominences.append(max(0.0, core - compared))
        self._windows += 1

    @property
    def shimmer_index(self) -> float | None:
        """See the module; None where it cannot be measured."""
        powers = np.array(self._powers)
        active = powers > _ACTIVE_POWER * powers.max() if len(powers) else np.zeros(0, bool)
        if not active.any():
            return None
        return 1.0 - math.exp(-float(np.array(self._prominences)[active].mean()) / _SCALE_DB)
