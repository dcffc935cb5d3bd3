"""The preview: before and after in turn, equally loud, in step, and honest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outboard.audio.files import FileSpec
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import Spool, blocks
from outboard.report.preview import Level, weight_of_after, write_preview

RATE = 48000
FLOAT = FileSpec("wav", "32f")


def noise(seconds: float, level: float, channels: int = 2, seed: int = 0) -> NDArray[np.float32]:
    shape = (channels, round(seconds * RATE))
    return np.random.default_rng(seed).normal(0.0, level, shape).astype(np.float32)


@given(
    segment=st.integers(1, 200), crossfade=st.integers(0, 300), start=st.integers(0, 500), frames=st.integers(0, 900)
)
@settings(max_examples=100, deadline=None)
def test_weights_do_not_depend_on_the_cuts(segment: int, crossfade: int, start: int, frames: int) -> None:
    """Asking for the weights in two parts gives the same as asking at once; they stay within 0 and 1."""
    whole = weight_of_after(0, start + frames, segment, crossfade)
    parts = [weight_of_after(0, start, segment, crossfade), weight_of_after(start, frames, segment, crossfade)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert whole.size == 0 or (whole.min() >= 0.0 and whole.max() <= 1.0)


def test_changes_come_every_segment() -> None:
    """Before is heard in the first segment, after in the second and so on; a change takes the crossfade and no more."""
    weight = weight_of_after(0, 4000, 1000, 100)
    assert (weight[:950] == 0).all()
    assert (weight[1050:1950] == 1).all()
    assert (weight[2050:2950] == 0).all()
    assert (weight[3050:3950] == 1).all()
    assert 0.4 < weight[1000] < 0.6


@pytest.mark.parametrize("louder_db", [-9.0, 0.0, 7.5])
def test_both_sides_are_equally_loud(tmp_path: Path, louder_db: float) -> None:
    """The louder one is turned down to the softer one within 0.1 LU, the softer one is left as it is."""
    before = noise(12, 0.03)
    after = noise(12, 0.03 * 10 ** (louder_db / 20), seed=1)
    report = write_preview(tmp_path / "preview", before, after, RATE, segment_seconds=3.0, spec=FLOAT)
    out = soundfile.read(tmp_path / "preview", dtype="float32")[0].T
    assert out.shape == before.shape
    first = integrated_loudness(np.ascontiguousarray(out[:, : int(2.9 * RATE)]), RATE)
    second = integrated_loudness(np.ascontiguousarray(out[:, int(3.1 * RATE) : int(5.9 * RATE)]), RATE)
    assert first is not None
    assert second is not None
    assert abs(first - second) < 0.1, f"{first:.2f} and {second:.2f} LUFS"
    assert max(report.before_gain_db, report.after_gain_db) == 0.0


def test_a_song_against_itself_is_the_song(tmp_path: Path) -> None:
    """Equal sides come out unchanged (-120 dB), crossfades included; mono stands in both channels."""
    song = noise(7, 0.05, channels=1)
    write_preview(tmp_path / "preview", song, song, RATE, segment_seconds=1.0, spec=FLOAT)
    out = soundfile.read(tmp_path / "preview", dtype="float32")[0].T
    np.testing.assert_allclose(out, np.concatenate([song, song]), atol=1e-6)


def test_nothing_clips(tmp_path: Path) -> None:
    """Sides over full scale are lowered together, so that the file stays at or under -1 dBFS and the match holds."""
    song = noise(4, 0.5)
    report = write_preview(tmp_path / "preview", song, song * 0.9, RATE, segment_seconds=1.0, spec=FLOAT)
    peak = np.abs(soundfile.read(tmp_path / "preview", dtype="float32")[0]).max()
    assert peak <= 10 ** (-1 / 20) + 1e-6
    assert abs(report.before_gain_db - report.after_gain_db + 20 * np.log10(1 / 0.9)) < 0.05


@pytest.mark.parametrize("frames", [1, 3, 4000])
def test_shortest_songs_and_silence(tmp_path: Path, frames: int) -> None:
    """What is too short to have a loudness is compared as it is; silence stays silence."""
    short = noise(1, 0.1)[:, :frames]
    report = write_preview(tmp_path / "short.mp3", short, short, RATE)
    assert (report.before_lufs, report.before_gain_db) == (None, 0.0)
    assert soundfile.info(tmp_path / "short.mp3").frames == frames
    silence = np.zeros((2, frames), dtype=np.float32)
    write_preview(tmp_path / "silence", silence, silence, RATE, spec=FLOAT)
    assert not soundfile.read(tmp_path / "silence")[0].any()


def test_mapped_songs_give_an_mp3_of_their_length(tmp_path: Path) -> None:
    """From spools to an MP3, gapless: exactly the song's length, the same bytes twice, progress rising to 1."""
    heard: list[float] = []
    with Spool(2) as before, Spool(1) as after:
        for block in blocks(noise(6.1, 0.1)):
            before.append(block)
            after.append(block[:1])
        for name in ("one.mp3", "two.mp3"):
            write_preview(tmp_path / name, before.array, after.array, RATE, progress=heard.append)
        frames = before.frames
    assert soundfile.info(tmp_path / "one.mp3").frames == frames
    assert (tmp_path / "one.mp3").read_bytes() == (tmp_path / "two.mp3").read_bytes()
    once = heard[: len(heard) // 2]
    assert once == sorted(once)
    assert once[-1] == 1.0


def test_different_lengths_are_a_mistake(tmp_path: Path) -> None:
    """Two sides that are not in step cannot be compared."""
    with pytest.raises(ValueError, match="length"):
        write_preview(tmp_path / "preview", noise(1, 0.1), noise(2, 0.1), RATE)


def test_known_levels_are_not_measured_again(tmp_path: Path) -> None:
    """Levels that are given take the place of the measurement: the file is the same, bit by bit."""
    before, after = noise(6, 0.05), noise(6, 0.1, seed=1)
    levels = [Level(integrated_loudness(side, RATE), float(np.abs(side).max())) for side in (before, after)]
    expected = write_preview(tmp_path / "measured", before, after, RATE, spec=FLOAT)
    known = (levels[0], levels[1])
    assert write_preview(tmp_path / "known", before, after, RATE, spec=FLOAT, levels=known) == expected
    assert (tmp_path / "known").read_bytes() == (tmp_path / "measured").read_bytes()
