"""Repairs of holes and sibilants: they act where the fault is, and clean stems stay bit for bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import signal

from benchmarks.restoration_cases import RATE, Stem, distance_db, holes
from outboard.audio.demo import synthesise
from outboard.audio.hole_filling import HoleFiller, HoleSurveyor
from outboard.testing import drained
from services.restorer.cells import padded_part
from services.restorer.restore import RestorationReport, RestorationSettings, RestorationStep, restore

REPAIR = (RestorationStep("repair"),)


@cache
def stem(name: str) -> np.ndarray:
    return np.ascontiguousarray(synthesise(22, 7.0).stems[name][:, -4 * RATE :])


def restored(audio: np.ndarray, role: str = "") -> tuple[np.ndarray, RestorationReport]:
    blocks, report = drained(restore(audio, RATE, RestorationSettings(role=role, steps=REPAIR)))
    return np.concatenate(blocks, axis=1), report


def amount(report: RestorationReport, treatment: str) -> float:
    return next(action.amount for action in report.actions if action.treatment == treatment)


def sharpened(audio: np.ndarray, by_db: float) -> np.ndarray:
    """A voice whose sibilants are raised: 4.5 to 12 kHz, where they hold more than the voice."""
    hertz, _, spectra = signal.stft(audio, RATE, nperseg=1024, noverlap=768)
    power = np.mean(np.abs(spectra) ** 2, axis=0)
    top = (hertz > 4_500) & (hertz < 12_000)
    is_sibilant = np.sum(power[top], axis=0) > np.sum(power[(hertz > 300) & (hertz < 3_000)], axis=0)
    smooth = np.convolve(is_sibilant, np.hanning(9) / np.sum(np.hanning(9)), "same")
    spectra[:, top] *= 10 ** (by_db * smooth / 20)
    return signal.istft(spectra, RATE, nperseg=1024, noverlap=768)[1][:, : audio.shape[1]].astype(np.float32)


@pytest.mark.parametrize("name", ["vocals", "drums", "bass", "other"])
def test_holes_are_filled(name: str) -> None:
    """A stem with holes comes at least 0.4 dB nearer to the clean one, and has fewer of them."""
    clean = Stem(name, "", stem(name))
    spoiled = holes(clean.audio, 7)
    output, report = restored(spoiled)
    before, after = distance_db(clean, spoiled), distance_db(clean, output)
    assert after <= before - 0.4, f"{name}: {before:.2f} -> {after:.2f} dB"
    assert amount(report, "holes") > 0.5
    assert report.found.spectral_hole_ratio is not None
    assert report.left.spectral_hole_ratio is not None
    assert report.left.spectral_hole_ratio < 0.6 * report.found.spectral_hole_ratio


def test_the_hole_ratio_rises_with_the_holes_and_ignores_gain() -> None:
    """More holes, more ratio; 12 dB of gain moves it by at most 0.02."""
    audio = stem("drums")
    rng = np.random.default_rng(3)
    _, _, spectra = signal.stft(audio, RATE, nperseg=2048, noverlap=1536)
    drawn = rng.random((1, spectra.shape[1] // 8 + 1, spectra.shape[2] // 8 + 1))
    ratios = []
    for share in (0.0, 0.1, 0.2, 0.3):
        mask = np.kron(drawn < share, np.ones((1, 8, 8)))[:, : spectra.shape[1], : spectra.shape[2]]
        emptied = signal.istft(spectra * (1 - 0.999 * mask), RATE, nperseg=2048, noverlap=1536)[1]
        ratios.append([_ratio(np.asarray(gain * emptied, np.float32)) for gain in (0.5, 1.0, 2.0)])
    plain = [row[1] for row in ratios]
    assert plain == sorted(plain), plain
    assert plain[0] < 0.01 < 0.045 < plain[-1], plain
    assert max(max(row) - min(row) for row in ratios) <= 0.02


def test_a_synthesiser_that_beats_has_no_holes() -> None:
    """Voices out of tune with each other dip by 20 dB and more, but slowly: such a stem comes back bit for bit."""
    beating = np.ascontiguousarray(synthesise(33, 6.0).stems["other"][:, -4 * RATE :])
    output, report = restored(beating)
    assert (report.found.spectral_hole_ratio or 0.0) < 0.035, report.found
    assert output.tobytes() == beating.tobytes(), report.actions


def _ratio(audio: np.ndarray) -> float:
    surveyor = HoleSurveyor(RATE, audio.shape[0], float(np.mean(audio**2)))
    for start in range(0, audio.shape[1], 65_536):
        surveyor.add(padded_part(audio, start, 65_536))
    return surveyor.finish() or 0.0


def test_filling_leaves_what_is_no_hole() -> None:
    """Around a single hole nothing changes but for the window's reach; a steady tone beside it keeps its level."""
    noise = 0.1 * np.random.default_rng(1).standard_normal((1, 2 * RATE)).astype(np.float32)
    spectrum = np.fft.rfft(noise[:, RATE : RATE + 4_096])
    spectrum[:, 300:340] = 0.0
    spoiled = noise.copy()
    spoiled[:, RATE : RATE + 4_096] = np.fft.irfft(spectrum)
    filler = HoleFiller(RATE, float(np.mean(spoiled**2)), 1.0)
    around = filler.lookaround_frames
    total = np.zeros((1, 2 * filler.cell_frames), np.float32)
    for cell in range(2):
        start = cell * filler.cell_frames
        correction = filler.correction(padded_part(spoiled, start - around, filler.cell_frames + 2 * around))
        if correction is not None:
            total[:, start : start + filler.cell_frames] = correction
    assert np.max(np.abs(total[:, : RATE - 6_144])) < 1e-6
    assert np.max(np.abs(total[:, RATE : RATE + 4_096])) > 1e-3
    assert np.max(np.abs(total[:, RATE + 12_288 :])) < 1e-6


@pytest.mark.parametrize("by_db", [6.0, 10.0])
def test_sharp_sibilants_are_turned_down_in_voices_only(by_db: float) -> None:
    """Where the index says so the sibilants of a voice get softer, aligned; other roles are left alone."""
    clean = stem("vocals")
    spoiled = sharpened(clean, by_db)
    output, report = restored(spoiled, "lead_vocal")
    assert amount(report, "sibilance") > 0.5
    found, left = report.found.sibilance_index, report.left.sibilance_index
    assert found is not None
    assert (left or 0.0) <= found - 0.2, f"{found:.2f} -> {left}"
    size = 2 * spoiled.shape[1]
    product = np.fft.rfft(spoiled[0], size) * np.conj(np.fft.rfft(output[0], size))
    assert int(np.argmax(np.fft.irfft(product))) == 0
    assert output.shape == spoiled.shape
    other, report = restored(spoiled, "synth")
    assert amount(report, "sibilance") == 0.0
    assert other.tobytes() == spoiled.tobytes()


@pytest.mark.parametrize("frames", [1, 95, 96, 65_536, 65_537])
def test_de_essing_gives_as_many_frames_as_it_takes(frames: int) -> None:
    """Whatever the length, cells of the same sizes come out."""
    from services.restorer.diagnosis import examine
    from services.restorer.repair import Treatment, repaired

    audio = sharpened(stem("vocals"), 10.0)
    examined = examine(audio, RATE)
    part = audio[:, :frames]
    treatment = Treatment(dc=0.0, codec=0.0, tones=0.0, holes=0.0, resonance=0.0, sibilance=1.0)
    blocks = list(repaired(part, RATE, examined, treatment, lambda _: None))
    assert sum(block.shape[1] for block in blocks) == frames
    assert [block.shape[1] for block in blocks[:-1]] == [65_536] * (len(blocks) - 1)
