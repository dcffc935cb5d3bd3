"""The own reference engine: nearer to the reference, scaled by intensity, deterministic, strict about nonsense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.demo import synthesise
from outboard.audio.files import decode
from outboard.audio.song_profile import measure_profile
from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from outboard.rpc.convert import from_message, to_message
from outboard.v1 import master_service_pb2
from services.master.reference import Followed, Reference, follow
from services.master.settings import GuardRails, MasterPlan, ReferenceMatch, check_plan

RATE_HERTZ = 48_000
Array = NDArray[np.float32]
RAILS = GuardRails(equalizer_db=9.0)


@pytest.fixture(scope="module")
def mix() -> Array:
    """Eight seconds of a demo song."""
    audio: Array = synthesise(11, 8.0).song
    return audio


@pytest.fixture(scope="module")
def goal() -> Array:
    """A song that sounds differently: darker, narrower, quieter."""
    clean = synthesise(12, 9.0).clean
    spectrum = np.fft.rfft(clean, axis=1)
    hertz = np.fft.rfftfreq(clean.shape[1], 1.0 / RATE_HERTZ)
    dark = np.fft.irfft(spectrum / (1.0 + (hertz / 3000.0) ** 2) ** 0.25, n=clean.shape[1], axis=1)
    mid, side = 0.5 * (dark[0] + dark[1]), 0.25 * (dark[0] - dark[1])
    return (0.5 * np.stack([mid + side, mid - side])).astype(np.float32)


def followed(
    mix: Array,
    references: list[Array],
    match: ReferenceMatch | None = None,
    rate: int = RATE_HERTZ,
    engine: str = "match",
) -> Followed:
    """Runs an engine, the own one where none is said."""
    match = (match or ReferenceMatch()) if engine == "match" else None
    plan = MasterPlan("reference", engine, -1.0, guard_rails=RAILS, match=match)
    named = [Reference(f"r{index}", audio, rate) for index, audio in enumerate(references)]
    return follow(mix, RATE_HERTZ, plan, named, Spool, lambda fraction: None)


def differences(one: Array, other: Array) -> tuple[float, float, float]:
    """Mean differences in dB of spectrum, level quantiles and width."""
    a, b = measure_profile(one, RATE_HERTZ), measure_profile(other, RATE_HERTZ)
    loud = a.mid_db > -60.0
    return (
        float(np.abs(a.mid_db - b.mid_db)[loud].mean()),
        float(np.abs(a.level_db - b.level_db)[:, 3:].mean()),
        float(np.abs(a.width_db - b.width_db)[loud].mean()),
    )


def test_match_comes_nearer_in_spectrum_dynamics_and_width(mix: Array, goal: Array) -> None:
    """Each of the three differences falls, the spectrum's to under a half; the target is the reference's loudness."""
    result = followed(mix, [goal])
    before, after = differences(mix, goal), differences(result.array, goal)
    assert after[0] < 0.5 * before[0], f"spectrum {before[0]:.2f} -> {after[0]:.2f} dB"
    assert after[1] < before[1], f"dynamics {before[1]:.2f} -> {after[1]:.2f} dB"
    assert after[2] < before[2], f"width {before[2]:.2f} -> {after[2]:.2f} dB"
    assert result.plan.target_lufs == pytest.approx(measure_profile(goal, RATE_HERTZ).lufs, abs=1e-6)
    assert result.array.shape == mix.shape
    check_plan(result.plan)


def test_intensity_scales_the_match(mix: Array, goal: Array) -> None:
    """At 0 the mix comes back and keeps its loudness; at 50 it lies between 0 and 100."""
    none, half, full = (followed(mix, [goal], ReferenceMatch(intensity=value)) for value in (0.0, 50.0, 100.0))
    residual = np.abs(none.array - mix).max()
    assert residual < 1e-4, residual
    assert none.plan.target_lufs == pytest.approx(measure_profile(mix, RATE_HERTZ).lufs, abs=1e-6)
    distances = [differences(result.array, goal)[0] for result in (none, half, full)]
    assert distances[0] > distances[1] > distances[2], distances


def test_references_average_and_the_nearest_is_found(mix: Array, goal: Array) -> None:
    """Two references give gains between those of each; `nearest` follows the one that sounds alike."""
    alike = np.ascontiguousarray((0.7 * synthesise(11, 9.0).clean).astype(np.float32))
    both = followed(mix, [goal, alike]).plan.match
    nearest = followed(mix, [goal, alike], ReferenceMatch(nearest=True)).plan.match
    alone = followed(mix, [alike]).plan.match
    assert both
    assert nearest
    assert alone
    assert [reference.followed for reference in nearest.references] == [False, True]
    assert nearest.bands == alone.bands
    assert all(reference.followed for reference in both.references)
    targets = [band.target_db for band in both.bands]
    expected = 0.5 * (measure_profile(goal, RATE_HERTZ).mid_db + measure_profile(alike, RATE_HERTZ).mid_db)
    assert np.allclose(targets, expected[: len(targets)])


def test_a_fitted_plan_renders_again_without_its_reference(mix: Array, goal: Array) -> None:
    """The plan of a report holds all numbers: rendered without references it gives the same samples."""
    first = followed(mix, [goal])
    again = follow(mix, RATE_HERTZ, first.plan, [], Spool, lambda fraction: None)
    assert np.array_equal(first.array, again.array)
    assert again.plan == first.plan


def test_gains_stay_within_the_guard_rails(goal: Array) -> None:
    """Noise as a mix: no band of mid or side beyond 9 dB, no side over 1.4 of its mid, empty bands not lifted."""
    noise = 0.05 * np.random.default_rng(4).standard_normal((2, 8 * RATE_HERTZ))
    spectrum = np.fft.rfft(noise, axis=1)
    spectrum[:, np.fft.rfftfreq(noise.shape[1], 1.0 / RATE_HERTZ) > 9000.0] = 0.0
    found = followed(np.fft.irfft(spectrum, axis=1).astype(np.float32), [goal]).plan.match
    assert found is not None
    for band in found.bands:
        assert abs(band.mid_gain_db) <= 9.0
        assert band.side_gain_db <= 9.0
        assert band.side_gain_db - band.mid_gain_db <= 20.0 * np.log10(1.4) + 1e-9
        if band.frequency_hertz > 11_000.0:
            assert band.mid_gain_db <= 0.0, band


def test_noise_in_pauses_is_not_lifted(mix: Array, goal: Array) -> None:
    """Faint noise behind a song that is matched to a denser one: its level against the mix's loudness does not rise by
    more than the equaliser lifts it.
    """
    noise = 1e-5 * np.random.default_rng(7).standard_normal((2, RATE_HERTZ)).astype(np.float32)
    result = followed(np.concatenate([mix, noise], axis=1), [goal])
    assert result.plan.match is not None
    lifted = 20.0 * np.log10(result.array[:, -RATE_HERTZ // 2 :].std() / noise.std())
    highest = max(max(band.mid_gain_db, band.side_gain_db) for band in result.plan.match.bands)
    assert lifted <= highest + 0.5, f"{lifted:.1f} dB, the equaliser's highest gain is {highest:.1f} dB"
    for band in result.plan.match.dynamics:
        assert band.points[0].gain_db <= 0.0


def test_mono_is_matched_without_width(mix: Array, goal: Array) -> None:
    """A mono mix and a mono reference are ordinary: the match is made and its width left alone."""
    for audio, reference in ((mix[:1], goal), (mix, goal[:1])):
        result = followed(np.ascontiguousarray(audio), [np.ascontiguousarray(reference)])
        assert result.array.shape == audio.shape
        assert any("Width is left alone" in note for note in result.plan.notes)


def test_reference_at_another_rate_counts_the_same(mix: Array, goal: Array) -> None:
    """A reference at 44.1 kHz leads to the gains of the same one at 48 kHz, within 1 dB from 150 Hz to 12 kHz."""
    from outboard.audio.resample import resample

    one = followed(mix, [goal]).plan.match
    other = followed(mix, [resample(goal, RATE_HERTZ, 44_100)], rate=44_100).plan.match
    assert one
    assert other
    for a, b in zip(one.bands, other.bands, strict=True):
        if 150.0 < a.frequency_hertz < 12_000.0:
            assert a.mid_gain_db == pytest.approx(b.mid_gain_db, abs=1.0), a.frequency_hertz


BAD: dict[str, Callable[[Array], list[Array]]] = {
    "missing": lambda mix: [],
    "silent": lambda mix: [np.zeros((2, 480_000), np.float32)],
    "short": lambda mix: [mix[:, : 5 * RATE_HERTZ - 1]],
    "the mix itself": lambda mix: [mix.copy()],
    "the mix at another level": lambda mix: [mix * np.float32(0.7)],
    "ten channels": lambda mix: [np.zeros((10, 480_000), np.float32)],
}


@pytest.mark.parametrize("engine", ["match", "matchering"])
@pytest.mark.parametrize("kind", BAD)
def test_nonsense_is_refused_with_its_reason(kind: str, engine: str, mix: Array) -> None:
    """Nothing, silence, under 5 s, the same recording, ten channels: each its reason and a sentence that names it."""
    with pytest.raises(InvalidInput) as caught:
        followed(mix, BAD[kind](mix), engine=engine)
    assert caught.value.reason == ("AUDIO_TOO_MANY_CHANNELS" if kind == "ten channels" else "REFERENCE_UNSUITABLE")
    assert "reference" in caught.value.message


@pytest.mark.parametrize("engine", ["match", "matchering"])
def test_the_mix_at_another_level_is_known_by_its_spectrum(engine: str) -> None:
    """A recording with bands that fall all but silent between strokes, whose level quantiles move with its level, is
    known too.
    """
    seconds = np.arange(7 * RATE_HERTZ) / RATE_HERTZ
    tones = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in (110, 220, 330, 440))
    noise = np.random.default_rng(1).standard_normal((2, seconds.size)) * 0.1 * np.exp(-((seconds * 4) % 1) * 12)
    mix = (0.5 * (tones * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * seconds)) + noise)).astype(np.float32)
    with pytest.raises(InvalidInput, match="the mix itself"):
        followed(mix, [mix * np.float32(0.7)], engine=engine)


@pytest.mark.parametrize("engine", ["match", "matchering"])
def test_a_mix_that_tells_nothing_is_not_matched(engine: str, mix: Array, goal: Array) -> None:
    """A silent mix and one of less than 5 s come back as they are, by either engine, and a sentence says so; only what
    can be measured has the reference's loudness as its target.
    """
    goal_lufs = measure_profile(goal, RATE_HERTZ).lufs
    short = mix[:, : 2 * RATE_HERTZ]
    for audio, target in ((np.zeros_like(mix), None), (short, goal_lufs), (mix[:, :4800], None)):
        result = followed(audio, [goal], engine=engine)
        assert np.array_equal(result.array, audio)
        assert result.plan.target_lufs == (None if target is None else pytest.approx(target, abs=1e-6))
        assert any("not matched" in note for note in result.plan.notes)


def test_intensity_scales_the_loudness_of_a_short_mix(mix: Array, goal: Array) -> None:
    """A mix of less than 5 s is brought half the way to the reference's loudness at half the intensity."""
    short = mix[:, : 2 * RATE_HERTZ]
    own, goals = measure_profile(short, RATE_HERTZ).lufs, measure_profile(goal, RATE_HERTZ).lufs
    assert own is not None
    assert goals is not None
    result = followed(short, [goal], ReferenceMatch(intensity=50.0))
    assert result.plan.target_lufs == pytest.approx(0.5 * (own + goals), abs=1e-6)


@pytest.mark.parametrize("name", ["dfn_clean_freesound_33711.wav", "dfn_noisy_snr0.wav"])
@pytest.mark.parametrize("channels", [1, 2])
def test_speech_is_refused(name: str, channels: int, mix: Array, test_data: Path) -> None:
    """A voice in quiet and in noise, mono and stereo: speech is no song."""
    with decode(test_data / "speech" / name, sample_rate_hertz=None) as file:
        speech = np.repeat(file.array[:1], channels, axis=0)
        with pytest.raises(InvalidInput, match="speech"):
            followed(mix, [speech], rate=file.sample_rate_hertz)


def test_released_and_generated_songs_are_no_speech(test_data: Path) -> None:
    """No song of the test data is taken for speech."""
    for path in sorted([*(test_data / "songs").iterdir(), *(test_data / "references").iterdir()]):
        with decode(path, sample_rate_hertz=None) as file:
            excerpt = file.array[:, : 30 * file.sample_rate_hertz]
            assert not measure_profile(excerpt, file.sample_rate_hertz).is_speech, path.name


def test_edited_match_beyond_the_guard_rails_is_refused(mix: Array, goal: Array) -> None:
    """A plan whose match lifts more than the rail, or whose frequencies do not rise, is told so."""
    plan = followed(mix, [goal]).plan
    assert plan.match is not None
    first, *others = plan.match.bands
    lifted, sides = replace(first, mid_gain_db=9.5), replace(first, mid_gain_db=8.0, side_gain_db=9.5)
    wide = replace(first, mid_gain_db=0.0, side_gain_db=3.0)
    for bands in ((lifted, *others), (sides, *others), (wide, *others), tuple(reversed(plan.match.bands))):
        with pytest.raises(InvalidInput, match=r"match\.bands"):
            check_plan(replace(plan, match=replace(plan.match, bands=bands)))


def test_a_match_travels_with_its_plan_over_the_wire(mix: Array, goal: Array) -> None:
    """To the contract's message and back, a fitted plan is the same, every number of it."""
    plan = followed(mix, [goal]).plan
    message = to_message(plan, master_service_pb2.MasterPlan)
    again = from_message(master_service_pb2.MasterPlan.FromString(message.SerializeToString()), MasterPlan, "plan.")
    assert again == plan
