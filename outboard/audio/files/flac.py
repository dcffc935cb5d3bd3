"""FLAC files (RFC 9639) of 16 or 24 bits, coded by libavcodec.

A FLAC file is the marker, metadata blocks and the encoder's packets one after the other, so they are written here
directly: the STREAMINFO block is known (with the MD5 of the audio) only when the encoder has finished, and is put into
its place then.
"""

from __future__ import annotations

from fractions import Fraction
from typing import IO

import av
import numpy as np
from numpy.typing import NDArray

from outboard.audio.files.quantise import to_integers
from outboard.audio.files.tags import Tags, flac_picture, vorbis_comment

VENDOR = "Outboard"
FRAME_SAMPLES = 4096
"""Frames of audio per coded block; RFC 9639's streamable subset allows 4608 up to 48 kHz."""

_STREAMINFO_BYTES = 34
_STREAMINFO, _VORBIS_COMMENT, _PICTURE = 0, 4, 6
_STREAMINFO_OFFSET = len(b"fLaC") + 4
_LAST_BLOCK = 0x80


class FlacWriter:
    """Writes a FLAC file into a seekable binary file; every block but the last must have `block_frames` frames."""

    block_frames = FRAME_SAMPLES

    def __init__(self, file: IO[bytes], sample_rate_hertz: int, channels: int, bit_depth: str, tags: Tags) -> None:
        self.clipped_samples = 0
        self._file = file
        self._rate = sample_rate_hertz
        self._layout = "mono" if channels == 1 else "stereo"
        self._bits = int(bit_depth)
        self._frames = 0
        self._codec = av.CodecContext.create("flac", "w")
        self._codec.sample_rate = sample_rate_hertz
        self._codec.format = "s16" if self._bits == 16 else "s32"  # the encoder codes the upper 24 bits of s32
        self._codec.layout = self._layout
        self._codec.time_base = Fraction(1, sample_rate_hertz)
        self._codec.thread_count = 1
        self._codec.options = {"frame_size": str(FRAME_SAMPLES)}
        self._codec.open()
        self._file.write(_metadata(tags))

    def write(self, block: NDArray[np.float32]) -> None:
        """Appends (channels, frames)."""
        integers, clipped = to_integers(np.ascontiguousarray(block.T).reshape(1, -1), self._bits)
        self.clipped_samples += clipped
        samples = integers.astype(np.int16) if self._bits == 16 else integers << 8
        frame = av.AudioFrame.from_ndarray(samples, format=self._codec.format.name, layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._frames
        self._frames += block.shape[1]
        self._put(frame)

    def finish(self) -> None:
        """Ends the coding and puts the STREAMINFO into its place."""
        self._put(None)
        streaminfo = self._codec.extradata
        assert streaminfo is not None
        assert len(streaminfo) == _STREAMINFO_BYTES
        self._file.seek(_STREAMINFO_OFFSET)
        self._file.write(streaminfo)

    def _put(self, frame: av.AudioFrame | None) -> None:
        for packet in self._codec.encode(frame):
            self._file.write(bytes(packet))


def _metadata(tags: Tags) -> bytes:
    blocks = [(_STREAMINFO, bytes(_STREAMINFO_BYTES)), (_VORBIS_COMMENT, vorbis_comment(tags, VENDOR))]
    if tags.cover is not None:
        blocks.append((_PICTURE, flac_picture(tags.cover)))
    coded = b"fLaC"
    for index, (kind, body) in enumerate(blocks):
        last = _LAST_BLOCK if index == len(blocks) - 1 else 0
        coded += bytes([kind | last]) + len(body).to_bytes(3, "big") + body
    return coded
