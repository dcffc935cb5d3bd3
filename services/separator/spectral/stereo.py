"""Where in the stereo picture a bin lies: lead voice, bass and kick are in the centre, pads, guitars and rooms are
wide.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d

from outboard.audio.overlap_add import Spectra
from services.separator.spectral.bands import POWER_FLOOR
from services.separator.spectral.medians import Plane

# Bins and steps over which the covariance of the channels is averaged: fewer would call any single bin coherent.
SMOOTHING = 3


def position(spectra: Spectra) -> tuple[Plane, Plane]:
    """In-phase similarity of the channels and distance from the centre.

    Args:
        spectra: (steps, channels, bins).

    Returns:
        Similarity 2 Re(L R*) / (|L|^2 + |R|^2) in -1..1 (1: the same in both channels; Avendano & Jot 2002), and
        level difference | |L|^2 - |R|^2 | / (|L|^2 + |R|^2) in 0..1, each (steps, bins). A single channel lies in
        the centre.
    """
    if spectra.shape[1] == 1:
        shape = (spectra.shape[0], spectra.shape[2])
        return np.ones(shape, np.float32), np.zeros(shape, np.float32)
    left, right = spectra[:, 0], spectra[:, 1]
    left_power = _smooth(left.real**2 + left.imag**2) + POWER_FLOOR / 2
    right_power = _smooth(right.real**2 + right.imag**2) + POWER_FLOOR / 2
    common = _smooth(left.real * right.real + left.imag * right.imag)
    total = left_power + right_power
    return (
        np.asarray(2.0 * common / total, dtype=np.float32),
        np.asarray(np.abs(left_power - right_power) / total, dtype=np.float32),
    )


def _smooth(plane: Plane) -> Plane:
    along = uniform_filter1d(plane, SMOOTHING, axis=0, mode="nearest")
    return np.asarray(uniform_filter1d(along, SMOOTHING, axis=1, mode="nearest"), dtype=np.float32)
