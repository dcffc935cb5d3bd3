"""Tones on a fixed grid: found where upsampling layers would leave them, taken away, and never read in music."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soxr

from outboard.audio.demo import PATHOLOGIES, synthesise
from outboard.audio.grid_tones import INDEX_DB, GridTones, GridToneSurveyor
from outboard.audio.tone_removal import ToneRemover
from outboard.testing import drained
from services.restorer.cells import padded_part
from services.restorer.repair import CLEAR_TONE_INDEX
from services.restorer.restore import RestorationSettings, RestorationStep, diagnose, restore
from services.restorer.settings import RestorationReport
from tests.unit.test_restore import excerpt_of

RATE = 48_000
# A stem, the rate of a model, and the stride over which its upsampling layers repeat themselves.
CASES = (
    ("vocals", (44_100, 512)),
    ("vocals", (48_000, 16)),
    ("other", (48_000, 320)),
    ("other", (24_000, 256)),
    ("bass", (44_100, 512)),
    ("drums", (24_000, 256)),
)


@cache
def stems() -> dict[str, np.ndarray]:
    return dict(synthesise(31, 8.0).stems)


def pattern_of_a_layer(seed: int, frames: int, model_hertz: int, stride: int, level_db: float) -> np.ndarray:
    """What a transposed convolution makes of a bias: one random pattern of `stride` samples, repeated, (1, frames)."""
    pattern = np.random.default_rng(seed).standard_normal(stride)
    pattern -= pattern.mean()
    pattern *= 10 ** (level_db / 20) / np.sqrt(np.mean(pattern**2))
    repeated = np.resize(pattern, frames * model_hertz // RATE + 2 * stride)
    at_rate = repeated if model_hertz == RATE else soxr.resample(repeated, model_hertz, RATE, quality="VHQ")
    return at_rate[None, :frames].astype(np.float32)


def level_db(audio: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(audio.astype(np.float64) ** 2) + 1e-20))


def with_tones(clean: np.ndarray, model: tuple[int, int], below_db: float, seed: int = 3) -> np.ndarray:
    return clean + pattern_of_a_layer(seed, clean.shape[1], *model, level_db(clean) - below_db)


def repaired(audio: np.ndarray, amount: float | None = None) -> tuple[np.ndarray, RestorationReport]:
    settings = RestorationSettings(steps=(RestorationStep("repair", amount),))
    pieces, report = drained(restore(audio, RATE, settings))
    return np.concatenate(pieces, axis=1), report


def above(audio: np.ndarray, low_hertz: float = 1_000.0, high_hertz: float = 20_000.0) -> np.ndarray:
    spectrum = np.fft.rfft(audio.astype(np.float64))
    hertz = np.fft.rfftfreq(audio.shape[1], 1.0 / RATE)
    spectrum[:, (hertz < low_hertz) | (hertz > high_hertz)] = 0.0
    return np.fft.irfft(spectrum, audio.shape[1])


def surveyed(audio: np.ndarray, block: int = 65_536) -> GridTones | None:
    surveyor = GridToneSurveyor(RATE, audio.shape[0], float(np.mean(audio**2)))
    for start in range(0, audio.shape[1], block):
        surveyor.add(audio[:, start : start + block])
    return surveyor.finish()


@pytest.mark.parametrize(("name", "model"), CASES)
def test_tones_of_upsampling_layers_are_found_and_taken_away(name: str, model: tuple[int, int]) -> None:
    """40 dB below a stem (30 dB below drums, whose cymbals are noise at all times) they are found at their spacing;
    what is left of them above 1 kHz is softer, and their index 0.
    """
    clean = stems()[name]
    spoiled = with_tones(clean, model, 30.0 if name == "drums" else 40.0)
    output, report = repaired(spoiled)
    spacing = model[0] / model[1]
    assert report.found.grid_spacing_hertz == pytest.approx(spacing), report.found
    assert report.found.grid_tones >= 3
    assert (report.found.grid_tone_index or 0) > CLEAR_TONE_INDEX
    assert (report.left.grid_tone_index or 0) == 0.0, report.left
    before, after = (level_db(above(audio - clean)) for audio in (spoiled, output))
    # Of a dense grid most tones are masked by the stem all the time, and stay.
    assert after < before - (8.0 if spacing > 1_000 else 1.0), f"{name}, {model}: {before:.1f} -> {after:.1f} dB"
    done = {action.treatment: action for action in report.actions}
    assert done["tones"].amount == 1.0
    assert f"{spacing:.2f} Hz" in done["tones"].reason
    assert done["tones"].before == report.found.grid_tone_index
    assert done["resonance"].amount == 0.0, done["resonance"]


@pytest.mark.parametrize("seed", [32, 33, 35])
def test_tones_under_drums_that_strike_often(seed: int) -> None:
    """4 s of drums without a quiet moment of two thirds of a second, tones on a dense grid 35 dB below them: found at
    their spacing, and at least half of their power above 1 kHz is taken away.
    """
    clean = np.ascontiguousarray(synthesise(seed, 6.0).stems["drums"][:, -4 * RATE :])
    spoiled = with_tones(clean, (48_000, 320), 35.0)
    output, report = repaired(spoiled)
    assert report.found.grid_spacing_hertz == pytest.approx(150.0), report.found
    assert (report.left.grid_tone_index or 0) < (report.found.grid_tone_index or 0), report.left
    before, after = (level_db(above(audio - clean)) for audio in (spoiled, output))
    assert after < before - 3.0, f"{before:.1f} -> {after:.1f} dB"


def taken_from(audio: np.ndarray, hertz: tuple[float, ...], most_amplitude: float = np.inf) -> np.ndarray:
    remover = ToneRemover(
        lambda start, frames: padded_part(audio, start, frames), audio.shape[1], RATE, hertz, 1.0, most_amplitude
    )
    return remover.tones(0, audio.shape[1])


GRID_HERTZ = tuple(150.0 * k for k in range(7, 133))


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_what_is_not_sure_stays(name: str) -> None:
    """Told of 126 tones that a clean stem does not have, the remover takes nothing louder than 45 dB below it."""
    clean = stems()[name]
    taken = level_db(taken_from(clean, GRID_HERTZ)) - level_db(clean)
    assert taken < -45.0, f"{taken:.1f} dB"


def test_strokes_do_not_spoil_what_is_known_of_a_tone() -> None:
    """Bursts of noise 40 dB over the tones, a quarter of the time: of all tones 25 dB are taken away."""
    generator = np.random.default_rng(5)
    tones = np.repeat(pattern_of_a_layer(3, 6 * RATE, 48_000, 320, -60.0), 2, axis=0)
    strikes = np.arange(6 * RATE) % (RATE // 4) < RATE // 16
    audio = (tones + 0.1 * generator.standard_normal(tones.shape) * strikes).astype(np.float32)
    left = above(tones - taken_from(audio, GRID_HERTZ), 1_100.0, 19_000.0)
    assert level_db(left) < level_db(above(tones, 1_100.0, 19_000.0)) - 25.0, level_db(left)


def test_a_note_that_passes_on_the_grid_stays() -> None:
    """A second of a note on a tone's very frequency, 30 dB over it: less than a tenth of the tone is taken too much."""
    times = np.arange(6 * RATE) / RATE
    tone = 1e-3 * np.sin(2 * np.pi * 3_000.0 * times + 0.4)
    note = 0.0316 * np.sin(2 * np.pi * 3_000.0 * times + 2.0) * ((times > 2.5) & (times < 3.5))
    noise = 1e-5 * np.random.default_rng(2).standard_normal(times.size)
    error = taken_from((tone + note + noise)[None].astype(np.float32), (3_000.0,))[0] - tone
    middle = error[RATE : 5 * RATE]
    assert level_db(middle) < level_db(tone) - 20.0, f"{level_db(middle) - level_db(tone):.1f} dB"


def test_what_is_louder_than_a_tone_may_be_stays() -> None:
    """A sine that lasts, on the grid, twice as loud as the loudest tone may be, is left whole."""
    times = np.arange(4 * RATE) / RATE
    sine = (0.02 * np.sin(2 * np.pi * 3_000.0 * times))[None].astype(np.float32)
    assert not np.any(taken_from(sine, (3_000.0,), 0.01))
    assert level_db(taken_from(sine, (3_000.0,), 0.03)) > level_db(sine) - 1.0


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_clean_stems_have_none(name: str) -> None:
    """Nothing is found in a clean stem, and it comes back bit for bit."""
    output, report = repaired(stems()[name])
    assert report.found.grid_tones == 0
    assert not report.found.grid_tone_index
    assert output.tobytes() == stems()[name].tobytes()


def test_free_shimmer_is_no_grid() -> None:
    """Shimmer that follows the music is told as shimmer, not as a grid."""
    found = diagnose(PATHOLOGIES["shimmer"](stems()["other"], RATE, 3, 0.8), RATE)
    assert found.grid_tones == 0, found
    assert (found.shimmer_index or 0) > 0.1


def held_chord(seed: int, *, tuning_hertz: float, seconds: float = 4.0) -> np.ndarray:
    """A pad that never moves: four notes with forty partials each, at one level from beginning to end."""
    generator = np.random.default_rng(seed)
    times = np.arange(int(seconds * RATE)) / RATE
    pad = np.zeros((2, times.size))
    for note in generator.choice(np.arange(-24, 24), 4, replace=False):
        hertz = tuning_hertz * 2.0 ** (note / 12.0)
        for partial in range(1, 41):
            if partial * hertz < 18_000:
                wave = np.sin(2 * np.pi * (partial * hertz * times + generator.random()))
                pad += generator.uniform(0.5, 1.0, (2, 1)) * wave / partial
    return (0.1 * pad / np.max(np.abs(pad)) + 1e-5 * generator.standard_normal(pad.shape)).astype(np.float32)


@pytest.mark.parametrize("tuning_hertz", [440.0, 442.0, 432.0])
@pytest.mark.parametrize("seed", range(2))
def test_pads_that_never_move_are_not_taken_for_a_grid(seed: int, tuning_hertz: float) -> None:
    """Partials that stand still for all of the stem are steady, narrow and evenly spaced, and yet no fault."""
    found = surveyed(held_chord(seed, tuning_hertz=tuning_hertz))
    assert found is not None
    assert found.hertz == (), found


def test_a_note_that_lies_on_a_grid_is_a_note() -> None:
    """A held sawtooth of exactly 150 Hz has its partials where a stride of 320 at 48 kHz has its tones."""
    times = np.arange(6 * RATE) / RATE
    note = sum(np.sin(2 * np.pi * 150.0 * k * times + k) / k for k in range(1, 120))
    noise = 1e-5 * np.random.default_rng(1).standard_normal((2, times.size))
    found = surveyed((0.1 * note[None] + noise).astype(np.float32))
    assert found is not None
    assert found.hertz == (), found


@pytest.mark.parametrize("folder", ["references", "songs", "stems/potassium", "ground_truth/potassium"])
def test_real_recordings_have_none(folder: str, test_data: Path) -> None:
    """No tone is found in 20 s of any recording."""
    for path in sorted((test_data / folder).iterdir()):
        if path.suffix in {".mp3", ".ogg", ".flac", ".m4a", ".wav"}:
            found = surveyed(excerpt_of(path))
            assert found is None or found.hertz == (), f"{path.name}: {found}"


def test_the_index_rises_with_the_level_and_ignores_gain() -> None:
    """Monotone over five levels; 6 dB of gain either way move it by at most 0.02; 30 dB below the stem it is near 1."""
    clean = stems()["vocals"]
    indices = []
    for below_db in (70.0, 60.0, 50.0, 40.0, 30.0):
        spoiled = with_tones(clean, (48_000, 320), below_db)
        found = surveyed(spoiled)
        assert found is not None
        indices.append(found.index)
        for gain in (0.5, 2.0):
            changed = surveyed(spoiled * np.float32(gain))
            assert changed is not None
            assert abs(changed.index - found.index) <= 0.02, f"gain {gain}: {found.index} -> {changed.index}"
    assert indices == sorted(indices), indices
    assert indices[0] < 0.3 < 0.8 < indices[-1], indices


def test_the_amount_is_kept() -> None:
    """Half of the amount takes half of every tone."""
    clean = stems()["vocals"]
    spoiled = with_tones(clean, (48_000, 8), 40.0)
    half, _ = repaired(spoiled, 0.5)
    whole, _ = repaired(spoiled, 1.0)
    taken = above(spoiled - whole)
    error = level_db(above(spoiled - half) - 0.5 * taken) - level_db(taken)
    assert error < -60.0, f"{error:.1f} dB"


def test_reading_does_not_change_the_result() -> None:
    """Looks lie at fixed places, whatever the blocks; two runs are identical."""
    spoiled = with_tones(stems()["vocals"], (44_100, 512), 40.0)
    assert surveyed(spoiled) == surveyed(spoiled, 10_007)
    assert repaired(spoiled)[0].tobytes() == repaired(np.asfortranarray(spoiled))[0].tobytes()


def test_where_a_stem_is_cut_to_silence_nothing_is_added() -> None:
    """A gate that closes leaves silence, which stays 60 dB below the tones but for two seconds at its edge."""
    spoiled = with_tones(synthesise(32, 12.0).stems["vocals"], (48_000, 320), 40.0)
    tones = level_db(pattern_of_a_layer(3, RATE, 48_000, 320, level_db(spoiled) - 40.0))
    gated = spoiled.copy()
    gated[:, 8 * RATE :] = 0.0
    output, report = repaired(gated)
    assert report.found.grid_tones >= 3
    assert level_db(output[:, 9 * RATE :]) < tones - 60.0, level_db(output[:, 9 * RATE :])


@pytest.mark.parametrize(("rate", "frames"), [(8_000, 80_000), (48_000, RATE), (48_000, 0)])
def test_what_cannot_be_told_is_unset(rate: int, frames: int) -> None:
    """Little of a stem, or a narrow band: 12 windows at 8 kHz are enough, a second is not."""
    audio = np.random.default_rng(0).standard_normal((1, frames)).astype(np.float32)
    surveyor = GridToneSurveyor(rate, 1, 1.0)
    surveyor.add(audio)
    found = surveyor.finish()
    assert (found is None) == (frames <= RATE), found


def test_memory_is_fixed() -> None:
    """Ten minutes keep no more looks than half a minute."""
    surveyor = GridToneSurveyor(8_000, 1, 1.0)
    noise = np.random.default_rng(0).standard_normal((1, 8_000 * 30)).astype(np.float32)
    kept = []
    for _ in range(20):
        surveyor.add(noise)
        kept.append(len(surveyor._looks))
    assert max(kept) <= 64, kept
    assert INDEX_DB[0] < INDEX_DB[1]
