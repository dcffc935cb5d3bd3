"""The fault indices over many songs: separation of faulty from clean, released recordings as a whole, and cost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.demo import PATHOLOGIES, synthesise

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]

RATE = 48000
SEEDS = range(300, 308)
SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
FAULTY_FROM = 0.6  # what the demo song carries, and the least that separation is asked for
INDICES = {
    "shimmer": "shimmer_index",
    "mud": "mud_index",
    "hard_pan": "hard_panning_index",
    "squash": "flat_dynamics_index",
}


def _released(test_data: Path) -> list[np.ndarray]:
    """The released recordings, 20 s from every minute, at their own rate."""
    excerpts = []
    for path in sorted((test_data / "references").glob("*.ogg")):
        rate = soundfile.info(path).samplerate
        starts = range(10 * rate, soundfile.info(path).frames - 20 * rate, 60 * rate)
        excerpts += [soundfile.read(path, 20 * rate, start, dtype="float32", always_2d=True)[0].T for start in starts]
    return excerpts


@pytest.mark.parametrize("fault", INDICES)
def test_index_separates_and_rises(fault: str, test_data: Path) -> None:
    """Over eight seeds and released excerpts: AUC of faulty (0.6 and more) against clean >= 0.95, Spearman >= 0.9."""
    field = INDICES[fault]
    songs = [synthesise(seed, 20.0).clean for seed in SEEDS] + _released(test_data)
    clean = [getattr(analyze(song, RATE), field) for song in songs]
    table = np.array(
        [
            [getattr(analyze(PATHOLOGIES[fault](song, RATE, seed, s), RATE), field) for s in SEVERITIES]
            for seed, song in enumerate(songs)
        ]
    )
    rhos = [stats.spearmanr(SEVERITIES, row).statistic for row in table]
    faulty = table[:, np.array(SEVERITIES) >= FAULTY_FROM].ravel()
    area = float(np.mean([[(a > b) + 0.5 * (a == b) for b in clean] for a in faulty]))
    report = f"{fault}: AUC {area:.3f}, least rho {min(rhos):.2f}, clean up to {max(clean):.3f}\n{table.round(3)}"
    assert area >= 0.95, report
    assert min(rhos) >= 0.9, report


def test_whole_released_recordings_score_as_clean(test_data: Path) -> None:
    """Whole released recordings score at most 0.1 on every index."""
    for path in sorted((test_data / "references").glob("*.ogg")):
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        analysis: Analysis = analyze(audio.T, rate)
        for name in (*INDICES.values(), "spectral_hole_ratio"):
            assert getattr(analysis, name) <= 0.1, f"{path.name}: {name} {getattr(analysis, name):.3f}"


def test_cost(test_data: Path) -> None:
    """A whole analysis costs at most 0.03 of the audio's length in CPU time on one core."""
    audio, rate = soundfile.read(
        test_data / "references" / "karissa_hobbs_lets_go_fishin.ogg", dtype="float32", always_2d=True
    )
    analyze(audio[: 10 * rate].T, rate)  # compilation and imports are paid once
    begin = time.process_time()
    analyze(audio.T, rate)
    share = (time.process_time() - begin) / (len(audio) / rate)
    assert share <= 0.03, f"{share:.4f} of real time"


def test_tempo_and_key_of_demo_songs() -> None:
    """Over ten seeds of known tempo and key: tempo right (or an octave off) on 9, key right on at least 6."""
    names = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
    tempi, keys = 0, 0
    for seed in range(10):
        demo = synthesise(seed, 30.0)
        analysis = analyze(demo.clean, RATE)
        truth = demo.arrangement
        ratios = [(analysis.tempo_bpm or 0.0) / truth.tempo_bpm * octave for octave in (0.5, 1.0, 2.0)]
        tempi += any(abs(ratio - 1.0) < 0.04 for ratio in ratios)
        keys += analysis.key == f"{names[truth.root_pitch % 12]} {truth.mode}"
    assert tempi >= 9, f"tempo right on {tempi} of 10"
    assert keys >= 6, f"key right on {keys} of 10"
