"""Soft masks from cues: a prior per stem and frequency, plus evidence times weight, through a softmax, so that masks
sum to one.

This is a log-linear posterior: each cue multiplies a stem's odds by ``exp(weight * cue)``, and the prior is the odds
where no cue speaks. Vocals, drums, bass and other each have one weight per cue and one prior per knot of a
logarithmic frequency axis; that is all there is to learn, and it was fitted on seeded demo songs and on mixtures of
one published multitrack (see docs/benchmarks.md).

In the low end, where the bass is often 20 dB above everything, even a small share of it in a wrong stem is louder
than that stem: odds are sharpened there, so that a doubtful bin goes to its likeliest stem.
"""

from __future__ import annotations

import numpy as np

from services.separator.spectral.cues import CUES
from services.separator.spectral.grid import Grid
from services.separator.spectral.medians import Plane
from services.separator.spectral.weights import CUE_WEIGHTS, PRIOR_KNOTS_HERTZ, PRIORS

# Factor on the odds up to the first frequency, 1 from the second on.
LOW_SHARPNESS = 1.5
LOW_SHARPNESS_HERTZ = (100.0, 250.0)


class Fusion:
    """Masks on one grid."""

    def __init__(self, grid: Grid) -> None:
        octaves = np.log2(np.clip(grid.hertz, PRIOR_KNOTS_HERTZ[0], PRIOR_KNOTS_HERTZ[-1]))
        knots = np.log2(PRIOR_KNOTS_HERTZ)
        self._prior = np.stack([np.interp(octaves, knots, prior) for prior in PRIORS.values()]).astype(np.float32)
        self._weights = np.array([CUE_WEIGHTS[cue] for cue in CUES], dtype=np.float32).T.copy()
        self._sharpness = np.interp(grid.hertz, LOW_SHARPNESS_HERTZ, (LOW_SHARPNESS, 1.0)).astype(np.float32)

    def masks(self, cues: Plane) -> Plane:
        """Masks of vocals, drums, bass and other.

        Args:
            cues: (cues, steps, bins).

        Returns:
            (stems, steps, bins), in 0..1, summing to one.
        """
        odds = np.tensordot(self._weights, cues, axes=1) + self._prior[:, None]
        odds *= self._sharpness
        np.exp(odds - np.max(odds, axis=0), out=odds)
        return np.asarray(odds / np.sum(odds, axis=0), dtype=np.float32)
