"""Dither: the noise that keeps rounding to integers from being distortion.

Triangular noise (TPDF) of two steps peak to peak, the sum of two independent uniform variables of one step each, makes
the mean and the variance of the total rounding error independent of the signal (Lipshitz, Wannamaker, Vanderkooy,
"Quantization and Dither: A Theoretical Survey", JAES 40(5), 1992). The noise is white and comes from a counter-based
generator, so a seed gives the same file on every machine.

Noise shaping moves that error to where the ear is dull: what rounding added is fed back through a filter, so that the
error's spectrum is `1 - H(z)` times white. Up to 48 kHz H has the five taps of Lipshitz, Vanderkooy and Wannamaker
("Minimally Audible Noise Shaping", JAES 39(11), 1991, E-weighted): 12 dB less noise around 4 kHz, more above 12 kHz. At
higher rates it has two, `1 - H = (1 - 1/z)^2`, and the noise goes beyond 20 kHz.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_DRAW_FRAMES = 4096
_MINIMALLY_AUDIBLE = (2.033, -2.165, 1.959, -1.590, 0.6149)
_SECOND_ORDER = (2.0, -1.0)
_HIGHEST_AUDIBLE_RATE_HERTZ = 50000


class TpdfDither:
    """Adds TPDF noise to a stream and rounds it to the steps of an integer format.

    The result stays float32 (it holds 24-bit integers exactly), so any encoder's own conversion of it is exact.
    Independent noise for every channel. Results do not depend on how the stream is cut.

    Args:
        bit_depth: 16 or 24.
        channels: at least 1.
        seed: of the noise.
    """

    def __init__(self, bit_depth: int, channels: int, seed: int) -> None:
        if bit_depth not in (16, 24):
            raise ValueError(f"dither is for 16 or 24 bits, not {bit_depth}")
        self._scale = float(1 << (bit_depth - 1))
        self._channels = channels
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._drawn = np.empty((channels, 0), dtype=np.float32)

    def process(self, block: NDArray[np.floating]) -> NDArray[np.float32]:
        """Takes (channels, n), returns (channels, n) float32 on the format's grid, held to its range [-1, 1 - step]."""
        steps = self._rounded(block.astype(np.float64) * self._scale, self._noise(block.shape[1]))
        return (np.clip(steps, -self._scale, self._scale - 1.0) / self._scale).astype(np.float32)

    def _rounded(self, steps: NDArray[np.float64], noise: NDArray[np.float32]) -> NDArray[np.float64]:
        rounded: NDArray[np.float64] = np.rint(steps + noise)
        return rounded

    def _noise(self, frames: int) -> NDArray[np.float32]:
        pieces, available = [self._drawn], self._drawn.shape[1]
        while available < frames:
            # Drawn in pieces of one fixed size: the order of the draws must not depend on the blocks.
            uniform = self._generator.random((2, self._channels, _DRAW_FRAMES), dtype=np.float32)
            pieces.append(uniform[0] - uniform[1])
            available += _DRAW_FRAMES
        drawn = np.concatenate(pieces, axis=1)
        self._drawn = drawn[:, frames:]
        return drawn[:, :frames]


class NoiseShapedDither(TpdfDither):
    """TPDF dither whose error is fed back, so that less of it lies where the ear is keen.

    Args:
        sample_rate_hertz: of the stream.
    """

    def __init__(self, bit_depth: int, channels: int, seed: int, sample_rate_hertz: int) -> None:
        super().__init__(bit_depth, channels, seed)
        taps = _MINIMALLY_AUDIBLE if sample_rate_hertz <= _HIGHEST_AUDIBLE_RATE_HERTZ else _SECOND_ORDER
        self._taps = np.array(taps)
        self._errors = np.zeros((channels, len(taps)))

    def _rounded(self, steps: NDArray[np.float64], noise: NDArray[np.float32]) -> NDArray[np.float64]:
        rounded = np.empty_like(steps)
        _shape(steps, noise, self._taps, self._errors, rounded)
        return rounded


@njit(nogil=True, cache=True)
def _shape(
    steps: NDArray[np.float64],
    noise: NDArray[np.float32],
    taps: NDArray[np.float64],
    errors: NDArray[np.float64],
    rounded: NDArray[np.float64],
) -> None:
    """`errors` (channels, taps) holds the last total errors, the newest first, and is carried on."""
    for channel in range(steps.shape[0]):
        for frame in range(steps.shape[1]):
            wanted = steps[channel, frame]
            for tap in range(taps.size):
                wanted -= taps[tap] * errors[channel, tap]
            value = np.rint(wanted + noise[channel, frame])
            for tap in range(taps.size - 1, 0, -1):
                errors[channel, tap] = errors[channel, tap - 1]
            errors[channel, 0] = value - wanted
            rounded[channel, frame] = value
