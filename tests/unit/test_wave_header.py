"""The fixed header of stored audio: read by others, RF64 above 4 GiB."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from outboard.audio.wave_header import HEADER_BYTES, float_wave_header


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 4801])
def test_others_read_it(frames: int, channels: int) -> None:
    """libsndfile reads rate, channels and every sample bit by bit, over full scale too; samples begin at byte 92."""
    noise = np.random.default_rng(1).standard_normal((frames, channels)).astype("<f4")
    data = float_wave_header(frames, channels, 48000) + noise.tobytes()
    assert HEADER_BYTES == 92
    assert len(data) == HEADER_BYTES + noise.nbytes
    read, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    assert rate == 48000
    assert np.array_equal(read, noise)


def test_large_files_are_rf64() -> None:
    """A file above 4 GiB says RF64 and carries 64-bit sizes; its header has the same size."""
    frames = 600_000_000
    header = float_wave_header(frames, 2, 48000)
    assert len(header) == HEADER_BYTES
    assert header[:4] == b"RF64"
    assert header[12:16] == b"ds64"
    riff, data, count = struct.unpack_from("<QQQ", header, 20)
    assert (riff, data, count) == (frames * 8 + HEADER_BYTES - 8, frames * 8, frames)
