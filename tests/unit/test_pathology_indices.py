"""The fault indices: they rise with the fault, ignore gain, and leave released recordings alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal, stats

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.demo import PATHOLOGIES, synthesise

RATE = 48000
SEVERITIES = (0.2, 0.4, 0.6, 0.8, 1.0)
INDICES = {
    "shimmer": "shimmer_index",
    "mud": "mud_index",
    "hard_pan": "hard_panning_index",
    "squash": "flat_dynamics_index",
    "holes": "spectral_hole_ratio",
}
Fault = Callable[[np.ndarray, int, int, float], np.ndarray]


def _holes(audio: np.ndarray, rate: int, seed: int, severity: float) -> np.ndarray:
    """Empty up to a third of the cells of three frames by 190 Hz, as an over-eager mask does."""
    generator = np.random.default_rng(seed)
    _, _, spectra = signal.stft(audio, rate, nperseg=2048, noverlap=1536)
    cells = generator.random((2, spectra.shape[1] // 8 + 1, spectra.shape[2] // 8 + 1)) < 0.35 * severity
    mask = np.kron(cells, np.ones((1, 8, 8)))[:, : spectra.shape[1], : spectra.shape[2]]
    _, emptied = signal.istft(spectra * np.where(mask > 0, 1e-3, 1.0), rate, nperseg=2048, noverlap=1536)
    return np.asarray(emptied[:, : audio.shape[1]], np.float32)


FAULTS: dict[str, Fault] = {**{name: PATHOLOGIES[name] for name in INDICES if name in PATHOLOGIES}, "holes": _holes}


@cache
def _song(seed: int) -> np.ndarray:
    return synthesise(seed, 10.0).clean


def _index(audio: np.ndarray, fault: str) -> float:
    value = getattr(analyze(audio, RATE), INDICES[fault])
    assert isinstance(value, float)
    assert 0.0 <= value <= 1.0
    return value


@pytest.mark.parametrize("fault", INDICES)
@pytest.mark.parametrize("seed", [31])
def test_index_rises_with_severity(fault: str, seed: int) -> None:
    """Spearman's correlation of index and severity is at least 0.9 over five severities, for each song."""
    values = [_index(FAULTS[fault](_song(seed), RATE, seed, severity), fault) for severity in SEVERITIES]
    rho = stats.spearmanr(SEVERITIES, values).statistic
    assert rho >= 0.9, f"{fault}, seed {seed}: {np.round(values, 3)}, rho {rho:.2f}"


@pytest.mark.parametrize("fault", INDICES)
@pytest.mark.parametrize("gain_db", [-6.0, 6.0])
def test_index_ignores_gain(fault: str, gain_db: float) -> None:
    """6 dB up or down moves an index by at most 0.02, also on a song at half severity."""
    faulty = FAULTS[fault](_song(31), RATE, 1, 0.5)
    before = _index(faulty, fault)
    after = _index(faulty * np.float32(10 ** (gain_db / 20)), fault)
    assert abs(after - before) <= 0.02, f"{fault}: {before:.3f} became {after:.3f}"


def _twenty_seconds(path: Path) -> list[np.ndarray]:
    """Excerpts of 20 s from the beginning, the middle and the end of a file."""
    frames = soundfile.info(path).frames
    rate = soundfile.info(path).samplerate
    starts = (0, (frames - 20 * rate) // 2, frames - 20 * rate)
    return [soundfile.read(path, 20 * rate, start, dtype="float32", always_2d=True)[0].T for start in starts]


def test_released_recordings_score_as_clean(test_data: Path) -> None:
    """Any 20 s of released recordings, beginning, middle and end, score at most 0.1 on every index."""
    wrong = []
    for path in sorted((test_data / "references").glob("*.ogg")):
        for place, audio in zip(("beginning", "middle", "end"), _twenty_seconds(path), strict=True):
            analysis = analyze(audio, soundfile.info(path).samplerate)
            wrong += [
                f"{path.name} {place}: {name} {getattr(analysis, name):.3f}"
                for name in INDICES.values()
                if not (getattr(analysis, name) or 0.0) <= 0.1
            ]
    assert not wrong, "\n".join(wrong)


def test_clean_demo_songs_score_as_clean() -> None:
    """The demo songs without faults, from which the tests' faulty ones are made, score at most 0.15."""
    for seed in (31, 32):
        analysis: Analysis = analyze(_song(seed), RATE)
        for name in INDICES.values():
            assert getattr(analysis, name) <= 0.15, f"seed {seed}: {name} {getattr(analysis, name):.3f}"
