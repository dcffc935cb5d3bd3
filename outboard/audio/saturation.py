"""Saturation: harmonics from a bent curve, made at eight times the sample rate so that they do not fold back.

    y = x + mix * (f(b) - b),   b: the signal, or one band of it

Every curve has slope 1 at the origin, so quiet sound passes as it is, and works on `g b` with `g` the drive, divided by
`g` again:

    tanh   tanh(v)                         odd harmonics
    tape   v / sqrt(1 + v^2)               odd harmonics, a slower bend
    tube   (tanh(v + 0.3) - tanh(0.3)) / (1 - tanh(0.3)^2)    even and odd harmonics; its offset is filtered out
    clip   v up to 0.7, then a parabola that reaches 1 with slope 0 at 1.3 (a cubic-like soft clipper)

A memoryless curve makes harmonics without end, and those above Nyquist fold. At 8 times the rate only harmonics beyond
15 times Nyquist fold into what is heard, and they fall at least with the third power of their number (the curves and
their slopes are continuous). Only the *difference* that the curve makes goes through the resamplers (soxr HQ, linear
phase, 100 dB of rejection): the dry path is a delay, exact to the bit (J. D. Parker, V. Zavalishin, E. Le Bivic,
*Reducing the aliasing of nonlinear waveshaping using continuous-time convolution*, DAFx 2016, on why; oversampling is
the plain answer to it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from outboard.audio.dynamics import Delay
from outboard.audio.filters import (
    Audio,
    SosFilter,
    butterworth_high_pass,
    butterworth_low_pass,
    to_float32,
)

SaturationCurve = Literal["tanh", "tape", "tube", "clip"]

OVERSAMPLING = 8
LATENCY_FRAMES = 4096
"""Of every saturator: more than the two resamplers ever hold back."""

_CURVES = ("tanh", "tape", "tube", "clip")
_QUALITY = "HQ"
_CHUNK_FRAMES = 16384
_TUBE_BIAS = 0.3
_CLIP_KNEE = 0.7
_TAPE_END = np.float32(1e15)  # the curve has long been 1 there, and squares still fit into a float
_OFFSET_CORNER_HERTZ = 10.0
_LARGEST = 1e30  # sums of larger samples would not stay finite in the resamplers


@dataclass(frozen=True)
class SaturatorSettings:
    """All numbers of one saturator.

    Attributes:
        curve: see the module.
        drive_db: gain in front of the curve, taken back behind it, -24 to 48: how far into the bend full scale comes.
        mix: share of what the curve changes, 0 to 1.
        low_hertz: the curve works on what lies above this only; None: on everything down to DC.
        high_hertz: and on what lies below this only; None: up to Nyquist.
    """

    curve: SaturationCurve = "tanh"
    drive_db: float = 0.0
    mix: float = 1.0
    low_hertz: float | None = None
    high_hertz: float | None = None

    def __post_init__(self) -> None:
        if self.curve not in _CURVES:
            raise ValueError(f"curve must be one of {', '.join(_CURVES)}, not {self.curve!r}")
        if not -24.0 <= self.drive_db <= 48.0:
            raise ValueError(f"drive_db must be in -24..48, not {self.drive_db}")
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"mix must be in 0..1, not {self.mix}")
        low, high = self.low_hertz, self.high_hertz
        if min(x for x in (low, high, math.inf) if x is not None) <= 0.0:
            raise ValueError(f"edges must be above 0 Hz, not {low}..{high}")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"a band needs low_hertz < high_hertz, not {low}..{high}")


def shape(values: NDArray[np.float32], curve: SaturationCurve, gain: float) -> NDArray[np.float32]:
    """The curve at some values, with `gain` (linear) in front and taken back behind; any shape, float32."""
    v = values * np.float32(gain)
    if curve == "tanh":
        bent = np.tanh(v)
    elif curve == "tape":
        held = np.clip(v, -_TAPE_END, _TAPE_END)
        bent = held / np.sqrt(np.float32(1.0) + held * held)
    elif curve == "tube":
        bias = np.float32(_TUBE_BIAS)
        rest = np.tanh(bias)  # as the curve reads it, so that silence is exactly 0
        bent = (np.tanh(v + bias) - rest) * np.float32(1.0 / (1.0 - rest * rest))
    else:
        size = np.minimum(np.abs(v), np.float32(2.0 - _CLIP_KNEE))
        over = np.maximum(size - np.float32(_CLIP_KNEE), np.float32(0.0))
        bent = np.copysign(size - over * over * np.float32(0.25 / (1.0 - _CLIP_KNEE)), v)
    done: NDArray[np.float32] = bent * np.float32(1.0 / gain)
    return done


class Saturator:
    """One saturator at work; its output is `latency_frames` late. With a mix of 0 it is not there: latency 0, exact."""

    def __init__(self, settings: SaturatorSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self.latency_frames = LATENCY_FRAMES if settings.mix > 0.0 else 0
        self._gain = 10.0 ** (settings.drive_db / 20.0)
        self._band = _band_filter(settings, sample_rate_hertz, channels)
        self._delay = Delay(channels, LATENCY_FRAMES)
        fast = sample_rate_hertz * OVERSAMPLING
        self._up = soxr.ResampleStream(sample_rate_hertz, fast, channels, dtype="float32", quality=_QUALITY)
        self._down = soxr.ResampleStream(fast, sample_rate_hertz, channels, dtype="float32", quality=_QUALITY)
        # What the resamplers hold back comes out of this queue of silence.
        self._ready = np.zeros((channels, LATENCY_FRAMES), np.float32)
        self._offset = (
            SosFilter(butterworth_high_pass(_OFFSET_CORNER_HERTZ, sample_rate_hertz, 1), channels)
            if settings.curve == "tube"
            else None
        )

    def process(self, block: Audio) -> Audio:
        """As many frames as ``block`` (channels, frames) has, ``latency_frames`` late."""
        if not self.latency_frames:
            return block
        starts = range(0, block.shape[1], _CHUNK_FRAMES)
        changes = [self._change(block[:, start : start + _CHUNK_FRAMES]) for start in starts]
        ready = np.concatenate([self._ready, *changes], axis=1)
        self._ready = ready[:, block.shape[1] :].copy()
        change = ready[:, : block.shape[1]]
        if self._offset is not None:
            change = self._offset.process(change)
        dry = self._delay.process(block)
        return to_float32(np.float64(self.settings.mix) * change + dry)

    def _change(self, block: Audio) -> Audio:
        """What the curve changes, as the resamplers let it out."""
        band = block if self._band is None else self._band.process(block)
        held = np.clip(band.T, -_LARGEST, _LARGEST)
        fast = self._up.resample_chunk(np.ascontiguousarray(held, dtype=np.float32))
        change: NDArray[np.float32] = self._down.resample_chunk(shape(fast, self.settings.curve, self._gain) - fast)
        return change.T


def _band_filter(settings: SaturatorSettings, sample_rate_hertz: int, channels: int) -> SosFilter | None:
    sections = []
    if settings.low_hertz is not None:
        sections.append(butterworth_high_pass(settings.low_hertz, sample_rate_hertz))
    if settings.high_hertz is not None:
        sections.append(butterworth_low_pass(settings.high_hertz, sample_rate_hertz))
    return SosFilter(np.concatenate(sections), channels) if sections else None
