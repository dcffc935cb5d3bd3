"""The numbers of the fusion: how likely each stem is at each frequency, and what each cue says for or against it.

Natural logarithms of odds, up to a constant per column that the softmax takes out. Fitted by gradient descent on the stems' SDR over demo
songs 0 to 7 and mixtures of a published multitrack, some of them as mono, narrow, wide, dull or rebalanced; see docs/benchmarks.md.
"""

from __future__ import annotations

# Frequencies between which the priors are interpolated over the logarithm of frequency; constant beyond the ends.
PRIOR_KNOTS_HERTZ = (
    20.0, 40.0, 60.0, 85.0, 120.0, 170.0, 240.0, 350.0, 500.0, 800.0, 1300.0, 2200.0, 4000.0, 8000.0, 14000.0, 24000.0,
)  # fmt: skip

# Log odds of each stem where no cue speaks, one per knot.
PRIORS = {
    "vocals": (-1.27, -1.28, -1.27, -1.15, -0.80, 0.18, 0.50, 0.55, 1.14, 1.01, 0.76, 1.00, 1.27, 1.05, 0.72, 0.66),
    "drums": (0.27, 0.67, 1.17, 0.64, 0.81, 0.17, -0.38, -0.64, -0.60, -0.13, 0.26, 0.36, 0.59, 1.17, 1.61, 1.64),
    "bass": (1.27, 0.14, -0.25, 0.65, -0.18, -0.64, -1.03, -1.06, -1.07, -1.10, -1.12, -1.15, -1.19, -1.21, -1.20, -1.17),
    "other": (-0.27, 0.47, 0.34, -0.14, 0.17, 0.28, 0.91, 1.15, 0.53, 0.23, 0.10, -0.21, -0.68, -1.02, -1.14, -1.13),
}  # fmt: skip

# What one unit of each cue adds to the log odds of (vocals, drums, bass, other).
CUE_WEIGHTS = {
    "percussiveness": (1.16, 0.89, 0.03, -2.09),
    "steadiness": (-0.03, -0.31, -0.44, 0.78),
    "strike": (-0.78, -0.44, 0.86, 0.36),
    "centre": (0.75, -0.33, -0.74, 0.32),
    "distance": (-3.43, 1.73, -1.01, 2.71),
    "novelty": (0.57, 0.27, -0.27, -0.57),
    "local_stroke": (-0.18, -0.10, -0.29, 0.57),
    "stroke": (-1.53, 2.35, 0.74, -1.56),
    "peakedness": (-0.97, -0.03, 0.32, 0.69),
    "comb": (1.16, -0.39, -0.75, -0.02),
    "voiced": (0.43, 0.05, 0.03, -0.50),
    "activity": (1.34, -1.54, 0.27, -0.07),
    "recurrence": (0.50, -0.22, -0.58, 0.31),
    "level": (1.38, 0.31, 0.69, -2.37),
    "low_percussiveness": (-0.37, 0.07, -0.33, 0.63),
    "low_steadiness": (0.75, 0.52, 0.49, -1.76),
    "low_novelty": (-1.04, 0.36, 1.38, -0.71),
    "low_stroke": (0.79, -2.96, 0.41, 1.77),
    "low_attack": (-0.72, 1.43, -2.34, 1.64),
    "low_depth": (-0.52, -1.79, 1.56, 0.74),
}
