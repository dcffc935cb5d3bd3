"""The numbers of the fusion: how likely each stem is at each frequency, and what each cue says for or against it.

Natural logarithms of odds, up to a constant per column that the softmax takes out. Fitted by gradient descent on the
stems' SDR and SI-SDR over demo songs 0 to 7 and mixtures of a published multitrack, some of them as mono, narrow, wide,
dull or rebalanced; see docs/benchmarks.md.
"""

from __future__ import annotations

# Frequencies between which the priors are interpolated over the logarithm of frequency; constant beyond the ends.
PRIOR_KNOTS_HERTZ = (
    20.0, 40.0, 60.0, 85.0, 120.0, 170.0, 240.0, 350.0, 500.0, 800.0, 1300.0, 2200.0, 4000.0, 8000.0, 14000.0, 24000.0,
)  # fmt: skip

# Log odds of each stem where no cue speaks, one per knot.
PRIORS = {
    "vocals": (
        -0.45, -0.63, -0.70, -0.63, -0.46, 0.31, 0.21, 0.03, 0.55, 0.43, 0.10, 0.25, 0.42, 0.10, -0.16, -0.13,
    ),
    "drums": (
        -0.52, -0.04, 0.70, 0.24, 0.38, -0.08, -0.43, -0.40, -0.43, -0.15, 0.04, 0.02, 0.15, 0.70, 0.86, 0.54,
    ),
    "bass": (
        1.24, 0.19, -0.23, 0.71, -0.01, -0.38, -0.48, -0.35, -0.30, -0.26, -0.22, -0.24, -0.29, -0.35, -0.30, -0.17,
    ),
    "other": (
        -0.27, 0.48, 0.24, -0.32, 0.10, 0.16, 0.69, 0.72, 0.17, -0.01, 0.08, -0.03, -0.28, -0.45, -0.41, -0.24,
    ),
}  # fmt: skip

# What one unit of each cue adds to the log odds of (vocals, drums, bass, other).
CUE_WEIGHTS = {
    "percussiveness": (0.83, 0.73, -0.01, -1.55),
    "steadiness": (-0.18, -0.08, -0.25, 0.50),
    "strike": (-0.61, -0.11, 0.61, 0.11),
    "centre": (0.80, -0.35, -0.49, 0.04),
    "distance": (-1.88, 0.82, -0.70, 1.76),
    "novelty": (0.56, 0.38, -0.47, -0.47),
    "local_stroke": (-0.11, 0.18, -0.08, 0.02),
    "stroke": (-0.88, 0.91, 0.34, -0.37),
    "peakedness": (-0.67, -0.02, 0.33, 0.36),
    "comb": (0.95, -0.27, -0.66, -0.02),
    "voiced": (0.31, 0.10, -0.12, -0.30),
    "activity": (1.09, -0.61, -0.21, -0.27),
    "recurrence": (0.38, -0.11, -0.45, 0.18),
    "level": (1.11, 0.23, 0.03, -1.37),
    "low_percussiveness": (-0.01, 0.05, -0.52, 0.48),
    "low_steadiness": (0.50, 0.50, 0.29, -1.28),
    "low_novelty": (-1.69, -0.07, 2.09, -0.33),
    "low_stroke": (0.13, -1.05, 0.24, 0.68),
    "low_attack": (-0.41, 0.92, -1.72, 1.21),
}
