"""A gated recurrent layer hop by hop, compiled: torch starts a dozen operations for every hop, each on a few numbers.

    r = s(W_r x + V_r h),  z = s(W_z x + V_z h),  n = tanh(W_n x + r V_n h),  h' = n + z (h - n)

with s the logistic function and biases throughout, gates in torch's order (r, z, n). What comes from the inputs is one
product for all hops and is given; what comes from the state is added up over eight of its entries at a time, in one
fixed order. The hyperbolic tangent is the rational function of degree 13 over 6 that Eigen (``ptanh``, MPL2) uses: at
float32 within a few units in the last place, and computed for eight numbers at once.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Numbers = NDArray[np.float32]

_UNROLLED = 8
_HALF = np.float32(0.5)
_LARGEST = np.float32(7.90531110763549805)  # from here on a tangent is 1
_A1, _A3, _A5, _A7, _A9, _A11, _A13 = (
    np.float32(x)
    for x in (
        4.89352455891786e-03,
        6.37261928875436e-04,
        1.48572235717979e-05,
        5.12229709037114e-08,
        -8.60467152213735e-11,
        2.00018790482477e-13,
        -2.76076847742355e-16,
    )
)
_B0, _B2, _B4, _B6 = (
    np.float32(x) for x in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)


# The error model: a check for division by zero would keep loops from being vectorised.
@njit(nogil=True, cache=True, error_model="numpy")
def _tanh(x: np.float32) -> np.float32:
    x = min(max(x, -_LARGEST), _LARGEST)
    s = x * x
    above = ((((((_A13 * s + _A11) * s + _A9) * s + _A7) * s + _A5) * s + _A3) * s + _A1) * x
    return above / (((_B6 * s + _B4) * s + _B2) * s + _B0)


@njit(nogil=True, cache=True, error_model="numpy")
def _step(given: Numbers, gates: Numbers, state: Numbers) -> None:
    """Moves a state (width,) on, given both halves of its gates (3 * width,)."""
    width = state.size
    for at in range(2 * width):
        gates[at] = _HALF + _HALF * _tanh(_HALF * (given[at] + gates[at]))
    for at in range(width):
        gates[2 * width + at] = _tanh(given[2 * width + at] + gates[at] * gates[2 * width + at])
    for at in range(width):
        new = gates[2 * width + at]
        state[at] = new + gates[width + at] * (state[at] - new)


@njit(nogil=True, cache=True)
def recur(given: Numbers, weights: Numbers, bias: Numbers, state: Numbers) -> Numbers:
    """The states after every hop, (channels, hops, width); `state` is moved on in place.

    Args:
        given: what the inputs give to the gates, their bias included, (channels, hops, 3 * width).
        weights: from states to gates, (width, 3 * width), width a multiple of eight.
        bias: of these, (3 * width,).
        state: before the first hop, (channels, width).
    """
    channels, hops, gates = given.shape
    width = gates // 3
    states = np.empty((channels, hops, width), np.float32)
    sums = np.empty((channels, gates), np.float32)
    for hop in range(hops):
        sums[:] = bias
        for k in range(0, width, _UNROLLED):
            for channel in range(channels):
                h0, h1, h2, h3 = state[channel, k], state[channel, k + 1], state[channel, k + 2], state[channel, k + 3]
                h4, h5, h6, h7 = (
                    state[channel, k + 4],
                    state[channel, k + 5],
                    state[channel, k + 6],
                    state[channel, k + 7],
                )
                for at in range(gates):
                    low = (weights[k, at] * h0 + weights[k + 1, at] * h1) + (
                        weights[k + 2, at] * h2 + weights[k + 3, at] * h3
                    )
                    high = (weights[k + 4, at] * h4 + weights[k + 5, at] * h5) + (
                        weights[k + 6, at] * h6 + weights[k + 7, at] * h7
                    )
                    sums[channel, at] += low + high
        for channel in range(channels):
            _step(given[channel, hop], sums[channel], state[channel])
            states[channel, hop] = state[channel]
    return states
