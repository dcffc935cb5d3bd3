"""Whether a signal came out of an MP3 decoder, and on which grid of granules.

Read on the very grid of granules on which it was coded, a decoded signal shows the lines that the coder rounded to
zero as zeros, some -80 dB below their surroundings; a few samples beside it there are none. So the share of such lines
is measured at all 576 places that a granule can begin at, and a grid is one that stands far out of all others. Nothing
but a decoder does that: not silence, not tones, nor other codecs, whose transforms are different ones.

Source: R. Yang, Z. Qu and J. Huang, *Detecting digital audio forgeries by checking frame offsets*, ACM MM&Sec 2008.
A stem that was resampled, filtered or separated after decoding shows no grid any more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio import mp3_filter_bank as bank
from outboard.audio.mp3_filter_bank import (
    BANDS,
    GRANULE_FRAMES,
    LINES_PER_BAND,
    LONG,
    REACH_FRAMES,
    SHORT,
    START,
    STOP,
)

Audio = NDArray[np.float32]
Lines = NDArray[np.float32]
Mask = NDArray[np.bool_]

SEARCH_GRANULES = 16
SEARCH_FRAMES = (SEARCH_GRANULES + 1) * GRANULE_FRAMES + REACH_FRAMES
_SEARCH_BANDS = (4, 14)  # of 32: 3 to 10.5 kHz at 48 kHz, which every bit rate codes, and none in full
LEAST_SHARE = 0.04  # of zeros on the grid ...
LEAST_CONTRAST = 3.0  # ... and over the best place that is no neighbour; what was not decoded reaches 1.4
_NEIGHBOUR_FRAMES = 16
_SOUNDS_SHARE = 1e-3  # of the loudest band's level
_ZERO_SHARE = 1e-3  # of a band's level
_AROUND_LINES = 73
_BELOW_SURROUNDINGS = 1e-3
_BELOW_BESIDE = 1e-4  # what the bank itself lets through of a loud line into its band and those beside it ...
_BELOW_PEAK = 1e-5  # ... and further away
_OVER_ROUNDING = 10.0  # over the mean of the softest band: what a file of 16 bits has everywhere
_SILENCE = 2e-6  # of full scale; a decoder's own rounding lies below
_JUDGED = slice(20, 330)  # lines by which the type of a block is told
_PREFERENCE = 0.5  # zeros by which what is usual is preferred
_CLEAR_SHARE, _CLEAR_GRANULES = 0.85, 9  # of the most zeros of a granule around


@dataclass(frozen=True)
class Granules:
    """Lines of some granules as they were coded.

    Attributes:
        lines: (channels, granules, 18 a band); middle and side where `is_middle_side`.
        is_zero: which of them the coder rounded to zero, the same shape.
        blocks: type of each granule.
        is_middle_side: of each granule.
    """

    lines: Lines
    is_zero: Mask
    blocks: NDArray[np.int64]
    is_middle_side: Mask


def find_grid(audio: Audio) -> int | None:
    """Where a granule begins, 0 to 575; None where nothing was decoded from MP3.

    Args:
        audio: float32 (channels, SEARCH_FRAMES or more); the first SEARCH_FRAMES are looked at.
    """
    part = np.mean(audio[:, :SEARCH_FRAMES], axis=0)
    first, last = _SEARCH_BANDS
    shares = np.zeros(GRANULE_FRAMES)
    for shift in range(BANDS):
        of_bands = bank.bands(part[shift:], first, last)
        for slot in range(LINES_PER_BAND):
            found = np.abs(bank.lines(of_bands[slot:], LONG, first)[:SEARCH_GRANULES])
            found = found.reshape(-1, last - first, LINES_PER_BAND)
            level = np.sqrt(np.mean(found**2, axis=2, keepdims=True))
            # What is empty as a whole is so at every place.
            sounds = level > np.maximum(_SILENCE, _SOUNDS_SHARE * np.max(level, axis=1, keepdims=True))
            shares[BANDS * slot + shift] = np.mean((found < _ZERO_SHARE * level) & sounds)
    best = int(np.argmax(shares))
    away = np.abs((np.arange(GRANULE_FRAMES) - best + GRANULE_FRAMES // 2) % GRANULE_FRAMES - GRANULE_FRAMES // 2)
    others = float(np.max(shares[away >= _NEIGHBOUR_FRAMES]))
    return best if shares[best] >= max(LEAST_SHARE, LEAST_CONTRAST * others) else None


def granules(audio: Audio, of_bands: int = BANDS) -> Granules:
    """All granules that lie in audio, the first of which begins at its start, up to one of the 32 bands.

    The type of the blocks and whether middle and side were coded is what leaves the most zeros.
    """
    plain = bank.bands(audio, 0, of_bands)
    readings = [plain, middle_side(plain)] if audio.shape[0] == 2 else [plain]
    lines = bank.lines(plain, LONG)
    is_zero = zeros(lines)
    count = lines.shape[1]
    found = Granules(lines, is_zero, np.full(count, LONG), np.zeros(count, np.bool_))
    most = _judged(is_zero)
    everywhere = np.ones(count, np.bool_)
    if len(readings) == 2:
        _prefer(found, most, readings[1], LONG, everywhere, is_middle_side=True)
    # Nearly all blocks are long, and those that are not show few zeros when they are read as long ones.
    unclear = most < _CLEAR_SHARE * ndimage.maximum_filter1d(most, _CLEAR_GRANULES, mode="nearest")
    if unclear.any():
        for is_middle_side, reading in enumerate(readings):
            for block in (START, SHORT, STOP):
                _prefer(found, most, reading, block, unclear, is_middle_side=bool(is_middle_side))
    return found


def _prefer(
    found: Granules, most: NDArray[np.float64], reading: Lines, block: int, places: Mask, *, is_middle_side: bool
) -> None:
    """Takes another reading of some granules where it leaves more zeros than there were."""
    lines = bank.lines(reading, block, places=places)
    is_zero = zeros(lines, are_next=block == LONG)
    count = _judged(is_zero) - _PREFERENCE
    better = count > most[places]
    changed = np.flatnonzero(places)[better]
    most[changed] = count[better]
    found.lines[:, changed], found.is_zero[:, changed] = lines[:, better], is_zero[:, better]
    found.blocks[changed], found.is_middle_side[changed] = block, is_middle_side


def _judged(is_zero: Mask) -> NDArray[np.float64]:
    """How many lines of each granule are zero, among those that tell."""
    return np.asarray(np.count_nonzero(is_zero[:, :, _JUDGED], axis=(0, 2)).astype(np.float64))


def middle_side(pair: NDArray[np.float32]) -> NDArray[np.float32]:
    """Middle and side of two channels (2, ...), or two channels of middle and side, of the same power."""
    return np.asarray(np.stack([pair[0] + pair[1], pair[0] - pair[1]]) * np.float32(np.sqrt(0.5)))


def zeros(lines: Lines, *, are_next: bool = True) -> Mask:
    """Which lines of (channels, granules, lines) must have been zero.

    They lie so far below their surroundings, below the loudest line beside them and of all, and no higher than the
    lines of the softest band: nothing was coded there, and what it shows is the rounding of the file.

    Args:
        lines: of granules.
        are_next: whether these are next to each other, so that one lets its loud lines through to the next.
    """
    magnitude = np.abs(lines)
    around = np.sqrt(np.maximum(ndimage.uniform_filter1d(magnitude**2, _AROUND_LINES, axis=2, mode="constant"), 0.0))
    of_bands = magnitude.reshape(*lines.shape[:2], -1, LINES_PER_BAND)
    loudest = np.max(of_bands, axis=3)
    if are_next:
        loudest = _of_three(loudest, axis=1)
    rounding = np.min(np.mean(of_bands, axis=3), axis=2, keepdims=True)
    let_through = np.maximum(
        _BELOW_BESIDE * _of_three(loudest, axis=2), _BELOW_PEAK * np.max(loudest, 2, keepdims=True)
    )
    floor = np.maximum(let_through, _OVER_ROUNDING * rounding) + _SILENCE
    least = np.maximum(_BELOW_SURROUNDINGS * around, np.repeat(floor, LINES_PER_BAND, axis=2))
    return np.asarray(magnitude < least)


def _of_three(values: Lines, axis: int) -> Lines:
    """The largest of each and its two neighbours along an axis."""
    moved = np.moveaxis(values, axis, 0)
    found = moved.copy()
    np.maximum(found[1:], moved[:-1], out=found[1:])
    np.maximum(found[:-1], moved[1:], out=found[:-1])
    return np.moveaxis(found, 0, axis)
