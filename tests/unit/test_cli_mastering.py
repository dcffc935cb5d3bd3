"""The command line's way to say what is delivered and what is followed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, encode
from outboard.audio.nearest_song import ranked_by_sound
from outboard.cli.deliverables import checked_platform, chosen_references, parse_deliverables
from outboard.errors import InvalidInput
from outboard.v1 import master_service_pb2 as messages

RATE_HERTZ = 48_000


def test_deliverables_are_read() -> None:
    """Format, rate, depth or bit rate, and name; what is left out is left to the server."""
    specs = parse_deliverables(["wav:48000:24", "flac:44.1k:16", "mp3:320", "club=wav:96k:32f"])
    assert [spec.name for spec in specs] == ["master", "master", "master", "club"]
    assert specs[1].sample_rate_hertz == 44_100
    assert specs[1].bit_depth == messages.BIT_DEPTH_16
    assert (specs[2].bitrate_kbps, specs[2].sample_rate_hertz) == (320, 0)
    assert specs[3].bit_depth == messages.BIT_DEPTH_32F


def test_two_files_of_a_kind_are_told_apart() -> None:
    """Two wavs without names get their rates and depths as names; two equal ones are refused."""
    names = [spec.name for spec in parse_deliverables(["wav:44.1k:16", "wav:96k:24", "mp3"])]
    assert names == ["master-44100-16", "master-96000-24", "master"]
    with pytest.raises(InvalidInput) as caught:
        parse_deliverables(["wav", "wav:48000"])
    assert caught.value.reason == "OPTIONS_CONFLICT"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("aac", "none of wav, flac, mp3"),
        ("mp3:16", "no bit depth"),
        ("wav:320", "no sample rate or bit depth"),
        ("wav:loud", "no rate, depth"),
        ("=wav", "a name is missing"),
        ("wav:nan", "no sample rate"),
        ("mp3:320:128", "second of its kind"),
        ("wav:44.1k:48k", "second of its kind"),
        ("wav:16:24", "two bit depths"),
    ],
)
def test_wrong_deliverables_are_told(text: str, told: str) -> None:
    """The message quotes the option, says what is wrong and shows the form."""
    with pytest.raises(InvalidInput, match=told) as caught:
        parse_deliverables([text])
    assert f"--deliver {text!r}" in caught.value.message
    assert "[NAME=]" in caught.value.message


def test_mistyped_platform_is_told() -> None:
    """The nearest name is suggested before anything is uploaded."""
    assert checked_platform("") == ""
    with pytest.raises(InvalidInput, match="did you mean 'tidal'"):
        checked_platform("tidall")


def test_a_folder_stands_for_its_nearest_song(tmp_path: Path) -> None:
    """Of a folder's songs the one that sounds alike is taken; the song itself, text and silence are not."""
    folder = tmp_path / "references"
    folder.mkdir()
    for name, seed in (("alike", 21), ("other", 33)):
        encode(folder / f"{name}.wav", [0.5 * synthesise(seed, 7.0).clean], RATE_HERTZ, FileSpec("wav", "16"))
    song = tmp_path / "song.wav"
    encode(song, [synthesise(21, 7.0).song], RATE_HERTZ, FileSpec("wav", "24"))
    shutil.copy(song, folder / "song_itself.wav")
    (folder / "broken.mp3").write_bytes(b"no audio")
    (folder / "notes.txt").write_text("no audio either")
    encode(folder / "silence.wav", [0.0 * synthesise(21, 7.0).clean], RATE_HERTZ, FileSpec("wav", "16"))
    chosen, told = chosen_references(song, [folder, tmp_path / "explicit.wav"])
    assert chosen == [folder / "alike.wav", tmp_path / "explicit.wav"]
    assert "nearest of 2" in told
    ranked = ranked_by_sound(song, sorted(folder.iterdir()))
    assert [candidate.path.name for candidate in ranked] == ["alike.wav", "other.wav"]


def test_a_folder_without_songs_is_refused(tmp_path: Path) -> None:
    """REFERENCE_UNSUITABLE, with the folder's name."""
    song = tmp_path / "song.wav"
    encode(song, [synthesise(21, 7.0).song], RATE_HERTZ, FileSpec("wav", "24"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="'empty'") as caught:
        chosen_references(song, [tmp_path / "empty"])
    assert caught.value.reason == "REFERENCE_UNSUITABLE"
