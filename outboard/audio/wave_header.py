"""The header of a 32-bit float WAV file whose length is known beforehand.

Intermediates are stored as WAV files, so a stem in storage is at the same time the file that a user downloads. The
header has a fixed size: the samples begin at byte 92, a multiple of four, and can be mapped or streamed unparsed.
Above 4 GiB it is RF64 (EBU Tech 3306), whose ``ds64`` chunk takes the place of the ``JUNK`` chunk of smaller files.
"""

from __future__ import annotations

import struct

HEADER_BYTES = 92
"""Size of the header, always."""

_FLOAT_FORMAT = 3
_LARGEST_RIFF = 0xFFFFFFFF


def float_wave_header(frames: int, channels: int, sample_rate_hertz: int) -> bytes:
    """Header for interleaved little-endian float32 samples.

    Args:
        frames: length of the file; the samples that follow must be exactly as many.
        channels: 1 or more.
        sample_rate_hertz: sampling rate.
    """
    frame_bytes = 4 * channels
    data_bytes = frames * frame_bytes
    riff_bytes = HEADER_BYTES - 8 + data_bytes
    large = riff_bytes > _LARGEST_RIFF
    if large:
        head = struct.pack("<4sI4s", b"RF64", _LARGEST_RIFF, b"WAVE")
        sizes = struct.pack("<4sIQQQI", b"ds64", 28, riff_bytes, data_bytes, frames, 0)
    else:
        head = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
        sizes = struct.pack("<4sI28x", b"JUNK", 28)
    layout = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, _FLOAT_FORMAT, channels, sample_rate_hertz,
        sample_rate_hertz * frame_bytes, frame_bytes, 32,
    )  # fmt: skip
    fact = struct.pack("<4sII", b"fact", 4, min(frames, _LARGEST_RIFF))
    data = struct.pack("<4sI", b"data", _LARGEST_RIFF if large else data_bytes)
    return head + sizes + layout + fact + data
