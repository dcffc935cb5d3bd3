"""The auditory frequency scale: how many equivalent rectangular bandwidths (ERB) lie below a frequency.

    number = 21.4 lg(1 + 0.00437 f)

B. R. Glasberg and B. C. J. Moore, *Derivation of auditory filter shapes from notched-noise data*, Hearing Research 47,
1990. One step of the number is one band of hearing: two sounds within it cover one another.
"""

from __future__ import annotations

import math


def erb_number(hertz: float) -> float:
    """Number of equivalent rectangular bandwidths below ``hertz``."""
    return 21.4 * math.log10(1.0 + 0.00437 * hertz)


def erb_hertz(number: float) -> float:
    """The frequency below which ``number`` bands lie."""
    return float((10.0 ** (number / 21.4) - 1.0) / 0.00437)
