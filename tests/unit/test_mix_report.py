"""What the report tells of a mix: who covers whom, and spectra, before and after the processors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from outboard.audio.processors import Equalizer, FilterBand, Processor
from outboard.testing import drained
from services.mixer.console import MixPlan, MixReport, Strip
from services.mixer.masking import CENTRES_HERTZ
from services.mixer.mix import mix

RATE = 48_000
CUT_DB = -12.0
BELL = Processor("bell", Equalizer((FilterBand("peak", 1_000.0, CUT_DB, 0.5),)))


def _noise(seed: int, level: float) -> np.ndarray:
    """Stereo noise with the same in both ears, 500 Hz to 2 kHz."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(3 * RATE))
    hertz = np.fft.rfftfreq(3 * RATE, 1.0 / RATE)
    band = np.fft.irfft(spectrum * ((hertz > 500.0) & (hertz < 2_000.0)))
    return np.tile(level * band, (2, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> MixReport:
    """A voice under louder keys that give way around 1 kHz, and a bass that covers neither."""
    seconds = np.arange(3 * RATE) / RATE
    bass = np.tile(0.2 * np.sin(2.0 * np.pi * 60.0 * seconds), (2, 1)).astype(np.float32)
    stems = {"voice": _noise(1, 0.1), "keys": _noise(2, 0.2), "bass": bass}
    strips = (Strip("voice", "lead_vocal"), Strip("keys", "keys", gain_db=-2.0, chain=(BELL,)), Strip("bass", "bass"))
    plan = MixPlan(strips, peak_target_dbfs=-20.0)
    return _told(stems, plan, tmp_path_factory.mktemp("spool"))


def _told(stems: dict[str, np.ndarray], plan: MixPlan, folder: Path) -> MixReport:
    return drained(mix(stems, RATE, plan, spool_directory=folder, corrections=0))[1]


def test_the_matrix_tells_who_covers_whom(report: MixReport) -> None:
    """Every pair once; louder keys cover the voice and less so once they give way, the bass covers nobody."""
    pairs = {(pair.masker, pair.masked): pair for pair in report.masking}
    assert len(pairs) == len(report.masking) == 6
    keys = pairs["keys", "voice"]
    # 4 dB over a steady sound cover (4 + 6) / 12 of it; noise is not quite steady.
    assert keys.before_index == pytest.approx(0.8, abs=0.1), f"{keys.before_index:.2f}"
    assert keys.after_index < keys.before_index - 0.3, f"{keys.before_index:.2f} to {keys.after_index:.2f}"
    assert pairs["voice", "keys"].after_index > pairs["voice", "keys"].before_index
    for masked in ("voice", "keys"):
        assert pairs["bass", masked].before_index < 0.02
        assert pairs[masked, "bass"].before_index < 0.02


def test_spectra_show_what_a_processor_did(report: MixReport) -> None:
    """A cut of 12 dB at 1 kHz is seen in its band within 0.5 dB; a strip without processors keeps its spectrum."""
    band = int(np.argmin(np.abs(np.array(CENTRES_HERTZ) - 1_000.0)))
    voice, keys, _ = report.strips
    assert report.band_hertz == CENTRES_HERTZ
    assert len(keys.spectrum_before_db) == len(keys.spectrum_after_db) == len(CENTRES_HERTZ)
    cut = keys.spectrum_after_db[band] - keys.spectrum_before_db[band]
    assert cut == pytest.approx(CUT_DB, abs=0.5), f"{cut:.2f} dB"
    assert voice.spectrum_after_db == pytest.approx(voice.spectrum_before_db, abs=0.2)


def test_the_spectrum_of_the_mix_is_that_of_what_leaves(report: MixReport) -> None:
    """Before is the sum of the strips at their faders, after what is delivered: turned down to its peak target."""
    mixed = report.buses[-1]
    low = int(np.argmin(np.abs(np.array(CENTRES_HERTZ) - 60.0)))
    bass = report.strips[2]
    assert mixed.spectrum_before_db[low] == pytest.approx(bass.spectrum_before_db[low], abs=0.1)
    change = mixed.spectrum_after_db[low] - mixed.spectrum_before_db[low]
    assert report.trim_db < -3.0
    assert change == pytest.approx(report.trim_db, abs=0.1), f"{change:.2f} dB, trimmed by {report.trim_db:.2f} dB"


def test_every_strip_tells_its_correlation(report: MixReport) -> None:
    """Both ears hear the same here: 1."""
    for part in (*report.strips, *report.buses):
        assert part.correlation == pytest.approx(1.0, abs=1e-6)


def test_a_silent_mix_says_so(tmp_path: Path) -> None:
    """Stems that are all silent are an ordinary input with a warning; nobody covers anybody."""
    silence = {name: np.zeros((2, RATE), np.float32) for name in ("a", "b")}
    report = _told(silence, MixPlan((Strip("a", "other"), Strip("b", "other"))), tmp_path)
    assert [warning.code for warning in report.warnings] == ["SILENT_INPUT"]
    assert all(pair.before_index == pair.after_index == 0.0 for pair in report.masking)
