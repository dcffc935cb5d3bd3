"""The demo song: what tests of separation, restoration and mixing rely on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from outboard.audio.demo import PATHOLOGIES, STEM_NAMES, DemoSong, stem_pathologies, synthesise

SEEDS = (0, 1, 2)
DURATION_SECONDS = 12.0


@pytest.fixture(scope="module")
def songs() -> dict[int, DemoSong]:
    return {seed: synthesise(seed, DURATION_SECONDS) for seed in SEEDS}


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(audio.astype(np.float64) ** 2) + 1e-20))


def band_db(audio: np.ndarray, low_hertz: float, high_hertz: float) -> float:
    """Power of a band of the mono sum, dB."""
    power = np.abs(np.fft.rfft(np.mean(audio, axis=0))) ** 2
    frequency = np.fft.rfftfreq(audio.shape[1], 1 / 48_000)
    return float(10 * np.log10(np.sum(power[(frequency >= low_hertz) & (frequency < high_hertz)]) + 1e-20))


def side_to_mid_db(audio: np.ndarray) -> float:
    return level_db(audio[0] - audio[1]) - level_db(audio[0] + audio[1])


def crest_db(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.max(np.abs(audio)))) - level_db(audio)


def test_same_seed_gives_the_same_bytes_and_another_seed_another_song(songs: dict[int, DemoSong]) -> None:
    """A seed names one song, whatever was synthesised before."""
    again = synthesise(1, DURATION_SECONDS)
    assert again.song.tobytes() == songs[1].song.tobytes()
    assert again.clean.tobytes() == songs[1].clean.tobytes()
    for first, second in itertools.combinations(SEEDS, 2):
        similarity = np.corrcoef(songs[first].clean[0], songs[second].clean[0])[0, 1]
        assert abs(similarity) < 0.3, f"seeds {first} and {second} correlate by {similarity:.2f}"


def test_stems_sum_to_the_clean_mix_bit_for_bit(songs: dict[int, DemoSong]) -> None:
    """The clean mix is the float32 sum of the stems in their fixed order, and all have the asked length."""
    for demo in songs.values():
        assert tuple(demo.stems) == STEM_NAMES
        total = ((demo.stems["vocals"] + demo.stems["drums"]) + demo.stems["bass"]) + demo.stems["other"]
        assert np.array_equal(total, demo.clean)
        for audio in (*demo.stems.values(), demo.clean, demo.song):
            assert audio.shape == (2, round(DURATION_SECONDS * 48_000))
            assert audio.dtype == np.float32
            assert np.all(np.isfinite(audio))


def test_clean_mix_looks_like_a_released_record(songs: dict[int, DemoSong]) -> None:
    """Peak, crest, width and the share of 200 to 500 Hz lie within what released recordings show."""
    for seed, demo in songs.items():
        peak_db = 20 * np.log10(np.max(np.abs(demo.clean)))
        crest, width = crest_db(demo.clean), side_to_mid_db(demo.clean)
        share = band_db(demo.clean, 200, 500) - band_db(demo.clean, 20, 24_000)
        air = band_db(demo.clean, 16_000, 20_000) - band_db(demo.clean, 20, 24_000)
        assert -3.01 < peak_db < -2.99
        assert 10.2 < crest < 19.8, f"seed {seed}: crest {crest:.1f} dB"
        assert -19.0 < width < -5.0, f"seed {seed}: side/mid {width:.1f} dB"
        assert -10.7 < share < -3.1, f"seed {seed}: share of 200-500 Hz {share:.1f} dB"
        assert -45.0 < air < -20.0, f"seed {seed}: share of 16-20 kHz {air:.1f} dB"


def test_every_stem_sounds_where_it_should(songs: dict[int, DemoSong]) -> None:
    """The bass is low, the drums reach both ends, the voice pauses, bass and voice stand in the centre."""
    for seed, demo in songs.items():
        stems = demo.stems
        assert band_db(stems["bass"], 30, 250) > band_db(stems["bass"], 250, 20_000)
        assert band_db(stems["drums"], 6_000, 20_000) > band_db(stems["bass"], 6_000, 20_000) + 10
        assert side_to_mid_db(stems["bass"]) < -60
        assert side_to_mid_db(stems["vocals"]) < -8
        assert side_to_mid_db(stems["other"]) > side_to_mid_db(stems["vocals"])
        blocks = stems["vocals"][0][: 24 * 24_000].reshape(24, -1)
        levels = 10 * np.log10(np.mean(blocks**2, axis=1) + 1e-12)
        assert np.max(levels) - np.min(levels) > 25, f"seed {seed}: the voice never pauses: {np.round(levels)}"


def test_song_looks_like_a_generated_one(songs: dict[int, DemoSong]) -> None:
    """Cut off at 15 kHz, too wide, denser and muddier than the clean mix."""
    for seed, demo in songs.items():
        cut = band_db(demo.song, 16_000, 20_000) - band_db(demo.song, 12_000, 14_500)
        width = side_to_mid_db(demo.song)
        assert cut < -40, f"seed {seed}: {cut:.1f} dB above the cutoff"
        assert -8.0 < width < -1.0, f"seed {seed}: side/mid {width:.1f} dB"
        assert crest_db(demo.song) < crest_db(demo.clean) - 1.0
        mud = (band_db(demo.song, 200, 500) - band_db(demo.song, 500, 2_000)) - (
            band_db(demo.clean, 200, 500) - band_db(demo.clean, 500, 2_000)
        )
        assert mud > 2.0, f"seed {seed}: 200-500 Hz raised by {mud:.1f} dB"


@pytest.mark.parametrize("name", PATHOLOGIES)
def test_pathology_grows_with_severity(name: str, songs: dict[int, DemoSong]) -> None:
    """Severity 0 changes nothing; a higher severity moves the audio further from the clean one; a seed repeats."""
    clean = songs[0].clean[:, : 5 * 48_000]
    function = PATHOLOGIES[name]
    assert np.array_equal(function(clean, 48_000, 3, 0.0), clean)
    distances = [level_db(function(clean, 48_000, 3, severity) - clean) for severity in (0.25, 0.5, 0.75, 1.0)]
    assert distances == sorted(distances), f"{name}: {np.round(distances, 1)}"
    assert np.array_equal(function(clean, 48_000, 3, 0.6), function(clean, 48_000, 3, 0.6))


def test_shimmer_is_narrow_peaks_between_8_and_12_khz(songs: dict[int, DemoSong]) -> None:
    """Shimmer raises the peaks of its band over the band's median and leaves everything else alone."""
    clean = songs[1].clean
    spoiled = PATHOLOGIES["shimmer"](clean, 48_000, 5, 1.0)
    added = spoiled - clean
    inside, outside = band_db(added, 7_500, 12_500), band_db(added, 20, 7_000)
    assert inside - outside > 30, f"{inside - outside:.1f} dB"

    def peak_to_median_db(audio: np.ndarray) -> float:
        power = np.mean(np.abs(np.fft.rfft(audio[0][: 270 * 2048].reshape(270, 2048) * np.hanning(2048))) ** 2, axis=0)
        band = power[int(8_000 / 48_000 * 2048) : int(12_000 / 48_000 * 2048)]
        return float(10 * np.log10(np.max(band) / np.median(band)))

    assert peak_to_median_db(spoiled) > peak_to_median_db(clean) + 6


def test_pathologies_can_be_put_on_single_stems(songs: dict[int, DemoSong]) -> None:
    """Only the named stem changes."""
    demo = songs[2]
    spoiled = stem_pathologies(demo, {"other": {"shimmer": 0.8}}, seed=7)
    assert not np.array_equal(spoiled["other"], demo.stems["other"])
    for name in ("vocals", "drums", "bass"):
        assert np.array_equal(spoiled[name], demo.stems[name])
    with pytest.raises(KeyError):
        stem_pathologies(demo, {"other": {"wobble": 0.8}}, seed=7)


@pytest.mark.parametrize("duration_seconds", [1e-4, 0.5])
def test_very_short_songs_are_songs(duration_seconds: float) -> None:
    """Any positive length works, to the frame; zero is refused."""
    demo = synthesise(4, duration_seconds)
    assert demo.song.shape == (2, max(1, round(duration_seconds * 48_000)))
    assert np.all(np.isfinite(demo.song))
    with pytest.raises(ValueError, match="positive"):
        synthesise(4, 0.0)
