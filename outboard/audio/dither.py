"""Dither: the noise that keeps rounding to integers from being distortion.

Triangular noise (TPDF) of two steps peak to peak, the sum of two independent uniform variables of one step each, makes
the mean and the variance of the total rounding error independent of the signal (Lipshitz, Wannamaker, Vanderkooy,
"Quantization and Dither: A Theoretical Survey", JAES 40(5), 1992). The noise is white and comes from a counter-based
generator, so a seed gives the same file on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DRAW_FRAMES = 4096


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
        noise = self._noise(block.shape[1])
        steps = np.rint(block.astype(np.float64) * self._scale + noise)
        return (np.clip(steps, -self._scale, self._scale - 1.0) / self._scale).astype(np.float32)

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
