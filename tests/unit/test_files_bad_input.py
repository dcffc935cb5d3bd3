"""Files that cannot be used: each has its reason, its field, what is allowed, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outboard.audio.files import DecodedFile, DecodeLimits, FileSpec, child, decode, encode
from outboard.audio.spool import Spool
from outboard.errors import Internal, InvalidInput, NotFound, OutboardError


def refused(path: Path, reason: str, **options: object) -> InvalidInput:
    """Decodes, expects this reason, and checks what holds for every refusal."""
    spools: list[Spool] = []

    def spool(channels: int) -> Spool:
        spools.append(Spool(channels))
        return spools[-1]

    before = _children()
    with pytest.raises(InvalidInput) as caught:
        decode(path, field="song", spool=spool, **options)  # type: ignore[arg-type]
    error = caught.value
    assert error.reason == reason, f"{error.reason}: {error.message}"
    assert [violation.field for violation in error.violations] == ["song"]
    assert path.name not in error.message
    assert str(path.parent) not in error.message
    for each in spools:
        with pytest.raises(ValueError, match="closed"):
            _ = each.array
    assert _children() == before, "the decoder process is still there"
    return error


def _children() -> set[str]:
    tasks = Path(f"/proc/{os.getpid()}/task")
    if not tasks.exists():
        return set()
    return {pid for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def wav_header(rate: int = 48000, channels: int = 2, data_bytes: int = 0) -> bytes:
    layout = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data_bytes)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + layout
        + b"data"
        + (struct.pack("<I", data_bytes))
    )


def test_empty_file(tmp_path: Path) -> None:
    """A file of 0 bytes is AUDIO_EMPTY."""
    (tmp_path / "song.wav").write_bytes(b"")
    assert "0 bytes" in refused(tmp_path / "song.wav", "AUDIO_EMPTY").message


def test_text_named_wav(tmp_path: Path) -> None:
    """Text with an audio file's name is AUDIO_UNREADABLE, with the formats that are understood."""
    (tmp_path / "song.wav").write_text("This is a letter and not a song.\n" * 200)
    assert "flac" in refused(tmp_path / "song.wav", "AUDIO_UNREADABLE").message


def test_zero_frames(tmp_path: Path) -> None:
    """A valid header with no samples is AUDIO_EMPTY."""
    (tmp_path / "song.wav").write_bytes(wav_header())
    assert "0 frames" in refused(tmp_path / "song.wav", "AUDIO_EMPTY").message


def test_three_samples_are_ordinary(tmp_path: Path) -> None:
    """Three samples are decoded like any other audio."""
    soundfile.write(tmp_path / "song.wav", np.array([0.5, -0.5, 0.25]), 48000, subtype="FLOAT")
    with decode(tmp_path / "song.wav") as decoded:
        assert decoded.array.tolist() == [[0.5, -0.5, 0.25]]


def test_less_than_one_frame_at_the_new_rate(tmp_path: Path) -> None:
    """One sample at 192 kHz is no sample at 48 kHz: AUDIO_TOO_SHORT."""
    soundfile.write(tmp_path / "song.wav", np.array([0.5]), 192000)
    refused(tmp_path / "song.wav", "AUDIO_TOO_SHORT")


def test_ten_hours_are_refused_from_the_header(tmp_path: Path) -> None:
    """10 h are AUDIO_TOO_LONG at once: the header says so, and nothing is decoded (a sparse file stands for the
    samples)."""
    data_bytes = 10 * 3600 * 8000 * 2
    with (tmp_path / "song.wav").open("wb") as file:
        file.write(wav_header(8000, 1, data_bytes))
        file.truncate(44 + data_bytes)
    begun = time.monotonic()
    error = refused(tmp_path / "song.wav", "AUDIO_TOO_LONG")
    assert "36000 s" in error.message
    assert "7200 s" in error.message
    assert time.monotonic() - begun < 20


def test_too_long_without_a_header_that_says_so(tmp_path: Path) -> None:
    """Where the header tells no length, decoding stops as soon as the limit is passed."""
    path = tmp_path / "song.mp3"
    encode(path, [np.zeros((2, 480000), dtype=np.float32)], 48000, FileSpec("mp3", bitrate_kbps=128))
    frames = path.read_bytes()
    path.write_bytes(frames[len(frames) // 10 :])  # without its Info tag
    message = refused(path, "AUDIO_TOO_LONG", limits=DecodeLimits(max_seconds=2.0)).message
    assert "at most 2 s" in message


def test_nine_channels(tmp_path: Path) -> None:
    """9 channels are AUDIO_TOO_MANY_CHANNELS, with the allowed number."""
    soundfile.write(tmp_path / "song.wav", np.zeros((1000, 9)), 48000)
    assert "1 to 8" in refused(tmp_path / "song.wav", "AUDIO_TOO_MANY_CHANNELS").message


@pytest.mark.parametrize("rate", [4000, 384000])
def test_rates_out_of_range(tmp_path: Path, rate: int) -> None:
    """4 kHz and 384 kHz are AUDIO_SAMPLE_RATE_UNSUPPORTED, with the allowed range."""
    soundfile.write(tmp_path / "song.wav", np.zeros((1000, 2)), rate)
    message = refused(tmp_path / "song.wav", "AUDIO_SAMPLE_RATE_UNSUPPORTED").message
    assert "8000 to 192000 Hz" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(tmp_path: Path, value: float) -> None:
    """One sample that is NaN or infinite, however late, is AUDIO_NOT_FINITE."""
    song = np.zeros((200000, 2), dtype=np.float32)
    song[199999, 1] = value
    soundfile.write(tmp_path / "song.wav", song, 48000, subtype="FLOAT")
    refused(tmp_path / "song.wav", "AUDIO_NOT_FINITE")


def test_truncated_mp3(tmp_path: Path) -> None:
    """An MP3 that ends early is decoded as far as it goes, aligned, with the warning TRUNCATED."""
    song = np.zeros((2, 96000), dtype=np.float32)
    song[:, 20000] = 0.9
    path = tmp_path / "song.mp3"
    encode(path, [song], 48000, FileSpec("mp3"))
    coded = path.read_bytes()
    path.write_bytes(coded[: len(coded) // 2])
    with decode(path) as decoded:
        assert [warning.code for warning in decoded.warnings] == ["TRUNCATED"]
        assert 40000 < decoded.frames < 50000
        assert np.abs(decoded.array[0]).argmax() == 20000


@pytest.mark.parametrize("container", ["wav", "flac"])
def test_other_truncated_files(tmp_path: Path, container: str) -> None:
    """WAV and FLAC that end early give what is there, exactly, with the warning TRUNCATED."""
    song = np.round(np.random.default_rng(0).uniform(-1, 1, (2, 96000)) * 8000).astype(np.float32) / 32768
    path = tmp_path / "song"
    encode(path, [song], 48000, FileSpec(container, "16"))
    coded = path.read_bytes()
    path.write_bytes(coded[: len(coded) // 2])
    with decode(path) as decoded:
        assert [warning.code for warning in decoded.warnings] == ["TRUNCATED"]
        assert decoded.frames > 40000
        np.testing.assert_array_equal(decoded.array, song[:, : decoded.frames])


def test_damage_in_the_middle_keeps_the_place(tmp_path: Path) -> None:
    """Garbage in the middle of an MP3 costs what it hits; what follows is where it was, to the frame of the coder."""
    song = np.zeros((2, 96000), dtype=np.float32)
    song[:, 90000] = 0.9
    path = tmp_path / "song.mp3"
    encode(path, [song], 48000, FileSpec("mp3"))
    coded = bytearray(path.read_bytes())
    coded[40000:42000] = bytes(2000)
    path.write_bytes(coded)
    with decode(path) as decoded:
        place = int(np.abs(decoded.array[0]).argmax())
        assert abs(place - 90000) % 1152 == 0, f"the click is at {place}"
        assert abs(place - 90000) <= 3 * 1152


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    """A missing file is NOT_FOUND and a folder AUDIO_UNREADABLE; neither message tells the path."""
    with pytest.raises(NotFound) as caught:
        decode(tmp_path / "nowhere.wav")
    assert "nowhere" not in caught.value.message
    refused(tmp_path, "AUDIO_UNREADABLE")


def test_file_that_points_elsewhere_is_not_followed(tmp_path: Path) -> None:
    """Playlists, which make a decoder open other files or addresses, are not understood at all."""
    soundfile.write(tmp_path / "other.wav", np.ones(1000), 48000)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nother.wav\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text("ffconcat version 1.0\nfile other.wav\n")
    refused(tmp_path / "list.m3u8", "AUDIO_UNREADABLE")
    refused(tmp_path / "list.ffconcat", "AUDIO_UNREADABLE")


@given(damage=st.lists(st.tuples(st.integers(0, 8000), st.binary(min_size=1, max_size=40)), min_size=1, max_size=6))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("container", ["wav", "flac", "mp3"])
def test_hostile_bytes_give_audio_or_a_clear_error(
    tmp_path: Path, container: str, damage: list[tuple[int, bytes]]
) -> None:
    """Whatever is overwritten in a file, decoding ends with finite audio or with one of our errors."""
    path = tmp_path / "song"
    encode(path, [np.random.default_rng(0).uniform(-1, 1, (2, 4000)).astype(np.float32)], 48000, FileSpec(container))
    coded = bytearray(path.read_bytes())
    for place, junk in damage:
        coded[place : place + len(junk)] = junk
    path.write_bytes(coded)
    decoded: DecodedFile | None = None
    try:
        decoded = decode(path, limits=DecodeLimits(cpu_seconds=20, wall_seconds=30))
        assert np.isfinite(decoded.array).all()
    except OutboardError as error:
        assert error.reason.startswith("AUDIO_"), error.message  # noqa: PT017 - both outcomes are right
    finally:
        if decoded is not None:
            decoded.close()


def _instead(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(child, "_command", lambda: [sys.executable, "-c", script])


_SAY = "import os, struct, sys, time; say = lambda kind: os.write(1, struct.pack('<cI', kind, 0))"


def test_decoder_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that says nothing for longer than allowed is killed: AUDIO_DECODE_LIMIT, in time, with no process
    left."""
    _instead(monkeypatch, f"{_SAY}; say(b'S'); time.sleep(600)")
    (tmp_path / "song.wav").write_bytes(b"x")
    begun = time.monotonic()
    error = refused(tmp_path / "song.wav", "AUDIO_DECODE_LIMIT", limits=DecodeLimits(wall_seconds=1.0))
    assert "1 s allowed" in error.message
    assert time.monotonic() - begun < 20


def test_decoder_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that a file crashes is AUDIO_DECODE_LIMIT; one that fails is AUDIO_UNREADABLE."""
    (tmp_path / "song.wav").write_bytes(b"x")
    _instead(monkeypatch, f"{_SAY}; say(b'S'); os.kill(os.getpid(), {signal.SIGSEGV.value})")
    refused(tmp_path / "song.wav", "AUDIO_DECODE_LIMIT")
    _instead(monkeypatch, f"{_SAY}; say(b'S'); sys.exit(3)")
    refused(tmp_path / "song.wav", "AUDIO_UNREADABLE")


def test_decoder_that_cannot_start_is_our_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that does not even load is INTERNAL: the user's file is not to blame."""
    (tmp_path / "song.wav").write_bytes(b"x")
    _instead(monkeypatch, "raise SystemExit(1)")
    with pytest.raises(Internal):
        decode(tmp_path / "song.wav")


def test_decoder_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    """Killing the real decoder process half way through gives a clean error, and its spool is closed."""
    path = tmp_path / "song.wav"
    soundfile.write(path, np.zeros((480000, 2)), 48000)

    def kill(fraction: float) -> None:
        for pid in _children() - before:
            os.kill(int(pid), signal.SIGKILL)

    before = _children()
    refused(path, "AUDIO_DECODE_LIMIT", progress=kill)


def test_limits_bind_the_child() -> None:
    """In the child, processor time and memory are limited and no file can be written, before a byte is decoded."""
    script = Path(child.__file__).with_name("decode_child.py")
    probe = (
        f"import runpy, resource; runpy.run_path({str(script)!r})['_set_limits'](7, 1 << 30)\n"
        "print([resource.getrlimit(kind)[1] for kind in"
        " (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)])"
    )
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    assert out.strip() == str([7, 1 << 30, 0, 0])


def test_too_little_memory_is_not_the_servers_memory(tmp_path: Path) -> None:
    """A decoder that runs out of its memory ends alone, with one of our errors."""
    soundfile.write(tmp_path / "song.wav", np.zeros((480000, 2)), 48000)
    with pytest.raises(OutboardError):
        decode(tmp_path / "song.wav", limits=DecodeLimits(memory_bytes=64 << 20))


def test_cancelling_while_decoding(tmp_path: Path) -> None:
    """An exception from `progress` comes through, and process and spool are gone."""
    soundfile.write(tmp_path / "song.wav", np.zeros((480000, 2)), 48000)
    made: list[Spool] = []

    def spool(channels: int) -> Spool:
        made.append(Spool(channels))
        return made[-1]

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    before = _children()
    with pytest.raises(KeyboardInterrupt):
        decode(tmp_path / "song.wav", spool=spool, progress=stop)
    with pytest.raises(ValueError, match="closed"):
        _ = made[0].array
    assert _children() == before


def test_many_at_once(tmp_path: Path) -> None:
    """Eight threads decoding at the same time get what one alone gets."""
    song = np.random.default_rng(0).uniform(-1, 1, (2, 50000)).astype(np.float32)
    encode(tmp_path / "song", [song], 48000, FileSpec("wav", "32f"))
    right: list[bool] = []

    def work() -> None:
        with decode(tmp_path / "song") as decoded:
            right.append(bool(np.array_equal(decoded.array, song)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 8
