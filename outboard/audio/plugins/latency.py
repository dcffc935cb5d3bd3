"""How late a plugin really is: what it says of itself held against an impulse that went through it.

A wrong figure would put a strip beside the others by so many frames. But not all that comes late is latency: a filter
smears, a linear-phase one rings before its peak, and an echo is meant to be late. So the figure that a plugin tells
counts unless the response contradicts it:

    one sample holds nearly all energy     it is where the sound arrives, to the frame
    a response that is spread              what was told counts if it lies between the onset (a tenth of the peak) and
                                           the peak, within a millisecond; else the peak does
    nothing came back, or too late         what was told counts: a gate stays shut, an echo is no latency
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IMPULSE = 0.25
"""Height of the impulse: -12 dBFS, which bends and presses little and opens most gates."""
LONGEST_SECONDS = 0.1
"""What arrives later than this, and later than it was told, is an effect."""

_SHARP_SHARE = 0.8
_ONSET_SHARE = 0.1
_SMEAR_SECONDS = 1e-3
_SILENT = 1e-6 * IMPULSE


def true_latency_frames(response: NDArray[np.float32], reported_frames: int, sample_rate_hertz: int) -> int:
    """Latency in frames.

    Args:
        response: ``(channels, frames)`` to an impulse of height `IMPULSE` in the first frame.
        reported_frames: what the plugin says.
        sample_rate_hertz: of both.
    """
    size = np.sqrt(np.sum(np.square(response.astype(np.float64)), axis=0))
    peak = int(np.argmax(size)) if size.size else 0
    longest = max(reported_frames, round(LONGEST_SECONDS * sample_rate_hertz))
    if not size.size or size[peak] < _SILENT or peak > longest:
        return reported_frames
    if size[peak] ** 2 >= _SHARP_SHARE * float(np.sum(size**2)):
        return peak
    onset = int(np.argmax(size >= _ONSET_SHARE * size[peak]))
    smear = round(_SMEAR_SECONDS * sample_rate_hertz)
    return reported_frames if onset - smear <= reported_frames <= peak + smear else peak
