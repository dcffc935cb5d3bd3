"""Audio files: exact lengths, exact samples, tags and cover, whatever the format, rate, length and channels."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import mutagen.flac
import mutagen.mp3
import mutagen.wave
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from outboard.audio.files import Cover, FileSpec, Tags, decode, encode, to_stereo, wav
from outboard.audio.resample import resample
from outboard.audio.spool import Spool, blocks
from outboard.errors import Internal, InvalidInput, OutboardError, ResourceExhausted

TAGS = Tags(
    {
        "album": "Ünder",
        "artist": "Somebody",
        "comment": "two\nlines",
        "date": "2026",
        "title": "A song — 歌",
        "track": "3/9",
    },
    Cover("image/jpeg", b"\xff\xd8\xff\xe0" + bytes(range(256)) * 40),
)
LOSSLESS = [
    FileSpec("wav", "16"),
    FileSpec("wav", "24"),
    FileSpec("wav", "32f"),
    FileSpec("flac", "16"),
    FileSpec("flac", "24"),
]


def on_grid(song: NDArray[np.float32], spec: FileSpec) -> NDArray[np.float32]:
    """The song as a ditherer leaves it: on the grid of the bit depth."""
    if spec.bit_depth == "32f":
        return song
    scale = 2.0 ** (int(spec.bit_depth) - 1)
    return (np.clip(np.rint(song * scale), -scale, scale - 1) / scale).astype(np.float32)


def noise(channels: int, frames: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (channels, frames)).astype(np.float32)


@pytest.mark.parametrize("spec", LOSSLESS, ids=lambda spec: f"{spec.container}{spec.bit_depth}")
@given(
    rate=st.sampled_from([8000, 11025, 22050, 44100, 48000, 96000, 192000]),
    frames=st.integers(1, 9000),
    channels=st.integers(1, 2),
    cut=st.integers(1, 5000),
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lossless_round_trip_is_exact(
    tmp_path: Path, spec: FileSpec, rate: int, frames: int, channels: int, cut: int
) -> None:
    """Any rate, length, channels and cuts: what is decoded is what was encoded, bit for bit, by us and by
    libsndfile."""
    song = on_grid(noise(channels, frames, frames), spec)
    path = tmp_path / "song"
    written = encode(path, blocks(song, cut), rate, spec)
    assert (written.frames, written.sample_rate_hertz, written.channels) == (frames, rate, channels)
    assert written.size_bytes == path.stat().st_size
    assert written.clipped_samples == 0
    with decode(path, sample_rate_hertz=None) as decoded:
        np.testing.assert_array_equal(decoded.array, song)
        assert (decoded.source_sample_rate_hertz, decoded.source_channels) == (rate, channels)
        assert decoded.warnings == ()
    read, read_rate = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(read.T, song)
    assert read_rate == rate


@pytest.mark.parametrize(
    ("name", "format", "subtype"),
    [
        ("song.wav", "WAV", "PCM_U8"),
        ("song.wav", "WAV", "DOUBLE"),
        ("song.wav", "RF64", "PCM_24"),
        ("song.aiff", "AIFF", "PCM_16"),
        ("song.flac", "FLAC", "PCM_24"),
        ("song.ogg", "OGG", "VORBIS"),
        ("song.opus", "OGG", "OPUS"),
        ("song.mp3", "MP3", "MPEG_LAYER_III"),
    ],
)
@pytest.mark.parametrize("frames", [3, 1000, 50021])
def test_foreign_files_have_their_exact_length_and_place(
    tmp_path: Path, name: str, format: str, subtype: str, frames: int
) -> None:
    """Files that libsndfile wrote are decoded to exactly their length, with a click where it was put."""
    song = np.zeros((frames, 2), dtype=np.float32)
    song[frames // 2] = 0.9
    path = tmp_path / name
    soundfile.write(path, song, 48000, format=format, subtype=subtype)
    with decode(path) as decoded:
        assert decoded.array.shape == (2, frames)
        if frames > 3:
            assert np.abs(decoded.array[0]).argmax() == frames // 2


@pytest.mark.parametrize("frames", [1000, 48000, 50021])
def test_aac_has_its_exact_length_and_place(tmp_path: Path, frames: int) -> None:
    """AAC in MP4 is freed of the encoder's delay and of its padding, to the frame."""
    song = np.zeros((2, frames), dtype=np.float32)
    song[:, frames // 2] = 0.9
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="stereo")
        for start in range(0, frames, 1024):
            piece = np.ascontiguousarray(song[:, start : start + 1024])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with decode(path) as decoded:
        assert decoded.array.shape == (2, frames)
        assert np.abs(decoded.array[0]).argmax() == frames // 2


@pytest.mark.parametrize("name", ["kick.m4a", "minilogue_synth.m4a"])
def test_itunes_gapless_length(test_data: Path, name: str) -> None:
    """Apple's gapless comment gives the length of AAC to the frame (values read from the files)."""
    expected = {"kick.m4a": 0xB6F239, "minilogue_synth.m4a": 0x5B791C}[name]
    with decode(test_data / "stems" / "potassium" / name) as decoded:
        assert decoded.source_frames == expected
        assert decoded.warnings == ()


@pytest.mark.parametrize("frames", [1, 3, 47, 575, 576, 1105, 1152, 2000, 44100, 48217])
@pytest.mark.parametrize(("rate", "channels", "kbps"), [(44100, 2, 320), (48000, 1, 128), (32000, 2, 64)])
def test_mp3_is_gapless_in_every_decoder(tmp_path: Path, frames: int, rate: int, channels: int, kbps: int) -> None:
    """Decoded by us, by libavcodec as it is, or by libsndfile (mpg123), an MP3 has the exact length, a click in
    place."""
    song = np.zeros((channels, frames), dtype=np.float32)
    song[:, frames // 2] = 0.9
    path = tmp_path / "song.mp3"
    assert encode(path, [song], rate, FileSpec("mp3", bitrate_kbps=kbps), TAGS).frames == frames
    with decode(path, sample_rate_hertz=None) as decoded:
        ours = np.array(decoded.array)
    with av.open(str(path)) as container:
        plain = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    theirs = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    assert ours.shape == plain.shape == theirs.shape == (channels, frames)
    if frames > 1000:
        assert [int(np.abs(each[0]).argmax()) for each in (ours, plain, theirs)] == [frames // 2] * 3


@pytest.mark.parametrize(("rate", "coded_rate"), [(88200, 44100), (96000, 48000), (16000, 48000), (22050, 44100)])
def test_mp3_of_other_rates_is_converted(tmp_path: Path, rate: int, coded_rate: int) -> None:
    """A rate that MP3 does not have is converted to the related one, and the length with it."""
    written = encode(tmp_path / "song.mp3", [noise(2, rate // 10 + 1)], rate, FileSpec("mp3"))
    expected = round((rate // 10 + 1) * coded_rate / rate)
    assert (written.sample_rate_hertz, written.frames) == (coded_rate, expected)
    assert soundfile.info(tmp_path / "song.mp3").frames == expected


@pytest.mark.parametrize("spec", [*LOSSLESS, FileSpec("mp3")], ids=lambda spec: f"{spec.container}{spec.bit_depth}")
def test_same_bytes_every_time_however_it_is_cut(tmp_path: Path, spec: FileSpec) -> None:
    """Encoding the same song twice, cut differently, gives identical files: no time stamps, no state of the stream."""
    song = on_grid(noise(2, 20011), spec)
    encode(tmp_path / "one", [song], 48000, spec, TAGS)
    encode(tmp_path / "two", [song[:, :1], song[:, 1:1], song[:, 1:7000], song[:, 7000:]], 48000, spec, TAGS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("spec", [*LOSSLESS, FileSpec("mp3")], ids=lambda spec: f"{spec.container}{spec.bit_depth}")
def test_tags_and_cover_are_carried_over(tmp_path: Path, spec: FileSpec) -> None:
    """Tags and cover that went in come out of `decode`, equal, and so on through another file."""
    encode(tmp_path / "one", [on_grid(noise(2, 5000), spec)], 48000, spec, TAGS)
    with decode(tmp_path / "one") as first:
        assert dict(first.tags.text) == dict(TAGS.text)
        assert first.tags.cover == TAGS.cover
        encode(tmp_path / "two", blocks(first.array), 48000, FileSpec("flac"), first.tags)
    with decode(tmp_path / "two") as second:
        assert second.tags == first.tags


def test_other_programs_read_our_tags(tmp_path: Path) -> None:
    """mutagen, which players build on, finds title, artist and picture in each container."""
    assert TAGS.cover is not None
    for container in ("wav", "flac", "mp3"):
        encode(tmp_path / f"song.{container}", [noise(2, 5000) * 0.5], 48000, FileSpec(container), TAGS)
    flac = mutagen.flac.FLAC(tmp_path / "song.flac")
    assert (flac["title"], flac["tracknumber"]) == ([TAGS.text["title"]], ["3/9"])
    assert flac.pictures[0].data == TAGS.cover.data
    for file in (mutagen.mp3.MP3(tmp_path / "song.mp3"), mutagen.wave.WAVE(tmp_path / "song.wav")):
        assert file["TIT2"].text == [TAGS.text["title"]]
        assert file["COMM::und"].text == [TAGS.text["comment"]]
        assert file["APIC:"].data == TAGS.cover.data


def test_what_describes_the_source_does_not_travel(test_data: Path) -> None:
    """Tags of a real Ogg file come under common names, with the cover; encoder and gapless data stay behind."""
    with decode(test_data / "references" / "kevin_macleod_vibe_ace.ogg") as decoded:
        text = decoded.tags.text
        assert (text["title"], text["artist"], text["date"]) == ("Vibe Ace", "Kevin MacLeod", "2011-07-19")
        assert decoded.tags.cover is not None
        assert decoded.tags.cover.mime == "image/jpeg"
    with decode(test_data / "stems" / "potassium" / "minilogue_synth.m4a") as decoded:
        assert not decoded.tags


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000, 192000])
def test_decoding_resamples_in_a_stream(tmp_path: Path, rate: int) -> None:
    """Decoding to 48 kHz gives the bits that resampling the whole file at once gives."""
    song = noise(2, rate)
    encode(tmp_path / "song", [song], rate, FileSpec("wav", "32f"))
    with decode(tmp_path / "song") as decoded:
        np.testing.assert_array_equal(decoded.array, resample(song, rate, 48000))


def test_mono_stays_one_channel_and_becomes_two_at_unity(tmp_path: Path) -> None:
    """Mono is kept as one channel; as stereo it stands in both at full level, without a copy."""
    song = noise(1, 1000)
    encode(tmp_path / "song", [song], 48000, FileSpec("wav", "32f"))
    with decode(tmp_path / "song") as decoded:
        assert (decoded.channels, decoded.source_channels) == (1, 1)
        stereo = to_stereo(decoded.array)
        np.testing.assert_array_equal(stereo, np.concatenate([song, song]))
        assert stereo.strides[0] == 0
    assert to_stereo(noise(2, 5)).shape == (2, 5)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_more_channels_are_mixed_by_bs775(tmp_path: Path, channels: int) -> None:
    """3 to 8 channels become stereo with the centre at -3 dB and without the low-frequency channel, with a warning."""
    song = noise(channels, 1000) * 0.1
    soundfile.write(tmp_path / "song.wav", song.T, 48000, subtype="FLOAT", format="WAV")
    with decode(tmp_path / "song.wav") as decoded:
        assert (decoded.channels, decoded.source_channels) == (2, channels)
        assert [warning.code for warning in decoded.warnings] == ["DOWNMIXED"]
        mixed = np.array(decoded.array)
    surround = np.float32(np.sqrt(0.5))
    if channels == 6:
        left = song[0] + surround * (song[2] + song[4])
        np.testing.assert_allclose(mixed[0], left, atol=1e-6)
    assert np.isfinite(mixed).all()


def test_wav_beyond_four_gigabytes_is_rf64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file whose size a RIFF field cannot say becomes RF64 (the limit is lowered here), read alike by both
    readers."""
    monkeypatch.setattr(wav, "RIFF_LIMIT_BYTES", 1000)
    song = noise(2, 5000)
    encode(tmp_path / "song", [song], 48000, FileSpec("wav", "32f"), TAGS)
    assert (tmp_path / "song").read_bytes()[:4] == b"RF64"
    with decode(tmp_path / "song") as decoded:
        np.testing.assert_array_equal(decoded.array, song)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "song", dtype="float32")[0].T, song)


def test_over_full_scale_survives_as_float_and_is_counted_as_integer(tmp_path: Path) -> None:
    """Floats over ±1.0 pass unchanged; integer files clip them and say how many samples that were."""
    song = np.array([[1.5, -1.5, 0.5, 1.0]], dtype=np.float32)
    assert encode(tmp_path / "float", [song], 48000, FileSpec("wav", "32f")).clipped_samples == 0
    with decode(tmp_path / "float") as decoded:
        np.testing.assert_array_equal(decoded.array, song)
    assert encode(tmp_path / "integer", [song], 48000, FileSpec("flac", "16")).clipped_samples == 2


def test_specs_that_cannot_be_are_refused() -> None:
    """An unknown container, depth or bit rate, and floats in FLAC, are refused with field and choices."""
    for field, wrong in (
        ("container", {"container": "wma"}),
        ("bit_depth", {"bit_depth": "8"}),
        ("bit_depth", {"container": "flac", "bit_depth": "32f"}),
        ("bitrate_kbps", {"container": "mp3", "bitrate_kbps": 321}),
    ):
        with pytest.raises(InvalidInput) as caught:
            FileSpec(**wrong)  # type: ignore[arg-type]
        assert caught.value.violations[0].field == field


def _failing(error: BaseException) -> object:
    yield noise(2, 5000)
    raise error


@pytest.mark.parametrize("container", ["wav", "flac", "mp3"])
def test_failed_encoding_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, container: str) -> None:
    """A source that fails, NaN, no frames or a full disk: the error comes through, no part file stays, the old file
    does."""
    path = tmp_path / f"song.{container}"
    path.write_bytes(b"old")
    broken = np.full((2, 5000), np.nan, dtype=np.float32)
    cases: list[tuple[object, type[BaseException], str | None]] = [
        (_failing(KeyboardInterrupt()), KeyboardInterrupt, None),
        ([broken], Internal, "INTERNAL"),
        ([np.zeros((2, 0), dtype=np.float32)], InvalidInput, "AUDIO_EMPTY"),
        (_failing(OSError(28, "No space left on device")), ResourceExhausted, "STORAGE_FULL"),
    ]
    for source, expected, reason in cases:
        with pytest.raises(expected) as caught:
            encode(path, source, 48000, FileSpec(container))  # type: ignore[arg-type]
        if reason is not None:
            assert isinstance(caught.value, OutboardError)
            assert caught.value.reason == reason
        assert [each.name for each in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == b"old"


_FILL_UP = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from outboard.audio.files import FileSpec, encode
from outboard.errors import ResourceExhausted

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
noise = np.random.default_rng(0).uniform(-1, 1, (2, 480000)).astype(np.float32)
for container in ("wav", "flac", "mp3"):
    try:
        encode(Path(sys.argv[1]) / container, [noise], 48000, FileSpec(container))
    except ResourceExhausted as error:
        print(error.reason)
"""


def test_full_disk_is_storage_full_in_every_container(tmp_path: Path) -> None:
    """A file that cannot grow further is STORAGE_FULL whoever was writing, and leaves nothing."""
    done = subprocess.run([sys.executable, "-c", _FILL_UP, str(tmp_path)], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["STORAGE_FULL"] * 3
    assert list(tmp_path.iterdir()) == []


_MEASURE = """
import json, sys
from functools import partial
from pathlib import Path
import numpy as np
from outboard.audio.files import FileSpec, decode, encode
from outboard.audio.spool import blocks

peak = 0
def note(*ignored):
    global peak
    rows = [row.split() for row in open("/proc/self/status")]
    peak = max(peak, sum(int(row[1]) for row in rows if row[0] in ("RssAnon:", "RssShmem:")))

def song(seconds):
    block = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 44100)).astype(np.float32)
    for _ in range(seconds):
        yield block
        note()

folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
peaks = {}
for container in ("wav", "flac", "mp3"):
    peak = 0
    encode(folder / "song", song(seconds), 44100, FileSpec(container))
    decode(folder / "song", progress=note).close()
    peaks[container] = peak
print(json.dumps(peaks))
"""


def test_anonymous_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    """Encoding and decoding 30 s takes as much anonymous memory as 6 s do (within 4 MiB), in every container."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    short, long = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _MEASURE, str(tmp_path), seconds], check=True, capture_output=True
            ).stdout
        )
        for seconds in ("6", "30")
    )
    for container in short:
        grown_kib = long[container] - short[container]
        assert grown_kib < 4096, f"{container}: {short[container]} KiB for 6 s, {long[container]} KiB for 30 s"


def test_spool_of_the_callers_choice(tmp_path: Path) -> None:
    """The caller says where the audio is spooled, for the number of channels that the file turns out to have."""
    made: list[Spool] = []

    def spool(channels: int) -> Spool:
        made.append(Spool(channels))
        return made[-1]

    encode(tmp_path / "song", [noise(1, 100)], 48000, FileSpec("wav"))
    with decode(tmp_path / "song", spool=spool) as decoded:
        assert decoded.spool is made[0]
        assert made[0].channels == 1
