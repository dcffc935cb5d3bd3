"""MP3 files with LAME (libmp3lame through libavcodec), gapless: decoders give back the exact length.

The encoder delays by 576 samples and pads the end to whole frames. Both stand in the Info tag (the first frame, silent;
Gabriel Bouvigne, "MP3 Info Tag revision 1 specifications"), from which decoders trim. libavformat's muxer writes the
tag, but the padding it derives is not always right; it is computed and written here, with the checksum that covers it.
"""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import IO

import av
import numpy as np
from numpy.typing import NDArray

from outboard.audio.files.tags import Tags, id3v2

SAMPLE_RATES_HERTZ = (32000, 44100, 48000)
BITRATES_KBPS = (64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
"""MPEG-1 layer III; at 32 to 56 kbit/s a frame cannot hold the Info tag."""

FRAME_SAMPLES = 1152
ENCODER_DELAY_SAMPLES = 576
SIDE_INFO_BYTES = {1: 17, 2: 32}
# Offsets from the letters "Info", all four optional fields being present
_FRAME_COUNT_OFFSET = 8
LAME_OFFSET = 120
_DELAY_OFFSET = LAME_OFFSET + 21
TAG_CRC_OFFSET = LAME_OFFSET + 34


def mp3_rate_hertz(sample_rate_hertz: int) -> int:
    """The rate to code audio of this rate at: itself where MP3 has it, else 44.1 kHz for its multiples, else 48 kHz."""
    if sample_rate_hertz in SAMPLE_RATES_HERTZ:
        return sample_rate_hertz
    return 44100 if sample_rate_hertz % 11025 == 0 else 48000


class Mp3Writer:
    """Writes an MP3 file of constant bit rate into a seekable binary file that can be read back.

    Every block but the last must have `block_frames` frames.
    """

    block_frames = FRAME_SAMPLES
    clipped_samples = 0  # LAME takes floats of any size

    def __init__(
        self, file: IO[bytes], sample_rate_hertz: int, channels: int, bitrate_kbps: int, effort: int, tags: Tags
    ) -> None:
        self._file = file
        self._rate = sample_rate_hertz
        self._channels = channels
        self._layout = "mono" if channels == 1 else "stereo"
        self._frames = 0
        self._file.write(id3v2(tags))
        self._start = self._file.tell()
        options = {"id3v2_version": "0", "write_id3v1": "0", "write_xing": "1", "fflags": "+bitexact"}
        self._container = av.open(_Behind(file), "w", format="mp3", container_options=options)
        self._stream = self._container.add_stream("libmp3lame", rate=sample_rate_hertz, layout=self._layout)
        self._stream.codec_context.format = "fltp"
        self._stream.codec_context.bit_rate = bitrate_kbps * 1000
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.options = {"compression_level": str(effort)}

    def write(self, block: NDArray[np.float32]) -> None:
        """Appends (channels, frames)."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.time_base = Fraction(1, self._rate)
        frame.pts = self._frames
        self._frames += block.shape[1]
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Ends the coding and makes the Info tag right."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._file.seek(self._start)
        head = bytearray(self._file.read(4 + SIDE_INFO_BYTES[self._channels] + TAG_CRC_OFFSET + 2))
        write_padding(head, 4 + SIDE_INFO_BYTES[self._channels], self._frames)
        self._file.seek(self._start)
        self._file.write(head)


def write_padding(head: bytearray, info: int, frames: int) -> None:
    """Puts encoder delay and padding for this many audio frames into an Info tag, and its checksum.

    Args:
        head: the first MP3 frame, at least to the end of the tag; changed in place.
        info: where in it the letters "Info" stand.
        frames: length of the music.
    """
    assert head[info : info + 4] == b"Info"
    (coded_frames,) = struct.unpack_from(">I", head, info + _FRAME_COUNT_OFFSET)
    padding = coded_frames * FRAME_SAMPLES - ENCODER_DELAY_SAMPLES - frames
    assert 0 <= padding < 1 << 12
    head[info + _DELAY_OFFSET : info + _DELAY_OFFSET + 3] = (ENCODER_DELAY_SAMPLES << 12 | padding).to_bytes(3, "big")
    struct.pack_into(">H", head, info + TAG_CRC_OFFSET, crc16(head[: info + TAG_CRC_OFFSET]))


def crc16(data: bytes | bytearray) -> int:
    """CRC-16 with the reflected polynomial 0xA001 and start 0 ("CRC-16/ARC"), as the Info tag uses it."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0xA001 if value & 1 else 0)
    return value


class _Behind(io.RawIOBase):
    """The part of a file behind its present position, as a file of its own: the muxer counts from the first MP3
    frame."""

    name = "audio.mp3"

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.tell()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._file.write(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = self._start if whence == io.SEEK_SET else 0
        return self._file.seek(base + offset, whence) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
