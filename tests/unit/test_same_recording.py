"""One recording is known again in another file, and no other is taken for it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, decode, encode
from outboard.audio.resample import resample
from outboard.audio.same_recording import Courses, Likeness, courses, likeness
from services.master.master import master
from services.master.plan import plan
from services.master.settings import MasterSettings

RATE = 48_000
Array = np.ndarray


@pytest.fixture(scope="module")
def song() -> Array:
    return synthesise(61, 12.0).song


@pytest.fixture(scope="module")
def own(song: Array) -> Courses:
    return courses(song, RATE)


def _coded(song: Array, folder: Path, spec: FileSpec, rate: int = RATE) -> Array:
    path = folder / f"coded.{spec.container}"
    encode(path, [resample(song, RATE, rate)], rate, spec)
    with decode(path, sample_rate_hertz=RATE) as file:
        return np.array(file.array)


_COPIES = {
    "128 kbit/s": lambda song, folder: _coded(song, folder, FileSpec("mp3", bitrate_kbps=128)),
    "44.1 kHz, 16 bit": lambda song, folder: _coded(song, folder, FileSpec("flac", "16"), 44_100),
    "20 dB lower": lambda song, folder: 0.1 * song,
    "half a step later": lambda song, folder: np.pad(song, ((0, 0), (480, 0))),
    "begun 1.337 s later": lambda song, folder: song[:, 64_176:],
    "the second half": lambda song, folder: song[:, 6 * RATE :],
    "with 3 s of silence ahead": lambda song, folder: np.pad(song, ((0, 0), (3 * RATE, 0))),
}


@pytest.mark.parametrize("copy", _COPIES)
def test_a_copy_is_the_same_recording(copy: str, song: Array, own: Courses, tmp_path: Path) -> None:
    """Codecs, rates, levels and cuts leave a recording what it is; whichever of the two comes first."""
    other = courses(_COPIES[copy](song, tmp_path).astype(np.float32), RATE)
    for found in (likeness(own, other), likeness(other, own)):
        assert found.is_same, f"{found.correlation:.4f}, {found.tone_db:.2f} dB"


def test_another_song_is_not(own: Courses) -> None:
    """Songs by one generator and of one length are told apart by far."""
    others = [courses(synthesise(seed, 12.0).song, RATE) for seed in (62, 63, 64)]
    found = [likeness(one, other).correlation for one, other in itertools.combinations([own, *others], 2)]
    assert max(found) < 0.8, f"two songs correlate by {max(found):.3f}"


def test_a_loud_master_of_the_song_may_be_followed(song: Array, own: Courses, tmp_path: Path) -> None:
    """A master that was really worked on is another sound, which a mix may want to be like."""
    analysis = analyze(song, RATE)
    result = master(song, RATE, plan(analysis, MasterSettings(intent="loud")), directory=tmp_path)
    with decode(result.deliverables[0].path, sample_rate_hertz=RATE) as file:
        found = likeness(own, courses(file.array, RATE))
    assert not found.is_same, f"{found.correlation:.4f}, {found.tone_db:.2f} dB"


def test_short_and_silent_files_are_like_nothing(song: Array, own: Courses) -> None:
    """Less than 5 s in common, or nothing to hear: no likeness, and no error."""
    assert likeness(own, courses(song[:, : 4 * RATE], RATE)) == Likeness(0.0, np.inf)
    assert likeness(own, courses(song[:, :100], RATE)) == Likeness(0.0, np.inf)
    silence = courses(np.zeros((2, 10 * RATE), np.float32), RATE)
    assert likeness(own, silence).correlation == 0.0
    assert not likeness(silence, silence).is_same
