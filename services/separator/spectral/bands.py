"""Averages over musical intervals, and how far a bin stands out of its surroundings."""

from __future__ import annotations

import numpy as np

from services.separator.spectral.medians import Plane

# Added to powers so that ratios of silence are 0/0-free; -120 dBFS of a single full-scale bin and below.
POWER_FLOOR = np.float32(1e-10)


def interval_mean(plane: Plane, weights: Plane, octaves: float) -> Plane:
    """Weighted mean over the interval of the given width around each bin, at least the bin and its neighbours.

    Args:
        plane, weights: (steps, bins).
        octaves: full width of the interval.
    """
    bins = plane.shape[1]
    centre = np.arange(bins)
    low = np.maximum((centre / 2.0 ** (octaves / 2)).astype(np.intp) - 1, 0)
    high = np.minimum((centre * 2.0 ** (octaves / 2)).astype(np.intp) + 2, bins)
    summed = _running_sum(plane * weights)
    weighed = _running_sum(weights)
    # The ratio of two tiny sums means nothing; the floor makes it 0.
    return np.asarray(
        (summed[:, high] - summed[:, low]) / (weighed[:, high] - weighed[:, low] + 1e-20), dtype=np.float32
    )


def contrast(power: Plane, reference: Plane) -> Plane:
    """(power - reference) / (power + reference): -1 far below, 0 equal, 1 far above."""
    return np.asarray((power - reference) / (power + reference), dtype=np.float32)


def peakedness(power: Plane) -> Plane:
    """Contrast of each bin to the mean of half an octave around it: partials stand out, noise and the gaps between
    partials do not.
    """
    return contrast(power, interval_mean(power, np.ones_like(power), 0.5) + POWER_FLOOR)


def relative_level(power: Plane, mean_power: Plane) -> Plane:
    """Level against the usual level of that frequency region: log10 power ratio halved, within -1.5..1.5 (30 dB
    either way).

    Args:
        power: (steps, bins).
        mean_power: (1, bins), mean over the surrounding seconds.
    """
    usual = interval_mean(mean_power, np.ones_like(mean_power), 0.5) + POWER_FLOOR
    return np.asarray(np.clip(0.5 * np.log10(power / usual), -1.5, 1.5), dtype=np.float32)


def _running_sum(plane: Plane) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Sums from the first bin on, one column longer than the plane."""
    sums = np.zeros((plane.shape[0], plane.shape[1] + 1))
    np.cumsum(plane, axis=1, dtype=np.float64, out=sums[:, 1:])
    return sums
