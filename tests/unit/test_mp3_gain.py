"""Granules of a coded MP3 are turned down by what was asked, where it was asked; nothing else of the file changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.files import FileSpec, Tags, decode, encode
from outboard.audio.files.mp3_gain import GRANULE_FRAMES, STEP_DB, lower_granules, steps_for

Array = NDArray[np.float32]
KINDS = [(44100, 128, 2), (48000, 320, 2), (44100, 128, 1), (48000, 192, 2)]


def coded(folder: Path, rate: int, kbps: int, channels: int) -> Path:
    """Two seconds of noise as an MP3 with a tag in front."""
    noise = np.random.default_rng(0).standard_normal((channels, 2 * rate)).astype(np.float32) * np.float32(0.1)
    path = folder / "noise.mp3"
    encode(path, [noise], rate, FileSpec("mp3", bitrate_kbps=kbps), tags=Tags({"title": "Grün"}))
    return path


def samples(path: Path) -> Array:
    with decode(path, sample_rate_hertz=None) as file:
        return np.array(file.array)


@pytest.mark.parametrize(("rate", "kbps", "channels"), KINDS)
def test_nothing_asked_changes_no_byte(rate: int, kbps: int, channels: int, tmp_path: Path) -> None:
    """Both checksums are computed as the encoder's muxer does, so they come out the same."""
    path = coded(tmp_path, rate, kbps, channels)
    before = path.read_bytes()
    lower_granules(path, np.zeros(400, np.int64))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("rate", "kbps", "channels"), KINDS)
def test_a_step_is_a_decibel_and_a_half(rate: int, kbps: int, channels: int, tmp_path: Path) -> None:
    """Where all granules are lowered by two steps, the audio is 3.01 dB lower, sample by sample."""
    path = coded(tmp_path, rate, kbps, channels)
    before = samples(path)
    lower_granules(path, np.full(400, 2))
    after = samples(path)
    assert after.shape == before.shape
    inner = slice(5000, -5000)
    expected = before[:, inner] * np.float32(10 ** (-2 * STEP_DB / 20))
    assert np.abs(after[:, inner] - expected).max() <= 1e-5


@pytest.mark.parametrize(("rate", "kbps", "channels"), KINDS)
@pytest.mark.parametrize("at", [20_000, 20_144, 20_288, 20_431])
def test_the_moment_asked_for_is_lowered_and_no_other(
    rate: int, kbps: int, channels: int, at: int, tmp_path: Path
) -> None:
    """An excess of 3 dB at any frame brings that moment down by 1.5 dB or more and leaves all that is 40 ms away."""
    path = coded(tmp_path, rate, kbps, channels)
    before = samples(path)
    over_db = np.zeros(20)
    over_db[10] = 3.0
    steps = steps_for(over_db, at - 80, 8, 400)
    assert set(steps[steps > 0]) == {2}
    lower_granules(path, steps)
    after = samples(path)
    near = slice(at - 24, at + 24)
    lowered_db = 10 * np.log10(np.square(before[:, near]).mean() / np.square(after[:, near]).mean())
    assert lowered_db >= 1.5, f"{lowered_db:.2f} dB"
    touched = np.flatnonzero(np.abs(after - before).max(axis=0) > 1e-5)
    assert touched.min() > at - 3 * GRANULE_FRAMES
    assert touched.max() < at + 3 * GRANULE_FRAMES


def test_every_frame_is_heard_in_a_granule_that_is_lowered() -> None:
    """No frame falls between two granules, and none asks for more than two."""
    for frame in range(10_000, 10_000 + GRANULE_FRAMES):
        lowered = np.flatnonzero(steps_for(np.array([0.2]), frame, 1, 400))
        assert 1 <= lowered.size <= 2


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Without an Info tag nothing is touched."""
    path = tmp_path / "other.mp3"
    path.write_bytes(bytes(2000))
    with pytest.raises(ValueError, match="Info tag"):
        lower_granules(path, np.ones(4, np.int64))
    assert path.read_bytes() == bytes(2000)
