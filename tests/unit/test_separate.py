"""The separator's domain: the audio contract, settings, report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.stems import FOUR_STEMS, TWO_STEMS
from outboard.errors import InvalidInput
from outboard.testing import drained
from services.separator.engines import SeparationReport, SeparationSettings
from services.separator.separate import BLOCK_FRAMES, list_engines, separate

RATE = 8_000  # the cheapest rate of the contract; what is said here does not depend on it


def song(seconds: float = 6.0, rate: int = RATE, channels: int = 2) -> np.ndarray:
    """A tone, a voice-like glide, strokes and noise, all at different places."""
    time = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(1)
    glide = np.sin(2 * np.pi * np.cumsum(300 + 40 * np.sin(2 * np.pi * 5 * time)) / rate)
    strokes = rng.standard_normal(time.size) * np.exp(-((time % 0.5) / 0.02))
    low = np.sin(2 * np.pi * 80 * time)
    room = 1e-3 * rng.standard_normal(time.size)
    left = room + 0.2 * glide + 0.2 * strokes + 0.2 * low + 0.1 * np.sin(2 * np.pi * 440 * time)
    right = room + 0.2 * glide + 0.2 * strokes + 0.2 * low + 0.1 * np.sin(2 * np.pi * 660 * time)
    return np.stack([left, right][:channels]).astype(np.float32)


def run(
    blocks: Iterable[np.ndarray], rate: int = RATE, **chosen: object
) -> tuple[dict[str, np.ndarray], SeparationReport]:
    """All stems whole, and the report; checks that blocks come in lockstep."""
    parts, report = drained(separate(blocks, rate, SeparationSettings(**chosen)))  # type: ignore[arg-type]
    for part in parts:
        assert len({audio.shape for audio in part.values()}) == 1, "stems out of step"
        assert tuple(part) == tuple(parts[0])
    whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]} if parts else {}
    return whole, report


def level_dbfs(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.max(np.abs(audio), initial=0.0) + 1e-12))


def error_db(error: np.ndarray, audio: np.ndarray) -> float:
    """Power of an error relative to the song."""
    return float(10 * np.log10(np.mean(error**2) / np.mean(audio**2) + 1e-20))


@pytest.mark.parametrize("stem_count", [2, 4])
@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_sum_to_the_song(rate: int, channels: int, stem_count: int) -> None:
    """The stems of the asked number sum to the song below -90 dBFS with its exact length, at any rate, mono or
    stereo.
    """
    audio = song(2.0, rate, channels)
    stems, report = run([audio], rate, stem_count=stem_count)
    assert tuple(stems) == report.stems == (TWO_STEMS if stem_count == 2 else FOUR_STEMS)
    assert {part.shape for part in stems.values()} == {audio.shape}
    error = level_dbfs(np.sum(list(stems.values()), axis=0) - audio)
    assert error < -90, f"stems miss the song by {error:.1f} dBFS"
    assert all(part.dtype == np.float32 for part in stems.values())


def test_every_stem_gets_something() -> None:
    """Tone, glide, strokes and low tone are not all put into one stem."""
    _, report = run([song()])
    assert set(report.stem_levels_db) == set(FOUR_STEMS)
    assert min(report.stem_levels_db.values()) > -40, report.stem_levels_db


@settings(deadline=None, max_examples=6)
@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=6))
def test_the_bytes_do_not_depend_on_how_the_stream_was_cut(cuts: list[int]) -> None:
    """One block or many odd ones: identical bytes and an identical report."""
    audio = song()
    pieces = np.split(audio, np.minimum(np.cumsum(cuts), audio.shape[1]), axis=1)
    whole, whole_report = run([audio])
    cut, cut_report = run(pieces)
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)
    assert whole_report == cut_report


def test_two_runs_give_identical_bytes() -> None:
    """Nothing random, nothing remembered."""
    first, _ = run([song()])
    second, _ = run([song()])
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_an_impulse_stays_where_it_is() -> None:
    """Latency 0: an impulse at frame n is in the stems at frame n, and nowhere else louder than -20 dB."""
    audio = np.zeros((2, 3 * RATE), np.float32)
    audio[:, 10_007] = 0.5
    stems, _ = run([audio])
    loudest = max(stems.values(), key=lambda part: float(np.max(np.abs(part))))
    assert int(np.argmax(np.abs(loudest[0]))) == 10_007


@pytest.mark.parametrize("frames", [1, 3, 500, 16_384, 16_385, 32_768 - 384, 32_768 - 383])
def test_any_length_is_kept(frames: int) -> None:
    """From one frame to just around whole batches, exactly as many frames come out as went in."""
    audio = song()[:, :frames]
    stems, report = run([audio])
    assert report.frames == frames
    assert all(part.shape[1] == frames for part in stems.values())
    assert level_dbfs(np.sum(list(stems.values()), axis=0) - audio) < -90


def test_an_empty_song_gives_an_empty_report() -> None:
    """No frames: no blocks, a report of 0 frames, a warning, no error."""
    stems, report = run([np.zeros((2, 0), np.float32)])
    assert stems == {}
    assert (report.frames, report.confidence, report.stem_levels_db) == (0, None, {})


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, -1.0])
def test_silence_dc_and_full_scale_are_ordinary(value: float) -> None:
    """Constant input gives finite stems that sum to it."""
    audio = np.full((2, 2 * RATE), value, np.float32)
    stems, report = run([audio])
    assert all(np.isfinite(part).all() for part in stems.values())
    assert level_dbfs(np.sum(list(stems.values()), axis=0) - audio) < -90
    if value == 0.0:
        assert report.confidence is None
        assert report.stem_levels_db == {}


def test_beyond_full_scale_is_not_clipped() -> None:
    """Input of +12 dBFS comes out at +12 dBFS in sum, with the warning."""
    audio = song() * np.float32(8.0)
    stems, report = run([audio])
    assert level_dbfs(np.sum(list(stems.values()), axis=0) - audio) < -90 + 12
    assert [warning.code for warning in report.warnings] == ["CLIPPING"]


def test_a_clipped_place_counts_once() -> None:
    """Three samples at full scale or more in a row are one place, wherever blocks are cut; two are none."""
    audio = 0.5 * song(20.0)
    audio[0, 1000:1003] = audio[1, 2000:2040] = 1.0
    audio[0, BLOCK_FRAMES - 2 : BLOCK_FRAMES + 1] = -1.0
    audio[1, 3000:3002] = 1.0
    _, report = run([audio], engine="passthrough")
    assert [warning.message for warning in report.warnings] == [
        "the song is clipped in 3 places, which smears over all stems"
    ]


def test_a_mono_song_is_separated_as_its_two_equal_channels_would_be() -> None:
    """One channel, or the same in both: the same stems."""
    mono = song(channels=1)
    alone, _ = run([mono])
    doubled, _ = run([np.repeat(mono, 2, axis=0)])
    for name, part in alone.items():
        assert error_db(doubled[name][:1] - part, mono) < -30, name


def test_stems_flow_while_the_song_is_still_arriving() -> None:
    """No more than 12 s of the song are waited for, and what lies behind is given back as the song goes on."""
    rate, read = 48_000, 0
    blocks = 16

    def arriving() -> Iterator[np.ndarray]:
        nonlocal read
        rng = np.random.default_rng(0)
        for _ in range(blocks):
            read += 65_536
            yield rng.standard_normal((2, 65_536)).astype(np.float32) * 0.1

    produced, furthest = 0, 0
    for part in separate(arriving(), rate, SeparationSettings()):
        furthest = max(furthest, read - produced)
        produced += part["vocals"].shape[1]
    assert produced == blocks * 65_536
    assert furthest <= 12 * rate, f"{furthest / rate:.1f} s held back"


def test_gain_does_not_change_the_separation() -> None:
    """A song 18 dB quieter is separated the same way."""
    audio = song()
    loud, _ = run([audio])
    quiet, _ = run([audio * np.float32(0.125)])
    for name in loud:
        assert error_db(quiet[name] * 8 - loud[name], audio) < -40, name


def test_progress_never_falls_and_ends_at_one() -> None:
    """With the length known, progress rises from 0 to 1, at least once every 65536 frames."""
    seen: list[float] = []
    audio = song(20.0)
    list(separate([audio], RATE, SeparationSettings(), progress=seen.append, frames=audio.shape[1]))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) >= audio.shape[1] // 65_536


def test_cancelling_through_progress_stops_at_once() -> None:
    """What progress raises comes out of the generator."""

    def cancel(fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(separate([song()], RATE, SeparationSettings(), progress=cancel))


def test_pass_through_leaves_the_song_alone() -> None:
    """The engine for measuring everything else puts the song into the general stem, bit for bit."""
    audio = song()
    four, report = run([audio], engine="passthrough")
    two, _ = run([audio], engine="passthrough", stem_count=2)
    assert np.array_equal(four["other"], audio)
    assert np.array_equal(two["instrumental"], audio)
    assert not four["vocals"].any()
    assert report.engine.name == "passthrough"


def test_raw_residual_of_an_exact_engine_is_the_same() -> None:
    """The spectral engine's stems sum exactly by themselves, so there is nothing to fold."""
    folded, _ = run([song()])
    raw, report = run([song()], residual="raw")
    assert all(np.array_equal(folded[name], raw[name]) for name in raw)
    assert report.residual_db is None


def test_short_input_is_warned_of() -> None:
    """Half a second is separated, with a warning."""
    _, report = run([song(0.5)])
    assert [warning.code for warning in report.warnings][:1] == ["SHORT_INPUT"]


def test_the_engines_are_listed_the_preferred_first() -> None:
    """spectral before passthrough, both available."""
    assert [(engine.name, engine.available) for engine in list_engines()] == [("spectral", True), ("passthrough", True)]


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        ({"stem_count": 3}, "settings.stem_count"),
        ({"stem_count": 6}, "settings.stem_count"),
        ({"engine": "spectral", "stem_count": 5}, "settings.stem_count"),
        ({"overlap": 0.9}, "settings.overlap"),
        ({"overlap": float("nan")}, "settings.overlap"),
        ({"shifts": -1}, "settings.shifts"),
        ({"residual": "half"}, "settings.residual"),
        ({"speed": "warp"}, "settings.speed"),
    ],
)
def test_settings_out_of_range_name_their_field(chosen: dict[str, object], field: str) -> None:
    """Each wrong setting is InvalidInput with the field's path."""
    with pytest.raises(InvalidInput) as error:
        next(separate([song()], RATE, SeparationSettings(**chosen)))  # type: ignore[arg-type]
    assert [violation.field for violation in error.value.violations] == [field]


def test_an_unknown_engine_is_not_found() -> None:
    """The error names the engines there are."""
    with pytest.raises(InvalidInput, match="spectral"):
        next(separate([song()], RATE, SeparationSettings(engine="magic")))
