"""WAV files: PCM of 16 or 24 bits or 32-bit float, becoming RF64 (EBU Tech 3306) beyond 4 GiB."""

from __future__ import annotations

import struct
from typing import IO

import numpy as np
from numpy.typing import NDArray

from outboard.audio.files.quantise import to_integers
from outboard.audio.files.tags import Tags, riff_chunks

RIFF_LIMIT_BYTES = 0xFFFFFFFF
"""A RIFF size field cannot say more; longer files get their sizes in the ds64 chunk."""

_FORMAT_PCM = 1
_FORMAT_FLOAT = 3
_SAMPLE_BYTES = {"16": 2, "24": 3, "32f": 4}
_DS64 = struct.Struct("<QQQI")


class WavWriter:
    """Writes a WAV file into a seekable binary file, block by block.

    Room for the ds64 chunk is kept from the start in a JUNK chunk (Tech 3306, section 3), so the length need not be
    known beforehand.
    """

    def __init__(self, file: IO[bytes], sample_rate_hertz: int, channels: int, bit_depth: str, tags: Tags) -> None:
        self.clipped_samples = 0
        self._file = file
        self._rate = sample_rate_hertz
        self._channels = channels
        self._bit_depth = bit_depth
        self._tags = tags
        self._data_bytes = 0
        self._file.write(self._header(riff_bytes=0, is_rf64=False))

    def write(self, block: NDArray[np.float32]) -> None:
        """Appends (channels, frames)."""
        interleaved = np.ascontiguousarray(block.T)
        if self._bit_depth == "32f":
            data = interleaved.astype("<f4", copy=False).tobytes()
        else:
            bits = int(self._bit_depth)
            integers, clipped = to_integers(interleaved, bits)
            self.clipped_samples += clipped
            data = _little_endian(integers, bits)
        self._file.write(data)
        self._data_bytes += len(data)

    def finish(self) -> None:
        """Writes the tags behind the samples, and the sizes into the header."""
        self._file.write(b"\x00" * (self._data_bytes % 2))
        self._file.write(riff_chunks(self._tags))
        riff_bytes = self._file.tell() - 8
        self._file.seek(0)
        self._file.write(self._header(riff_bytes, is_rf64=riff_bytes > RIFF_LIMIT_BYTES))

    def _header(self, riff_bytes: int, is_rf64: bool) -> bytes:
        frame_bytes = self._channels * _SAMPLE_BYTES[self._bit_depth]
        frames = self._data_bytes // frame_bytes
        if is_rf64:
            riff_field = data_field = fact_field = 0xFFFFFFFF
            sizes = b"ds64" + struct.pack("<I", _DS64.size) + _DS64.pack(riff_bytes, self._data_bytes, frames, 0)
        else:
            riff_field, data_field, fact_field = riff_bytes, self._data_bytes, frames
            sizes = b"JUNK" + struct.pack("<I", _DS64.size) + bytes(_DS64.size)
        kind = _FORMAT_FLOAT if self._bit_depth == "32f" else _FORMAT_PCM
        bits = 8 * _SAMPLE_BYTES[self._bit_depth]
        layout = struct.pack("<HHIIHH", kind, self._channels, self._rate, self._rate * frame_bytes, frame_bytes, bits)
        if kind == _FORMAT_FLOAT:  # every format but PCM says how long its extension is, and has a fact chunk
            layout += struct.pack("<H", 0)
        fact = b"fact" + struct.pack("<II", 4, fact_field) if kind == _FORMAT_FLOAT else b""
        head = (b"RF64" if is_rf64 else b"RIFF") + struct.pack("<I", riff_field) + b"WAVE" + sizes
        return head + b"fmt " + struct.pack("<I", len(layout)) + layout + fact + b"data" + struct.pack("<I", data_field)


def _little_endian(integers: NDArray[np.int32], bits: int) -> bytes:
    if bits == 16:
        return integers.astype("<i2").tobytes()
    four_bytes = np.ascontiguousarray(integers.astype("<i4")).view(np.uint8).reshape(-1, 4)
    return four_bytes[:, :3].tobytes()  # the low three, least significant first
