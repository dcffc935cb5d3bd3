"""Second-order sections: biquads, shelves, Butterworth and Linkwitz-Riley, and the filter that runs them.

Every design returns ``sos``: float64, shape ``(sections, 6)``, rows ``b0 b1 b2 a0 a1 a2`` with ``a0 = 1`` (SciPy's).

Sources: R. Bristow-Johnson, *Cookbook formulae for audio EQ biquad filter coefficients* (peaking, shelves, band-pass,
notch, all-pass: the bilinear transform of an analogue prototype, so the digital response at f equals the prototype's at
``tan(pi f / rate) / tan(pi f0 / rate)``); S. Linkwitz, *Active crossover networks for noncoincident drivers*, JAES 1976
(two Butterworth filters in a row on either side: the sum is an all-pass).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import signal

Sos = NDArray[np.float64]
Audio = NDArray[np.float32]

BUTTERWORTH_Q = math.sqrt(0.5)
# Outputs smaller than this (-600 dBFS) are zero: the recursion would otherwise crawl through denormals for seconds.
_TINY = 1e-30
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# A design at Nyquist is degenerate; above this share of the rate the frequency is moved down to it.
_HIGHEST_SHARE = 0.4975


def _prewarp(frequency_hertz: float, sample_rate_hertz: int) -> float:
    """Angle of ``frequency_hertz`` on the unit circle, kept just below Nyquist."""
    if frequency_hertz <= 0 or sample_rate_hertz <= 0:
        raise ValueError(f"frequency and rate must be positive, not {frequency_hertz} Hz at {sample_rate_hertz} Hz")
    return 2.0 * math.pi * min(frequency_hertz / sample_rate_hertz, _HIGHEST_SHARE)


def _section(b0: float, b1: float, b2: float, a0: float, a1: float, a2: float) -> Sos:
    return np.array([[b0 / a0, b1 / a0, b2 / a0, 1.0, a1 / a0, a2 / a0]])


def peaking(frequency_hertz: float, gain_db: float, q: float, sample_rate_hertz: int) -> Sos:
    """Bell of ``gain_db`` at ``frequency_hertz``; ``q``: centre over the width between the half-gain points (in dB)."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    a = 10.0 ** (gain_db / 40.0)
    alpha = math.sin(w) / (2.0 * q)
    c = -2.0 * math.cos(w)
    return _section(1 + alpha * a, c, 1 - alpha * a, 1 + alpha / a, c, 1 - alpha / a)


def low_shelf(frequency_hertz: float, gain_db: float, sample_rate_hertz: int, q: float = BUTTERWORTH_Q) -> Sos:
    """``gain_db`` below, 0 dB above, half of it (in dB) at ``frequency_hertz``."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    a = 10.0 ** (gain_db / 40.0)
    c, slope = math.cos(w), math.sin(w) / q * math.sqrt(a)
    return _section(
        a * ((a + 1) - (a - 1) * c + slope),
        2 * a * ((a - 1) - (a + 1) * c),
        a * ((a + 1) - (a - 1) * c - slope),
        (a + 1) + (a - 1) * c + slope,
        -2 * ((a - 1) + (a + 1) * c),
        (a + 1) + (a - 1) * c - slope,
    )


def high_shelf(frequency_hertz: float, gain_db: float, sample_rate_hertz: int, q: float = BUTTERWORTH_Q) -> Sos:
    """0 dB below, ``gain_db`` above, half of it (in dB) at ``frequency_hertz``."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    a = 10.0 ** (gain_db / 40.0)
    c, slope = math.cos(w), math.sin(w) / q * math.sqrt(a)
    return _section(
        a * ((a + 1) + (a - 1) * c + slope),
        -2 * a * ((a - 1) + (a + 1) * c),
        a * ((a + 1) + (a - 1) * c - slope),
        (a + 1) - (a - 1) * c + slope,
        2 * ((a - 1) - (a + 1) * c),
        (a + 1) - (a - 1) * c - slope,
    )


def band_pass(frequency_hertz: float, q: float, sample_rate_hertz: int) -> Sos:
    """0 dB at ``frequency_hertz``, 6 dB an octave on either side (the constant-peak form)."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    alpha = math.sin(w) / (2.0 * q)
    return _section(alpha, 0.0, -alpha, 1 + alpha, -2 * math.cos(w), 1 - alpha)


def notch(frequency_hertz: float, q: float, sample_rate_hertz: int) -> Sos:
    """Nothing at ``frequency_hertz``, 0 dB far from it; ``q``: centre over the width between the -3 dB points."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    alpha = math.sin(w) / (2.0 * q)
    c = -2.0 * math.cos(w)
    return _section(1.0, c, 1.0, 1 + alpha, c, 1 - alpha)


def all_pass(frequency_hertz: float, q: float, sample_rate_hertz: int) -> Sos:
    """Gain 1 everywhere, phase turning by 180 degrees at ``frequency_hertz``."""
    w = _prewarp(frequency_hertz, sample_rate_hertz)
    alpha = math.sin(w) / (2.0 * q)
    c = -2.0 * math.cos(w)
    return _section(1 - alpha, c, 1 + alpha, 1 + alpha, c, 1 - alpha)


def butterworth_high_pass(cutoff_hertz: float, sample_rate_hertz: int, order: int = 2) -> Sos:
    """-3.01 dB at ``cutoff_hertz``, ``6 * order`` dB an octave below, maximally flat above."""
    return _butterworth(cutoff_hertz, sample_rate_hertz, order, "highpass")


def butterworth_low_pass(cutoff_hertz: float, sample_rate_hertz: int, order: int = 2) -> Sos:
    """-3.01 dB at ``cutoff_hertz``, ``6 * order`` dB an octave above, maximally flat below."""
    return _butterworth(cutoff_hertz, sample_rate_hertz, order, "lowpass")


def _butterworth(cutoff_hertz: float, sample_rate_hertz: int, order: int, kind: str) -> Sos:
    share = _prewarp(cutoff_hertz, sample_rate_hertz) / math.pi
    return np.asarray(signal.butter(order, share, kind, output="sos"), np.float64)


def linkwitz_riley(frequency_hertz: float, sample_rate_hertz: int, order: int = 4) -> tuple[Sos, Sos]:
    """``(low, high)`` of a crossover whose sum has gain 1 at every frequency; each is -6.02 dB at ``frequency_hertz``.

    Args:
        order: 4, 8, 12 … (with 2, 6 … the two sides sum in opposite phase).
    """
    if order <= 0 or order % 4:
        raise ValueError(f"a Linkwitz-Riley crossover that sums without inverting a side has order 4, 8 …, not {order}")
    low = butterworth_low_pass(frequency_hertz, sample_rate_hertz, order // 2)
    high = butterworth_high_pass(frequency_hertz, sample_rate_hertz, order // 2)
    return np.concatenate([low, low]), np.concatenate([high, high])


def response_db(sos: Sos, frequencies_hertz: NDArray[np.float64], sample_rate_hertz: int) -> NDArray[np.float64]:
    """Magnitude response in dB at ``frequencies_hertz`` (floor -400 dB)."""
    z = np.exp(-2j * np.pi * np.asarray(frequencies_hertz) / sample_rate_hertz)
    h = np.ones(z.shape, complex)
    for b0, b1, b2, _, a1, a2 in sos:
        h *= (b0 + b1 * z + b2 * z * z) / (1.0 + a1 * z + a2 * z * z)
    return np.asarray(20.0 * np.log10(np.maximum(np.abs(h), 1e-20)))


def to_float32(x: NDArray[Any]) -> Audio:
    """``x`` as float32; what does not fit is held at the largest float32, so finite stays finite."""
    held: Audio = np.clip(x, -_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32, copy=False)
    return held


@njit(nogil=True, cache=True)
def _run_sections(x: NDArray[np.float64], sos: Sos, state: NDArray[np.float64]) -> None:
    """Filter ``x`` (channels, frames) in place: transposed direct form II; ``state`` is (sections, channels, 2)."""
    channels, frames = x.shape
    for s in range(sos.shape[0]):
        b0, b1, b2, a1, a2 = sos[s, 0], sos[s, 1], sos[s, 2], sos[s, 4], sos[s, 5]
        c = 0
        if channels == 2:  # both channels in one loop: two independent recursions hide each other's latency
            p1, p2, q1, q2 = state[s, 0, 0], state[s, 0, 1], state[s, 1, 0], state[s, 1, 1]
            for i in range(frames):
                u, v = x[0, i], x[1, i]
                y, w = b0 * u + p1, b0 * v + q1
                if -_TINY < y < _TINY:
                    y = 0.0
                if -_TINY < w < _TINY:
                    w = 0.0
                p1, q1 = b1 * u - a1 * y + p2, b1 * v - a1 * w + q2
                p2, q2 = b2 * u - a2 * y, b2 * v - a2 * w
                x[0, i], x[1, i] = y, w
            state[s, 0, 0], state[s, 0, 1], state[s, 1, 0], state[s, 1, 1] = p1, p2, q1, q2
            c = 2
        while c < channels:
            p1, p2 = state[s, c, 0], state[s, c, 1]
            for i in range(frames):
                u = x[c, i]
                y = b0 * u + p1
                if -_TINY < y < _TINY:
                    y = 0.0
                p1 = b1 * u - a1 * y + p2
                p2 = b2 * u - a2 * y
                x[c, i] = y
            state[s, c, 0], state[s, c, 1] = p1, p2
            c += 1


class SosFilter:
    """A cascade of sections with memory: cutting the stream differently gives the same samples.

    Args:
        sos: shape ``(sections, 6)``; none at all passes the signal on unchanged.
        channels: channels of every block to come.
    """

    def __init__(self, sos: Sos, channels: int) -> None:
        self._sos = np.ascontiguousarray(np.asarray(sos, np.float64).reshape(-1, 6))
        if np.any(self._sos[:, 3] != 1.0):
            raise ValueError("sections must be normalised to a0 = 1")
        self._state = np.zeros((len(self._sos), channels, 2))

    def process(self, block: NDArray[Any]) -> NDArray[Any]:
        """Filtered copy of ``block`` (channels, frames), in its dtype (float32 or float64); float64 inside."""
        x = np.array(block, np.float64, order="C")
        _run_sections(x, self._sos, self._state)
        return to_float32(x) if block.dtype == np.float32 else x

    def reset(self) -> None:
        """Forget what went through before."""
        self._state[:] = 0.0


class Crossover:
    """Splits a stream into bands by 4th-order Linkwitz-Riley filters; the bands' sum has gain 1 at every frequency.

    The bands below each split are passed through the all-pass that the split's own sum is, so that all stay in phase.

    Args:
        frequencies_hertz: rising split frequencies; n of them make n + 1 bands.
    """

    def __init__(self, frequencies_hertz: Sequence[float], sample_rate_hertz: int, channels: int) -> None:
        if list(frequencies_hertz) != sorted(frequencies_hertz):
            raise ValueError(f"split frequencies must rise: {list(frequencies_hertz)}")
        pairs = [linkwitz_riley(f, sample_rate_hertz) for f in frequencies_hertz]
        turns = [all_pass(f, BUTTERWORTH_Q, sample_rate_hertz) for f in frequencies_hertz]
        self._lows = [SosFilter(np.concatenate([low, *turns[k + 1 :]]), channels) for k, (low, _) in enumerate(pairs)]
        self._highs = [SosFilter(high, channels) for _, high in pairs]

    def process(self, block: NDArray[Any]) -> list[NDArray[np.float64]]:
        """Bands of ``block`` from low to high, float64, each of its shape."""
        rest = np.asarray(block, np.float64)
        bands: list[NDArray[np.float64]] = []
        for low, high in zip(self._lows, self._highs, strict=True):
            bands.append(low.process(rest))
            rest = high.process(rest)
        bands.append(rest)
        return bands
