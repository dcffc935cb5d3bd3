"""Excerpts of real stems on the console: guard-rails, masking, balance; whole songs in `make acceptance`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from outboard.audio.demo import synthesise
from tests.mixes import SEPARATED, check_faders, check_mix, mixed


def test_true_stems_of_a_song(test_data: Path, tmp_path: Path) -> None:
    """Eight seconds with a voice: all rails hold, music covers a fifth less of it, balance stays, bytes repeat."""
    folder = test_data / "ground_truth" / "potassium"
    stems = {}
    for name in SEPARATED:
        samples, _ = soundfile.read(folder / f"{name}.flac", dtype="float32", always_2d=True, frames=8 * 48_000)
        stems[name] = np.ascontiguousarray(samples.T)
    song = np.sum(list(stems.values()), axis=0, dtype=np.float32)
    found = mixed(stems, SEPARATED, song, tmp_path)
    check_mix(found)
    check_faders(found)
    assert np.array_equal(found.audio, mixed(stems, SEPARATED, song, tmp_path).audio)


def test_a_demo_song(tmp_path: Path) -> None:
    """Sides above the cap are gone and all other rails hold."""
    demo = synthesise(203, 10.0)
    found = mixed(demo.stems, SEPARATED, demo.song, tmp_path)
    assert all(rail.held for rail in found.report.rails), found.report.rails
    check_faders(found)
