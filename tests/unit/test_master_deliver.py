"""What a lossy file does to a master: its ceiling is kept first, and the best of its encodes is what is delivered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.analysis import analyze
from outboard.audio.limiter import LimiterSettings
from outboard.audio.spool import Spool
from outboard.audio.true_peak import TruePeakMeter
from services.master import deliver as delivery
from services.master.deliver import Progress, Target, deliver
from services.master.master import master
from services.master.plan import plan
from services.master.settings import DeliverableSpec, MasterSettings

RATE_HERTZ = 48000
CEILING_DBTP = -1.0
MP3 = DeliverableSpec(container="mp3", sample_rate_hertz=44100, bitrate_kbps=320)

Array = NDArray[np.float32]


def gated_noise() -> Array:
    """Two seconds of noise that is on for a quarter of a second, and off for another."""
    seconds = np.arange(2 * RATE_HERTZ) / RATE_HERTZ
    noise = np.random.default_rng(0).standard_normal((2, seconds.size))
    return (noise * (np.sin(2 * np.pi * 2 * seconds) > 0) * 0.5).astype(np.float32)


def struck_tones() -> Array:
    """Two seconds of tones and bass drum under loud strokes of noise, far over full scale."""
    seconds = np.arange(2 * RATE_HERTZ) / RATE_HERTZ
    tones = sum(0.1 * np.sin(2 * np.pi * hertz * seconds) for hertz in (110, 220, 330, 440))
    tones = tones * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * seconds))
    noise = np.random.default_rng(3).standard_normal((2, seconds.size))
    strokes = noise * 0.8 * np.exp(-((seconds * 4) % 1) * 12)
    drum = np.sin(2 * np.pi * 55 * seconds) * np.exp(-((seconds * 2) % 1) * 8) * 0.5
    return np.asarray(tones + drum + strokes, dtype=np.float32)


@pytest.mark.parametrize("make", [gated_noise, struck_tones])
def test_an_mp3_at_the_highest_rate_keeps_its_ceiling(make: Callable[[], Array], tmp_path: Path) -> None:
    """Peaks are lowered at high bit rates too, and nothing is raised while one is over."""
    audio = make()
    before = analyze(audio, RATE_HERTZ)
    decided = plan(before, MasterSettings(intent="loud", deliverables=(MP3,)))
    report = master(audio, RATE_HERTZ, decided, directory=tmp_path, before=before).report
    (file,) = report.deliverables
    over_db = (file.true_peak_dbtp or 0.0) - CEILING_DBTP
    assert over_db <= delivery.LOSSY_TOLERANCE_DB, f"{over_db:.2f} dB over after {file.encodes} encodes"
    assert not [warning for warning in report.warnings if warning.code == "CEILING_MISSED"]


def test_the_best_encode_is_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of encodes that hold the ceiling, the one nearest in loudness; one that is over never replaces it."""
    readings = iter([(0.9, -14.0), (0.1, -14.3), (0.5, -14.0)])
    decoded: list[Array] = []

    def measured(audio: Array, rate: int, progress: Progress) -> tuple[TruePeakMeter, float | None]:
        over_db, lufs = next(readings)
        decoded.append(audio)
        meter = TruePeakMeter(audio.shape[0])
        sine = np.sin(2 * np.pi * 100 * np.arange(4800) / RATE_HERTZ) * 10 ** ((CEILING_DBTP + over_db) / 20)
        meter.process(np.repeat(sine[np.newaxis].astype(np.float32), 2, axis=0))
        meter.finish()
        return meter, lufs

    monkeypatch.setattr(delivery, "_measured", measured)
    target = Target(MP3, tmp_path, CEILING_DBTP, LimiterSettings(ceiling_dbtp=CEILING_DBTP), -14.0, 0, None, Spool)
    best = deliver(gated_noise() * np.float32(0.1), RATE_HERTZ, target, lambda fraction: None)
    assert best.report.encodes == 3
    assert best.report.integrated_lufs == -14.3
    assert best.held
    assert best.decoded is decoded[1]
    assert [path.name for path in tmp_path.iterdir()] == [MP3.file_name]
