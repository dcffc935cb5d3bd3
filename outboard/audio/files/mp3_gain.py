"""Turns down single granules of an MP3 file that is already coded, without coding it anew.

A granule (576 frames of audio, 13 ms) holds one `global_gain` per channel; its spectrum is scaled by
``2^((global_gain - 210) / 4)`` (ISO/IEC 11172-3, 2.4.3.4.7), so one step less is 1.505 dB less in every decoder.
Neighbouring granules overlap by half, which fades the change in and out. The noise of an encoder falls elsewhere with
every encode; this takes down what stands over a ceiling and leaves every other granule as it is.

Only the eight bits of each gain change, and the Info tag's two checksums (over the music, and over the tag itself). The
files are those of `mp3`: MPEG-1 layer III without CRC in the frames, an Info tag first.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.files.mp3 import (
    ENCODER_DELAY_SAMPLES,
    FRAME_SAMPLES,
    LAME_OFFSET,
    SIDE_INFO_BYTES,
    TAG_CRC_OFFSET,
    crc16,
)

STEP_DB = 20.0 * 0.25 * math.log10(2.0)
"""What one step of `global_gain` is worth."""

GRANULE_FRAMES = FRAME_SAMPLES // 2
DECODER_DELAY_SAMPLES = 529
"""What every decoder delays by (the Info tag's specification); gapless ones leave it out."""

_POLYPHASE_DELAY_FRAMES = 240  # half of the 481 that analysis and synthesis filters have together
# Middle of a granule's two overlapping halves, and of the polyphase filters, less what gapless decoders leave out.
_CENTRE_FRAMES = GRANULE_FRAMES + _POLYPHASE_DELAY_FRAMES - ENCODER_DELAY_SAMPLES - DECODER_DELAY_SAMPLES
_HEADER_BYTES = 4
_ID3_HEADER_BYTES = 10
_MUSIC_CRC_OFFSET = LAME_OFFSET + 32
# MPEG-1 layer III by the header's index, kbit/s (ISO/IEC 11172-3, 2.4.2.3)
_KBPS = np.array([0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0], dtype=np.int64)
_RATES_HERTZ = np.array([44100, 48000, 32000, 0], dtype=np.int64)
# Side information, in bits: what stands before the first granule by number of channels, and one channel's part of it
_BITS_BEFORE = {1: 9 + 5 + 4, 2: 9 + 3 + 8}
_CHANNEL_BITS = 59
_LONGEST_SIDE_INFO = _HEADER_BYTES + SIDE_INFO_BYTES[2]
_BITS_BEFORE_GAIN = 12 + 9


def lower_granules(path: Path, steps: NDArray[np.integer]) -> None:
    """Lowers granules of a file in place.

    Args:
        path: a file that `Mp3Writer` wrote.
        steps: for each granule in order, by how many steps (at least 0), as `steps_for` has them. Granules beyond the
            end are left alone.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r+")
    info = _music_start(data)
    channels = 1 if data[info + 3] >> 6 == 3 else 2
    tag = info + _HEADER_BYTES + SIDE_INFO_BYTES[channels]
    if bytes(data[tag : tag + 4]) != b"Info":
        raise ValueError("no Info tag: not a file of Mp3Writer")
    music = info + int(_frame_bytes(data, info, _KBPS, _RATES_HERTZ))
    _lower(data, music, channels, _BITS_BEFORE[channels], _KBPS, _RATES_HERTZ, np.asarray(steps, dtype=np.int64))
    data[tag + _MUSIC_CRC_OFFSET :][:2] = list(struct.pack(">H", _crc16(data[music:])))
    data[tag + TAG_CRC_OFFSET :][:2] = list(struct.pack(">H", crc16(bytes(data[info : tag + TAG_CRC_OFFSET]))))
    data.flush()


def steps_for(
    over_db: NDArray[np.floating], first_frame: int, frames_per_value: int, granules: int
) -> NDArray[np.int64]:
    """The steps that take a curve of excess down.

    Args:
        over_db: how far each of `frames_per_value` frames of the decoded audio is over what is allowed, from
            `first_frame` on.
        granules: how many the result is for.

    Returns:
        Steps for each granule. A granule is lowered for what lies within two thirds of its half length, where it is
        heard by a quarter or more; every frame lies there in at least one.
    """
    steps = np.zeros(granules, dtype=np.int64)
    hot = np.flatnonzero(over_db > 0.0)
    frames = first_frame + hot * frames_per_value + frames_per_value // 2
    needed = np.ceil(over_db[hot] / STEP_DB).astype(np.int64)
    earlier = (frames - _CENTRE_FRAMES) // GRANULE_FRAMES
    for granule in (earlier, earlier + 1):
        distance = np.abs(frames - _CENTRE_FRAMES - granule * GRANULE_FRAMES)
        near = (distance <= GRANULE_FRAMES * 2 // 3) & (granule >= 0) & (granule < granules)
        np.maximum.at(steps, granule[near], needed[near])
    return steps


def _music_start(data: NDArray[np.uint8]) -> int:
    """Where the first MP3 frame begins: behind an ID3v2 tag (id3.org, "ID3 tag version 2.4.0": a synchsafe size)."""
    if bytes(data[:3]) != b"ID3":
        return 0
    size = 0
    for byte in data[6:_ID3_HEADER_BYTES]:
        size = size << 7 | int(byte)
    return _ID3_HEADER_BYTES + size


@njit(nogil=True, cache=True)
def _frame_bytes(data: NDArray[np.uint8], at: int, kbps: NDArray[np.int64], rates: NDArray[np.int64]) -> int:
    """Length of the MP3 frame that begins there; 0 where none does."""
    if data[at] != 0xFF or data[at + 1] != 0xFB:  # MPEG-1, layer III, no CRC
        return 0
    rate = rates[(data[at + 2] >> 2) & 3]
    return 144000 * kbps[data[at + 2] >> 4] // rate + ((data[at + 2] >> 1) & 1) if rate else 0


@njit(nogil=True, cache=True)
def _lower(
    data: NDArray[np.uint8],
    start: int,
    channels: int,
    bits_before: int,
    kbps: NDArray[np.int64],
    rates: NDArray[np.int64],
    steps: NDArray[np.int64],
) -> None:
    at, granule = start, 0
    while at + _LONGEST_SIDE_INFO <= data.size and granule < steps.size:
        length = _frame_bytes(data, at, kbps, rates)
        if length == 0:
            return
        for part in range(min(2, steps.size - granule)):
            for channel in range(channels):
                if steps[granule + part] <= 0:
                    continue
                bit = (
                    (at + _HEADER_BYTES) * 8
                    + bits_before
                    + (part * channels + channel) * _CHANNEL_BITS
                    + _BITS_BEFORE_GAIN
                )
                byte, shift = bit >> 3, 8 - (bit & 7)
                both = (np.int64(data[byte]) << 8) | data[byte + 1]
                lower = max(((both >> shift) & 0xFF) - steps[granule + part], 0)
                both = (both & ~(0xFF << shift)) | (lower << shift)
                data[byte], data[byte + 1] = both >> 8, both & 0xFF
        at += length
        granule += 2


@njit(nogil=True, cache=True)
def _crc16(data: NDArray[np.uint8]) -> int:
    """As `crc16`, for whole files."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1
    return value
