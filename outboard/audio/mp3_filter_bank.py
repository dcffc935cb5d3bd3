"""The hybrid filter bank of MPEG-1 Layer III: samples to spectral lines and back.

A granule is 576 samples. 32 polyphase bands (a window of 512 samples, hop 32) are each split by a lapped cosine
transform over 36 of their samples (hop 18) into 18 lines, or where the signal is sudden into three times 6 (short
blocks); eight butterflies between neighbouring bands take back what the polyphase bank let through (long blocks only).
Every step here is orthonormal to within the bank's own -84 dB, so synthesis is the transposed analysis and the level of
a line is that of the signal: white noise of power p has lines of power p.

Source: ISO/IEC 11172-3:1993, 2.4.3.4 and annex C; the window is its table C.1, times 65536 and up to its middle (it is
symmetric), the transforms' windows are those of 2.4.3.4.10.3, the butterflies' coefficients those of table B.9.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
Bands = NDArray[np.float32]
Lines = NDArray[np.float32]

BANDS, LINES_PER_BAND = 32, 18
GRANULE_FRAMES = BANDS * LINES_PER_BAND
LONG, START, SHORT, STOP = range(4)
BLOCK_TYPES = (LONG, START, SHORT, STOP)
WINDOW_FRAMES = 512
REACH_FRAMES = 2 * GRANULE_FRAMES + WINDOW_FRAMES - BANDS  # samples that a granule's lines depend on
_HALF_WINDOW = """
0 -1 -1 -1 -1 -1 -1 -2 -2 -2 -2 -3 -3 -4 -4 -5 -5 -6 -7 -7 -8 -9 -10 -11 -13 -14 -16 -17 -19 -21 -24 -26
-29 -31 -35 -38 -41 -45 -49 -53 -58 -63 -68 -73 -79 -85 -91 -97
-104 -111 -117 -125 -132 -139 -147 -154 -161 -169 -176 -183 -190 -196 -202 -208
213 218 222 225 227 228 228 227 224 221 215 208 200 189 177 163
146 127 106 83 57 29 -2 -36 -72 -111 -153 -197 -244 -294 -347 -401
-459 -519 -581 -645 -711 -779 -848 -919 -991 -1064 -1137 -1210 -1283 -1356 -1428 -1498
-1567 -1634 -1698 -1759 -1817 -1870 -1919 -1962 -2001 -2032 -2057 -2075 -2085 -2087 -2080 -2063
2037 2000 1952 1893 1822 1739 1644 1535 1414 1280 1131 970 794 605 402 185
-45 -288 -545 -814 -1095 -1388 -1692 -2006 -2330 -2663 -3004 -3351 -3705 -4063 -4425 -4788
-5153 -5517 -5879 -6237 -6589 -6935 -7271 -7597 -7910 -8209 -8491 -8755 -8998 -9219 -9416 -9585
-9727 -9838 -9916 -9959 -9966 -9935 -9863 -9750 -9592 -9389 -9139 -8840 -8492 -8092 -7640 -7134
6574 5959 5288 4561 3776 2935 2037 1082 70 -998 -2122 -3300 -4533 -5818 -7154 -8540
-9975 -11455 -12980 -14548 -16155 -17799 -19478 -21189 -22929 -24694 -26482 -28289 -30112 -31947 -33791 -35640
-37489 -39336 -41176 -43006 -44821 -46617 -48390 -50137 -51853 -53534 -55178 -56778 -58333 -59838 -61289 -62684
-64019 -65290 -66494 -67629 -68692 -69679 -70590 -71420 -72169 -72835 -73415 -73908 -74313 -74630 -74856 -74992
75038
"""
_BUTTERFLIES = np.array([-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037])
_CS = (1.0 / np.sqrt(1.0 + _BUTTERFLIES**2)).astype(np.float32)
_CA = (_BUTTERFLIES / np.sqrt(1.0 + _BUTTERFLIES**2)).astype(np.float32)


def _polyphase() -> NDArray[np.float32]:
    """Rows that take 512 samples in their order to one sample of each band, (32, 512)."""
    half = np.array(_HALF_WINDOW.split(), np.float64)
    # The table's sign turns every 64 entries with the cosines' period; without that it is the low-pass itself.
    half = np.where(np.arange(half.size) // 64 % 2 == 1, -half, half)
    window = np.concatenate([half, half[1:-1][::-1]])
    places, bands = np.arange(WINDOW_FRAMES), np.arange(BANDS)[:, None]
    rows = window * np.cos((2 * bands + 1) * (places - 16) * np.pi / 64)
    rows *= np.sqrt(BANDS / np.sum(window**2) / 16.0)
    return np.ascontiguousarray(rows[:, ::-1], dtype=np.float32)


def _transforms() -> dict[int, NDArray[np.float32]]:
    """Windowed cosines of every type of block, (18, 36); a short block's lines stand window after window."""
    sine = np.sin(np.pi / 36 * (np.arange(36) + 0.5))
    short_sine = np.sin(np.pi / 12 * (np.arange(12) + 0.5))
    start = np.concatenate([sine[:18], np.ones(6), short_sine[6:], np.zeros(6)])
    cosines = np.cos(np.pi / 72 * (2 * np.arange(36) + 19) * (2 * np.arange(18)[:, None] + 1)) / 3.0
    short_cosines = np.cos(np.pi / 24 * (2 * np.arange(12) + 7) * (2 * np.arange(6)[:, None] + 1)) / np.sqrt(3.0)
    short = np.zeros((18, 36))
    for window in range(3):
        short[6 * window : 6 * window + 6, 6 + 6 * window : 18 + 6 * window] = short_cosines * short_sine
    found = {LONG: cosines * sine, START: cosines * start, SHORT: short, STOP: cosines * start[::-1]}
    return {block: rows.astype(np.float32) for block, rows in found.items()}


_POLYPHASE = _polyphase()
_TRANSFORMS = _transforms()
# Every second sample of every second band is turned, so that frequency rises within each band.
_TURN = np.ones((BANDS, 2 * LINES_PER_BAND), np.float32)
_TURN[1::2, 1::2] = -1.0


def bands(samples: Samples, first: int = 0, last: int = BANDS) -> Bands:
    """The polyphase bands of (..., frames), those from `first` to before `last`: (..., slots, bands)."""
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_FRAMES, axis=-1)[..., ::BANDS, :]
    return np.asarray(windows @ _POLYPHASE[first:last].T, dtype=np.float32)


def lines(of_bands: Bands, block: int, first: int = 0, places: NDArray[np.bool_] | None = None) -> Lines:
    """The lines of the granules that begin at slot 0, 18, 36 …, each as if it were a block of this type.

    Args:
        of_bands: (..., slots, bands).
        block: LONG, START, SHORT or STOP.
        first: number of the first of these bands; even.
        places: which granules; None: all.

    Returns:
        (..., granules, 18 * bands).
    """
    windows = np.lib.stride_tricks.sliding_window_view(of_bands, 36, axis=-2)[..., ::LINES_PER_BAND, :, :]
    if places is not None:
        windows = windows[..., places, :, :]
    count = of_bands.shape[-1]
    found = np.asarray((windows * _TURN[first : first + count]) @ _TRANSFORMS[block].T, dtype=np.float32)
    if block != SHORT:
        _butterfly(found, 1.0)
    return np.asarray(found.reshape(*found.shape[:-2], -1), dtype=np.float32)


def signal(of_lines: Lines, blocks: NDArray[np.int64]) -> Samples:
    """The signal with these lines, (channels, granules * 576 + 1056 frames).

    Args:
        of_lines: (channels, granules, 576 or as many as the lowest bands have).
        blocks: type of each granule, (granules,).
    """
    channels, granules, count = of_lines.shape
    split = of_lines.reshape(channels, granules, count // LINES_PER_BAND, LINES_PER_BAND).copy()
    is_long = blocks != SHORT
    turned = split[:, is_long]
    _butterfly(turned, -1.0)
    split[:, is_long] = turned
    slots = np.zeros((channels, LINES_PER_BAND * (granules + 1), split.shape[2]), np.float32)
    halves = slots.reshape(channels, granules + 1, LINES_PER_BAND, split.shape[2])
    for block in BLOCK_TYPES:
        places = np.flatnonzero(blocks == block)
        if places.size:
            pieces = np.swapaxes((split[:, places] @ _TRANSFORMS[block]) * _TURN[: split.shape[2]], -1, -2)
            halves[:, places] += pieces[:, :, :LINES_PER_BAND]
            halves[:, places + 1] += pieces[:, :, LINES_PER_BAND:]
    return _samples(slots)


def _butterfly(split: Lines, direction: float) -> None:
    """The butterflies between neighbouring bands of (..., bands, 18), in place; -1 undoes 1."""
    upper, lower = split[..., :-1, 17:9:-1].copy(), split[..., 1:, :8].copy()
    split[..., :-1, 17:9:-1] = upper * _CS + np.float32(direction) * lower * _CA
    split[..., 1:, :8] = lower * _CS - np.float32(direction) * upper * _CA


def _samples(slots: Bands) -> Samples:
    """The transposed polyphase bank."""
    channels, count, of_bands = slots.shape
    pieces = slots @ _POLYPHASE[:of_bands]
    per_window = WINDOW_FRAMES // BANDS
    total = np.zeros((channels, count * BANDS + WINDOW_FRAMES - BANDS), np.float32)
    for first in range(per_window):
        part = pieces[:, first::per_window].reshape(channels, -1)
        total[:, first * BANDS : first * BANDS + part.shape[1]] += part
    return total
