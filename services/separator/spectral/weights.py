"""The numbers of the fusion: how likely each stem is at each frequency, and what each cue says for or against it.

Natural logarithms of odds, up to a constant per row that the softmax takes out (the columns sum to about zero).
Fitted by gradient descent on the stems' SDR over demo songs 0 to 7 and mixtures of a published multitrack, some of
them as mono, narrow, wide, dull or rebalanced; see docs/benchmarks.md.
"""

from __future__ import annotations

# Frequencies between which the priors are interpolated over the logarithm of frequency; constant beyond the ends.
PRIOR_KNOTS_HERTZ = (20.0, 40.0, 60.0, 85.0, 120.0, 170.0, 240.0, 350.0, 500.0, 800.0, 1300.0, 2200.0, 4000.0,
8000.0, 14000.0, 24000.0)  # fmt: skip

# Log odds of each stem where no cue speaks, one per knot.
PRIORS = {
    "vocals": (-2.04, -2.08, -2.05, -1.76, -1.13, 0.38, 0.93, 1.14, 1.70, 1.67, 1.35, 1.64, 1.87, 1.52, 1.34, 1.25),
    "drums": (0.33, 1.11, 1.58, 0.86, 0.86, 0.38, -0.47, -0.71, -0.95, -0.70, -0.52, -0.51, -0.24, 0.46, 0.82, 0.87),
    "bass": (2.36, 0.67, 0.11, 1.26, 0.45, -0.65, -1.44, -1.70, -1.67, -1.61, -1.54, -1.53, -1.54, -1.56, -1.55, -1.51),
    "other": (-0.65, 0.30, 0.35, -0.36, -0.18, -0.12, 0.98, 1.27, 0.92, 0.64, 0.71, 0.39, -0.09, -0.42, -0.61, -0.60),
}  # fmt: skip

# What one unit of each cue adds to the log odds of (vocals, drums, bass, other).
CUE_WEIGHTS = {
    "percussiveness": (1.34, 1.25, -0.65, -1.94),
    "steadiness": (-0.06, -0.61, 0.67, 0.00),
    "strike": (-0.91, -0.54, 0.95, 0.50),
    "centre": (0.19, -0.11, -0.33, 0.25),
    "distance": (-2.14, 1.55, -1.92, 2.50),
    "novelty": (0.38, 0.01, 0.26, -0.64),
    "local_stroke": (-0.31, 0.05, -0.15, 0.41),
    "stroke": (-1.37, 0.41, 1.02, -0.06),
    "peakedness": (-1.22, -0.35, 1.14, 0.43),
    "comb": (1.38, -0.39, -0.96, -0.04),
    "voiced": (0.56, 0.28, -0.29, -0.55),
    "activity": (1.78, -1.41, -0.82, 0.45),
    "recurrence": (0.59, 0.10, -0.80, 0.10),
    "level": (1.95, 0.52, -1.53, -0.94),
    "low_percussiveness": (0.00, 0.00, 0.00, 0.00),
    "low_steadiness": (0.00, 0.00, 0.00, 0.00),
}
