"""The cues of the spectral engine, each on a signal whose answer is known, and the masks made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from services.separator.engines import SeparationSettings
from services.separator.separate import separate
from services.separator.spectral import bands, low, repetition, stereo, voice
from services.separator.spectral.cues import CUES, Look, measure
from services.separator.spectral.engine import CONTEXT_BATCHES, SpectralSeparation, with_neighbours
from services.separator.spectral.fusion import Fusion
from services.separator.spectral.grid import Grid
from services.separator.spectral.medians import median_along_frequency, median_along_time, median_of_five
from services.separator.spectral.weights import CUE_WEIGHTS, PRIOR_KNOTS_HERTZ, PRIORS

RATE = 16_000
GRID = Grid(RATE)
SECONDS = 8


def clock() -> np.ndarray:
    return np.arange(SECONDS * RATE) / RATE


def tone(hertz: float) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * hertz * clock())


def sung(hertz: float) -> np.ndarray:
    """Ten partials with a vibrato of half a semitone at 5.5 Hz."""
    phase = 2 * np.pi * np.cumsum(hertz * 2 ** (np.sin(2 * np.pi * 5.5 * clock()) / 24)) / RATE
    return sum(0.1 / order * np.sin(order * phase) for order in range(1, 11))  # type: ignore[return-value]


def strokes() -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(SECONDS * RATE)
    return 0.5 * noise * np.exp(-(clock() % 0.5) / 0.01)


def looks(left: np.ndarray, right: np.ndarray | None = None) -> tuple[list[Look], int]:
    """A middle batch with all its neighbours."""
    audio = np.stack([left, left if right is None else right]).astype(np.float32)
    engine = SpectralSeparation(RATE, 2, two_stems=False)
    everything = list(with_neighbours(engine._looks([audio]), CONTEXT_BATCHES))
    return everything[2]


def cue(name: str, left: np.ndarray, right: np.ndarray | None = None) -> np.ndarray:
    context, index = looks(left, right)
    return measure(context, index, GRID)[CUES.index(name)]


def bin_of(hertz: float) -> int:
    return round(hertz / GRID.hertz_per_bin)


def mean_by_level(plane: np.ndarray, left: np.ndarray) -> float:
    context, index = looks(left)
    power = context[index].batch.power
    return float(np.sum(plane * power) / np.sum(power))


@pytest.mark.parametrize("name", ["percussiveness", "strike"])
def test_strokes_are_percussive_and_tones_are_not(name: str) -> None:
    """Weighted by level, the evidence is clearly positive for strokes and clearly negative for a tone, at both
    resolutions.
    """
    struck, held = mean_by_level(cue(name, strokes()), strokes()), mean_by_level(cue(name, tone(440)), tone(440))
    assert struck > 0.3, f"{name} of strokes is {struck:.2f}"
    assert held < -0.8, f"{name} of a tone is {held:.2f}"


def test_a_fixed_tone_is_steady_and_a_glide_is_not() -> None:
    """In the long window the partial of a held note is a line, that of a gliding one is not."""
    held = cue("steadiness", tone(440))[:, bin_of(440)].mean()
    glide = 0.2 * np.sin(2 * np.pi * np.cumsum(300 * 2 ** (clock() / 3)) / RATE)
    moving = mean_by_level(cue("steadiness", glide), glide)
    assert held > 0.9, f"steadiness of a tone is {held:.2f}"
    assert moving < held - 0.5, f"steadiness of a glide is {moving:.2f}"


def test_position_tells_centre_from_sides() -> None:
    """Equal channels: similarity 1, distance 0. One channel only: 0 and 1. Opposite polarity: similarity -1."""
    at = bin_of(440)
    for right, similarity, distance in ((tone(440), 1, 0), (0 * tone(440), 0, 1), (-tone(440), -1, 0)):
        assert cue("centre", tone(440), right)[:, at].mean() == pytest.approx(similarity, abs=0.02)
        assert cue("distance", tone(440), right)[:, at].mean() == pytest.approx(distance, abs=0.02)


def test_one_channel_lies_in_the_centre() -> None:
    """A mono song has no stereo evidence: everything is central."""
    centre, distance = stereo.position(np.ones((3, 1, 5), np.complex64))
    assert (centre == 1).all()
    assert (distance == 0).all()


@pytest.mark.parametrize("hertz", [220.0, 330.0, 600.0])
def test_the_pitch_of_a_voice_is_found(hertz: float) -> None:
    """Among held tones the pitch of a vibrato voice is found within a semitone in nine steps of ten."""
    context, _ = looks(sung(hertz) + tone(261.6) + tone(392.0))
    pitch, strength = voice.follow(np.concatenate([look.saliences for look in context]))
    cents = np.abs(1200 * np.log2(pitch[32:-64] / hertz))
    assert np.mean(cents < 100) > 0.9, f"median error {np.median(cents):.0f} cents"
    assert strength[32:-64].mean() > 0.5


def test_the_comb_stands_on_the_partials() -> None:
    """At partials of a voice the comb is positive, half-way between them negative."""
    comb = voice.comb(np.array([300.0]), np.ones(1, np.float32), GRID)[0]
    for order in (1, 2, 5):
        assert comb[bin_of(300 * order)] > 0.5
        assert comb[bin_of(300 * order + 150)] < -0.9


def test_what_stays_is_no_news() -> None:
    """A tone that always sounds has no novelty; one that enters for a moment has."""
    entering = tone(1_000) * ((clock() > 3.0) & (clock() < 3.4))
    novelty = cue("novelty", tone(300) + entering)
    assert novelty[:, bin_of(300)].mean() < 0.2
    assert novelty[:, bin_of(1_000)].max() > 0.9


def test_what_repeats_is_recognised() -> None:
    """In a loop with one new event, the event stands out of the moments like it and the loop does not."""
    loop = sum(
        tone(hertz) * (((clock() - start) % 1.0) < 0.25) for hertz, start in ((300, 0.0), (500, 0.3), (700, 0.6))
    )
    event = tone(1_800) * ((clock() > 3.0) & (clock() < 3.2))
    recurrence = cue("recurrence", loop + event)
    assert recurrence[:, bin_of(1_800)].max() > 0.9
    context, index = looks(loop)
    own = context[index].batch.power[:, bin_of(300)]
    assert abs(recurrence[own > own.max() / 2, bin_of(300)].mean()) < 0.3


def test_a_kick_attacks_and_a_bass_line_does_not() -> None:
    """In the low end a short thump stands out of its usual level and leaves depth behind; a held note does
    neither.
    """
    thump = 3 * tone(60) * np.exp(-((clock() % 0.5) / 0.05))
    sounds = {"kick": thump, "bass": tone(60)}
    levels = {name: low.low_level(looks(sound)[0][2].batch.power, GRID) for name, sound in sounds.items()}
    assert low.attack(levels["kick"], GRID).max() > 0.5
    assert abs(low.attack(levels["bass"], GRID)).max() < 0.1


def test_too_short_a_song_has_no_recurrence() -> None:
    """With fewer moments than are asked for there is no evidence rather than a wrong one."""
    power = np.ones((8, 20), np.float32)
    assert not repetition.recurrence(power, power, 0, 8, GRID).any()


def test_peaks_and_levels() -> None:
    """Peakedness is near 1 on a partial; the level of a steady tone is as usual, 0."""
    assert cue("peakedness", tone(440))[:, bin_of(440)].min() > 0.5
    power = np.full((4, 100), 2.0, np.float32)
    assert np.allclose(bands.relative_level(power, power[:1]), 0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(arrays(np.float32, (20, 30), elements=st.floats(0, 1, width=32)), st.integers(3, 12))
def test_medians_stay_within_what_was_there(plane: np.ndarray, half_width: int) -> None:
    """Every median is one of the values in its reach, and both directions agree under transposition."""
    along = median_along_time(plane, half_width)
    assert along.shape == plane.shape
    assert np.array_equal(along, median_along_frequency(plane.T.copy(), half_width).T)
    for step in range(20):
        near = plane[max(0, step - half_width) : step + half_width + 1]
        assert (along[step] <= near.max(axis=0)).all()
        assert (along[step] >= near.min(axis=0)).all()
        assert all(np.isin(along[step, column], near[:, column]) for column in range(0, 30, 7))


@pytest.mark.parametrize("half_width", [4, 8, 15, 30])
def test_medians_keep_ridges_and_remove_strokes(half_width: int) -> None:
    """A ridge through the whole reach is kept; an outlier of a quarter of the reach is removed."""
    plane = np.zeros((100, 4), np.float32)
    plane[:, 1] = 1.0
    plane[50 : 50 + half_width // 2, 2] = 1.0
    smooth = median_along_time(plane, half_width)
    assert (smooth[:, 1] == 1).all()
    assert (smooth[:, 2] == 0).all()


@settings(deadline=None, max_examples=50)
@given(arrays(np.float32, (5, 7), elements=st.floats(-1e3, 1e3, width=32)))
def test_median_of_five(values: np.ndarray) -> None:
    """Equal to sorting."""
    assert np.array_equal(median_of_five(*values), np.median(values, axis=0))


@settings(deadline=None, max_examples=5)
@given(arrays(np.float32, (len(CUES), 4), elements=st.floats(-1.5, 1.5, width=32)))
def test_masks_are_shares(cues: np.ndarray) -> None:
    """Whatever the cues say, masks lie in 0..1 and sum to one in every bin."""
    masks = Fusion(GRID).masks(np.repeat(cues[:, :2, None], GRID.bins, axis=2))
    assert masks.shape == (4, 2, GRID.bins)
    assert masks.min() >= 0
    assert np.allclose(masks.sum(axis=0), 1, atol=1e-6)


def test_the_table_of_weights_is_complete() -> None:
    """One weight per cue and stem, one prior per knot and stem, knots rising."""
    assert tuple(CUE_WEIGHTS) == CUES
    assert {len(weights) for weights in CUE_WEIGHTS.values()} == {4}
    assert {len(prior) for prior in PRIORS.values()} == {len(PRIOR_KNOTS_HERTZ)}
    assert list(PRIOR_KNOTS_HERTZ) == sorted(PRIOR_KNOTS_HERTZ)


def test_each_source_goes_mostly_where_it_belongs() -> None:
    """Of a voice, strokes, a low line and a wide chord together, each stem correlates best with its own source."""
    chord = tone(261.6) + tone(329.6) + tone(392.0)
    sources = {"vocals": 2 * sung(330), "drums": 2 * strokes(), "bass": tone(65), "other": chord}
    pan = {"other": (1.2, 0.5)}
    images = {name: np.outer(pan.get(name, (1, 1)), part).astype(np.float32) for name, part in sources.items()}
    song = sum(images.values())
    parts = list(separate([song], RATE, SeparationSettings()))  # type: ignore[list-item]
    for stem in images:
        estimate = np.concatenate([part[stem] for part in parts], axis=1).ravel()
        likeness = {name: abs(np.corrcoef(estimate, image.ravel())[0, 1]) for name, image in images.items()}
        assert max(likeness, key=likeness.__getitem__) == stem, f"{stem}: {likeness}"


def test_neighbours_are_complete_and_bounded() -> None:
    """Every item once, in order, with all neighbours in reach and none beyond."""
    seen = [(window[place], window) for window, place in with_neighbours(range(6), 2)]
    assert [item for item, _ in seen] == list(range(6))
    assert [window for _, window in seen] == [
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        [2, 3, 4, 5],
        [3, 4, 5],
    ]
