"""Mid and side: width, balance, mono-safe bass, and the meters that judge them.

    mid = (left + right) / 2,   side = (left - right) / 2,   left = mid + side,   right = mid - side

Width scales the side signal and never touches the mid, so the mono sum is what it was. The bass is made mono by
taking the side signal through a high-pass (the elliptical equaliser of vinyl cutting).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import signal

from outboard.audio.filters import Audio, SosFilter, butterworth_high_pass, to_float32

PanLaw = Literal["balance", "constant_power", "constant_sum"]

# Side gains above this make mono listeners lose what stereo listeners hear.
MAX_SIDE_GAIN = 1.4
# Taps of the band-by-band filters, odd.
FIELD_TAPS = 2047
# Below this no side signal is rolled off.
_LOWEST_HERTZ = 1.0


def mid_side(block: NDArray[Any]) -> NDArray[np.float64]:
    """Rows mid and side of a stereo block ``(2, frames)``."""
    left, right = np.asarray(block[0], np.float64), np.asarray(block[1], np.float64)
    return np.stack([0.5 * (left + right), 0.5 * (left - right)])


def left_right(block: NDArray[Any]) -> NDArray[np.float64]:
    """Rows left and right of a mid/side block ``(2, frames)``."""
    return np.stack([block[0] + block[1], block[0] - block[1]])


@dataclass(frozen=True)
class WidthSettings:
    """All numbers of one width stage.

    Attributes:
        side_gain: factor on the side signal, 0 (mono) to 1.4.
        mono_below_hertz: under this corner the side signal is rolled off by 12 dB an octave; under 1 Hz: nowhere.
        balance: -1 (right only) to 1 (left only): ``left * min(1, 1 + b)``, ``right * min(1, 1 - b)``.
    """

    side_gain: float = 1.0
    mono_below_hertz: float = 0.0
    balance: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.side_gain <= MAX_SIDE_GAIN:
            raise ValueError(f"side_gain must be in 0..{MAX_SIDE_GAIN}, not {self.side_gain}")
        if not -1.0 <= self.balance <= 1.0:
            raise ValueError(f"balance must be in -1..1, not {self.balance}")


class Width:
    """One width stage at work on stereo blocks; latency 0; with default settings the output is the input exactly."""

    def __init__(self, settings: WidthSettings, sample_rate_hertz: int) -> None:
        self.settings = settings
        self._high_pass = (
            SosFilter(butterworth_high_pass(settings.mono_below_hertz, sample_rate_hertz), 1)
            if settings.mono_below_hertz >= _LOWEST_HERTZ
            else None
        )

    def process(self, block: Audio) -> Audio:
        """Processed copy of a stereo block ``(2, frames)``; the block itself where there is nothing to do."""
        s = self.settings
        if s == WidthSettings():
            return block
        mid, side = mid_side(block)
        wide = side if self._high_pass is None else self._high_pass.process(side[np.newaxis])[0]
        out = left_right(np.stack([mid, s.side_gain * wide]))
        out[0] *= min(1.0, 1.0 + s.balance)
        out[1] *= min(1.0, 1.0 - s.balance)
        return to_float32(out)


@dataclass(frozen=True)
class StereoFieldBand:
    """What happens to the sides within one band.

    Attributes:
        low_hertz: lower edge.
        high_hertz: upper edge.
        side_gain: factor on the side signal, 0 to 1.4.
        recentre: share of the mid signal taken out of the side signal, -1 to 1: a band that leans to the left by
            ``side = a * mid + ...`` is centred by ``a``.
    """

    low_hertz: float
    high_hertz: float
    side_gain: float = 1.0
    recentre: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.low_hertz < self.high_hertz:
            raise ValueError(f"a band needs 0 < low_hertz < high_hertz, not {self.low_hertz}..{self.high_hertz}")
        if not 0.0 <= self.side_gain <= MAX_SIDE_GAIN:
            raise ValueError(f"side_gain must be in 0..{MAX_SIDE_GAIN}, not {self.side_gain}")
        if not -1.0 <= self.recentre <= 1.0:
            raise ValueError(f"recentre must be in -1..1, not {self.recentre}")


class StereoFieldFilter:
    """Width and centre band by band: ``side' = W * (side - C * mid)`` with two symmetric FIRs; the mid is only
    delayed.

    Linear phase keeps side and mid aligned, which is what a place between the speakers is made of. Edges between
    bands are as sharp as ``FIELD_TAPS`` make them (about 50 Hz at 48 kHz). Outside of all bands the side passes on
    unchanged.
    """

    def __init__(self, bands: tuple[StereoFieldBand, ...], sample_rate_hertz: int) -> None:
        self.latency_frames = FIELD_TAPS // 2
        grid = np.fft.rfftfreq(8 * (FIELD_TAPS + 1), 1.0 / sample_rate_hertz)
        width, centre = np.ones(len(grid)), np.zeros(len(grid))
        for band in bands:
            inside = (grid >= band.low_hertz) & (grid < band.high_hertz)
            width[inside] = band.side_gain
            centre[inside] = -band.side_gain * band.recentre
        self._side_taps, self._mid_taps = _symmetric_taps(width), _symmetric_taps(centre)
        self._history = np.zeros((2, FIELD_TAPS - 1))

    def process(self, block: Audio) -> Audio:
        """As many frames as the stereo ``block`` has, ``latency_frames`` late."""
        joined = np.concatenate([self._history, mid_side(block)], axis=1)
        self._history = joined[:, joined.shape[1] - (FIELD_TAPS - 1) :].copy()
        frames = block.shape[1]
        mid = joined[0, self.latency_frames : self.latency_frames + frames]
        side = signal.oaconvolve(joined[1], self._side_taps, mode="valid")
        side += signal.oaconvolve(joined[0], self._mid_taps, mode="valid")
        return to_float32(left_right(np.stack([mid, side])))


def _symmetric_taps(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """FIR of ``FIELD_TAPS`` taps whose real gains are given on a dense grid from 0 Hz to Nyquist."""
    half = FIELD_TAPS // 2
    response = np.roll(np.fft.irfft(gains), half)[:FIELD_TAPS]
    taps: NDArray[np.float64] = response * np.hanning(FIELD_TAPS + 2)[1:-1]
    return taps


def pan_gains(pan: float, law: PanLaw = "balance") -> tuple[float, float]:
    """Factors on left and right; all laws are 1 and 1 in the middle and leave nothing on the far side of an edge.

        balance         min(1, 1 - p), min(1, 1 + p)       nothing is lifted: of stereo sounds
        constant_power  sqrt(2) cos a, sqrt(2) sin a       a = (p + 1) pi / 4: one power, +3 dB at an edge
        constant_sum    1 - p, 1 + p                       one mono sum, +6 dB at an edge

    Args:
        pan: -1 left to 1 right.
        law: see above.

    Raises:
        ValueError: a position outside of that, or a law that there is not.
    """
    if not -1.0 <= pan <= 1.0:
        raise ValueError(f"pan must be in -1..1, not {pan}")
    if law == "balance":
        return min(1.0, 1.0 - pan), min(1.0, 1.0 + pan)
    if law == "constant_sum":
        return 1.0 - pan, 1.0 + pan
    if law != "constant_power":
        raise ValueError(f"there is no pan law {law!r}: balance, constant_power, constant_sum")
    if pan == 0.0:
        return 1.0, 1.0
    # The sine of what is left to the other edge is exactly 0 there, which the cosine is not.
    left, right = (math.sqrt(2.0) * math.sin((1.0 + side * pan) * math.pi / 4.0) for side in (-1.0, 1.0))
    return left, right


@njit(nogil=True, cache=True)
def _energies(block: NDArray[Any]) -> tuple[float, float, float]:  # pragma: no cover - compiled
    """Sums of left squared, right squared and their product.

    A library's dot product would wake a thread per core for every block, and wait for them on a busy machine.
    """
    left = right = cross = 0.0
    for i in range(block.shape[1]):
        x, y = np.float64(block[0, i]), np.float64(block[1, i])
        left += x * x
        right += y * y
        cross += x * y
    return left, right, cross


class StereoMeter:
    """Energies of a stereo stream, gathered block by block (in fixed order, so cutting changes rounding only)."""

    def __init__(self) -> None:
        self._left = self._right = self._cross = 0.0
        self.frames = 0

    def process(self, block: NDArray[Any]) -> None:
        """Take in a stereo block ``(2, frames)``."""
        left, right, cross = _energies(block)
        self._left += left
        self._right += right
        self._cross += cross
        self.frames += block.shape[1]

    @property
    def correlation(self) -> float | None:
        """Of left and right, -1 to 1 (not mean-free: levels of phase meters); None when a side is silent."""
        if self._left <= 0.0 or self._right <= 0.0:
            return None
        return self._cross / math.sqrt(self._left * self._right)

    @property
    def rms_dbfs(self) -> float | None:
        """Root mean square over both channels; None for silence."""
        total = self._left + self._right
        return 10.0 * math.log10(total / (2.0 * self.frames)) if total > 0.0 else None

    @property
    def mid_side_ratio_db(self) -> float | None:
        """Energy of side over mid in dB; None for silence, floor and ceiling at 120 dB."""
        total = self._left + self._right
        if total <= 0.0:
            return None
        mid, side = max(total + 2 * self._cross, 0.0), max(total - 2 * self._cross, 0.0)
        return 10.0 * math.log10(max(side, 1e-12 * total) / max(mid, 1e-12 * total))
