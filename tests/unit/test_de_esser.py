"""The de-esser: sibilants of a voice go down, at any level; vowels and breaths stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import signal

from outboard.audio.de_esser import DeEsser, DeEsserSettings

RATE = 48_000
S = DeEsserSettings(5_500.0, -12.0, 4.0, -6.0)


def voice(ess_dbfs: float = -14.0, breath_dbfs: float = -45.0) -> tuple[np.ndarray, dict[str, slice]]:
    """Half a second of a vowel, 100 ms of an ess, a vowel, silence, a breath; and where they are."""
    t = np.arange(RATE // 2) / RATE
    vowel = 0.3 * sum(np.sin(2 * np.pi * 200 * k * t) / k**1.5 for k in range(1, 15))
    rng = np.random.default_rng(6)
    sos = signal.butter(4, 5_500.0, "highpass", fs=RATE, output="sos")
    hiss = signal.sosfilt(sos, rng.standard_normal(RATE // 2))
    hiss /= np.sqrt(np.mean(hiss**2))
    ess = 10 ** (ess_dbfs / 20) * hiss[:4_800]
    breath = 10 ** (breath_dbfs / 20) * hiss[:12_000]
    parts = {"vowel": vowel, "ess": ess, "again": vowel, "gap": np.zeros(12_000), "breath": breath}
    edges = np.cumsum([0, *(len(part) for part in parts.values())])
    where = {name: slice(a, b) for name, a, b in zip(parts, edges[:-1], edges[1:], strict=True)}
    return np.tile(np.concatenate(list(parts.values())), (2, 1)).astype(np.float32), where


def change_db(s: DeEsserSettings, x: np.ndarray, where: slice) -> float:
    padded = np.concatenate([x, np.zeros((2, 1_000), np.float32)], axis=1)
    de_esser = DeEsser(s, RATE, 2)
    y = de_esser.process(padded)[:, de_esser.latency_frames :][:, : x.shape[1]]
    inner = slice(where.start + 480, where.stop - 480)
    return float(10 * np.log10(np.mean(y[:, inner].astype(float) ** 2) / np.mean(x[:, inner].astype(float) ** 2)))


def test_an_ess_goes_down_and_the_rest_stays() -> None:
    """By the range where it is far over the threshold; vowels, and a breath far under the voice, within 0.1 dB."""
    x, where = voice()
    down = change_db(S, x, where["ess"])
    assert -6.3 < down < -4.0, f"the ess moved by {down:.1f} dB"
    for part in ("vowel", "again", "breath"):
        assert abs(change_db(S, x, where[part])) < 0.1, f"{part} moved by {change_db(S, x, where[part]):.2f} dB"


def test_the_level_of_the_voice_does_not_matter() -> None:
    """20 dB lower the same ess goes down by as much."""
    x, where = voice()
    assert change_db(S, x, where["ess"]) == pytest.approx(change_db(S, x * np.float32(0.1), where["ess"]), abs=0.1)


def test_without_sibilants_it_is_a_wire() -> None:
    """No sample changes while nothing is over the threshold."""
    x, where = voice()
    x = (x[:, where["vowel"]] * np.minimum(np.arange(RATE // 2) / 960.0, 1.0)).astype(np.float32)
    de_esser = DeEsser(S, RATE, 2)
    late = de_esser.latency_frames
    assert np.array_equal(de_esser.process(x)[:, late:], x[:, :-late])
    assert de_esser.extreme_gain_db == 0.0


def test_a_real_voice_loses_its_sibilants_only(test_data: Path) -> None:
    """On clean speech: its loudest moments above 5.5 kHz fall by over 2 dB, all of it by less than 0.6 dB."""
    speech, rate = soundfile.read(test_data / "speech" / "dfn_clean_freesound_33711.wav", dtype="float32")
    x = np.tile(speech, (2, 1))
    de_esser = DeEsser(DeEsserSettings(5_500.0, -16.0, 6.0, -6.0), rate, 2)
    y = de_esser.process(np.concatenate([x, np.zeros((2, 1_000), np.float32)], axis=1))[:, de_esser.latency_frames :]
    y = y[:, : x.shape[1]]
    sos = signal.butter(4, 5_500.0, "highpass", fs=rate, output="sos")
    tops = [
        np.square(signal.sosfilt(sos, z[0])).reshape(-1)[: len(speech) // 480 * 480].reshape(-1, 480).mean(axis=1)
        for z in (x, y)
    ]
    loud = tops[0] >= np.percentile(tops[0], 98)
    fell = 10 * np.log10(tops[1][loud].mean() / tops[0][loud].mean())
    whole = 10 * np.log10(np.mean(y.astype(float) ** 2) / np.mean(x.astype(float) ** 2))
    assert fell < -2.0, f"sibilants fell by {fell:.1f} dB"
    assert abs(whole) < 0.6, f"the whole moved by {whole:.2f} dB"


def test_any_cut_gives_the_same_samples() -> None:
    """Bit-identical."""
    x, _ = voice()
    pieces = DeEsser(S, RATE, 2)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 30_000, 30_001], axis=1)], axis=1)
    assert np.array_equal(cut, DeEsser(S, RATE, 2).process(x))


@pytest.mark.parametrize("change", [{"ratio": 0.5}, {"range_db": 3.0}], ids=str)
def test_wrong_numbers_are_refused(change: dict[str, float]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(change))):
        DeEsserSettings(**change)
