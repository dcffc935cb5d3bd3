"""What an MP3 coder rounded away: its grid is found where there is one and nowhere else, and mending comes nearer."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from benchmarks.restoration_cases import RATE, Stem, distance_db, low_pass, mp3
from outboard.audio import mp3_filter_bank as bank
from outboard.audio.demo import synthesise
from outboard.audio.mp3_grid import SEARCH_FRAMES, find_grid, zeros
from outboard.audio.mp3_mending import CodecMender, CodecSurveyor
from outboard.testing import drained
from services.restorer.cells import padded_part
from services.restorer.restore import RestorationSettings, RestorationStep, restore

REPAIR = RestorationSettings(steps=(RestorationStep("repair"),))
CELL = 65_536


@cache
def stem(name: str) -> np.ndarray:
    """Of a demo song that no level was chosen on."""
    return np.ascontiguousarray(synthesise(57, 6.0).stems[name][:, -4 * RATE :])


@cache
def coded(name: str, kbps: int) -> np.ndarray:
    return mp3(stem(name), kbps)


def mended(audio: np.ndarray, cell_frames: int) -> np.ndarray:
    grid = find_grid(audio)
    assert grid is not None
    surveyor = CodecSurveyor(grid)
    surveyor.add(audio)
    trace = surveyor.finish()
    assert trace is not None
    mender = CodecMender(trace, cell_frames, 1.0)
    around = mender.lookaround_frames
    parts = []
    for start in range(0, audio.shape[1], cell_frames):
        part = padded_part(audio, start - around, cell_frames + 2 * around)
        correction = mender.correction(part, start)
        parts.append(np.zeros((audio.shape[0], cell_frames)) if correction is None else correction)
    return np.concatenate(parts, axis=1)[:, : audio.shape[1]]


def test_the_filter_bank_gives_the_signal_back() -> None:
    """Lines of all types of block: long ones give noise back to -80 dB, and keep its power in all types."""
    noise = np.random.default_rng(1).standard_normal((2, 20 * bank.GRANULE_FRAMES)).astype(np.float32)
    of_bands = bank.bands(noise)
    for block in bank.BLOCK_TYPES:
        power = float(np.mean(bank.lines(of_bands, block) ** 2))
        assert abs(10 * np.log10(power)) < 0.2, (block, power)
    lines = bank.lines(of_bands, bank.LONG)
    back = bank.signal(lines, np.full(lines.shape[1], bank.LONG))
    inside = slice(2 * bank.REACH_FRAMES, back.shape[1] - 2 * bank.REACH_FRAMES)
    error_db = 10 * np.log10(np.mean((back - noise[:, : back.shape[1]])[:, inside] ** 2))
    assert error_db < -80.0, error_db


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_the_grid_is_where_the_coder_had_it(name: str) -> None:
    """Found at every bit rate, moving with the signal; clean stems, their low-passed copies and silence have none."""
    for kbps in (64, 96, 128):
        audio = coded(name, kbps)[:, RATE:]
        grid = find_grid(audio)
        assert grid is not None, kbps
        later = find_grid(audio[:, 100:])
        assert later == (grid - 100) % bank.GRANULE_FRAMES, (kbps, grid, later)
    for clean in (stem(name), low_pass(stem(name), 11_000.0), np.zeros_like(stem(name))):
        assert find_grid(clean[:, RATE : RATE + SEARCH_FRAMES]) is None


def test_sixteen_bits_and_a_soft_copy_still_show_the_grid() -> None:
    """A decoded file of 16 bits, and one turned down by 12 dB, have the same grid."""
    audio = coded("drums", 96)[:, RATE:]
    grid = find_grid(audio)
    assert find_grid(audio * np.float32(0.25)) == grid
    assert find_grid(np.round(audio * 32768.0).astype(np.float32) / np.float32(32768.0)) == grid


def test_soft_lines_far_from_a_loud_one_are_no_zeros() -> None:
    """Beside a loud line its skirt is not taken for coded lines; far from it what lies 95 dB lower is."""
    lines = np.zeros((1, 3, bank.GRANULE_FRAMES), np.float32)
    lines[0, :, 2] = 2.0
    lines[0, :, 3:12] = 1e-4  # what the bank lets through
    lines[0, :, 200:400:4] = 4e-5
    is_left = ~zeros(lines)[0]
    assert not np.any(is_left[:, 3:200])
    assert np.all(is_left[:, 200:400:4])
    assert np.count_nonzero(is_left) == 3 * 51


@pytest.mark.parametrize("name", ["drums", "bass"])
def test_the_holes_of_a_file_of_sixteen_bits_are_those_of_the_coder(name: str) -> None:
    """Rounding a decoded stem to 16 bits hides none of them and makes no lines above the coder's end."""
    audio = coded(name, 64)
    grid = find_grid(audio)
    assert grid is not None
    traces = []
    for made in (audio, np.round(audio * 32768.0).astype(np.float32) / np.float32(32768.0)):
        surveyor = CodecSurveyor(grid)
        surveyor.add(made)
        traces.append(surveyor.finish())
    exact, rounded = traces
    assert exact is not None
    assert rounded is not None
    assert rounded.top == exact.top
    assert rounded.hole_ratio == pytest.approx(exact.hole_ratio, abs=0.01)


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
@pytest.mark.parametrize("kbps", [64, 128])
def test_a_coded_stem_comes_nearer(name: str, kbps: int) -> None:
    """Partials that last too, drums at 64 kbit/s by 0.5 dB; fewer holes are left, and the report tells of the coder."""
    clean, audio = Stem(name, "", stem(name)), coded(name, kbps)
    blocks, report = drained(restore(audio, RATE, REPAIR))
    before, after = distance_db(clean, audio), distance_db(clean, np.concatenate(blocks, axis=1))
    assert after < before, f"{before:.4f} -> {after:.4f} dB"
    if (name, kbps) == ("drums", 64):
        assert after <= before - 0.5, f"{before:.2f} -> {after:.2f} dB"
    action = next(action for action in report.actions if action.treatment == "codec")
    assert "MP3" in action.reason
    assert action.before is not None
    assert action.after is not None
    assert action.after < action.before, (action.before, action.after)


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_what_is_put_in_is_softer_than_what_was_lost(name: str) -> None:
    """At most half the power of the coder's own error."""
    audio = coded(name, 96)
    put_in, lost = (float(np.mean(change**2)) for change in (mended(audio, CELL), audio - stem(name)))
    assert 0.0 < put_in <= 0.5 * lost, (put_in, lost)


def test_the_cells_make_no_difference() -> None:
    """Read in cells of another size, the correction is the same to -100 dB of the stem."""
    audio = coded("drums", 64)
    one, other = mended(audio, CELL), mended(audio, 3 * 8192)
    error_db = 10 * np.log10(np.mean((one - other) ** 2) / np.mean(audio**2) + 1e-20)
    assert error_db < -100.0, error_db
    assert np.any(one)


def test_a_clean_stem_shows_no_coder() -> None:
    """Unset in the diagnosis, and the stem as it was."""
    for name in ("vocals", "drums", "bass", "other"):
        blocks, report = drained(restore(stem(name), RATE, REPAIR))
        assert report.found.codec_hole_ratio is None
        assert np.array_equal(np.concatenate(blocks, axis=1), stem(name))
