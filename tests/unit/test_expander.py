"""The downward expander: its static curve, its times, its hold."""

from __future__ import annotations

import numpy as np
import pytest

from outboard.audio.expander import Expander, ExpanderSettings

RATE = 48_000


def tone(level_dbfs: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return np.tile(np.sqrt(2) * 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 1_000 * t), (2, 1)).astype(np.float32)


def level_db(x: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(x.astype(np.float64) ** 2)))


@pytest.mark.parametrize("ratio", [1.5, 2.0, 10.0])
@pytest.mark.parametrize("level", [-20.0, -30.0, -36.0, -45.0, -60.0])
def test_the_static_curve(ratio: float, level: float) -> None:
    """Within 0.1 dB of the formula, range included."""
    x = tone(level)
    y = Expander(ExpanderSettings(-30.0, ratio, -18.0), RATE, 2).process(x)
    wanted = max(-18.0, (ratio - 1.0) * (level + 30.0)) if level < -30.0 else 0.0
    found = level_db(y[:, -9_600:]) - level_db(x[:, -9_600:])
    assert abs(found - wanted) < 0.1, f"{found:.2f} dB instead of {wanted:.2f} dB"


def test_above_its_threshold_it_is_a_wire() -> None:
    """Once it is open not one sample changes."""
    x = tone(-10.0)
    y = Expander(ExpanderSettings(-30.0, 4.0), RATE, 2).process(x)
    assert np.array_equal(y[:, 9_600:], x[:, 9_600:])


def test_it_holds_then_closes_with_its_time_constant() -> None:
    """Open for the hold after the end of the sound, then 63 % of the way in the release, within 5 %."""
    s = ExpanderSettings(-30.0, 100.0, -20.0, attack_ms=0.0, hold_ms=100.0, release_ms=80.0)
    gate = Expander(s, RATE, 1)
    key = tone(-10.0, 0.5)[:1]
    x = np.full((1, 2 * RATE), 0.1, np.float32)
    silent = np.concatenate([key, np.zeros((1, 2 * RATE - key.shape[1]), np.float32)], axis=1)
    gains = 20.0 * np.log10(gate.process(x, silent)[0] / 0.1 + 1e-9)
    end = key.shape[1]
    assert np.all(gains[end // 2 : end + int(0.1 * RATE)] > -0.01), "closed during the hold"
    falls = np.flatnonzero(gains[end:] < -1e-3)[0]
    reached = np.flatnonzero(gains[end:] < -20.0 * (1.0 - np.exp(-1.0)))[0]
    found = (reached - falls) / RATE * 1_000.0
    assert abs(found / 80.0 - 1.0) < 0.05, f"{found:.1f} ms"


def test_it_opens_ahead_of_the_sound() -> None:
    """With look-ahead the first sample of a stroke passes open, at the latency that it states."""
    gate = Expander(ExpanderSettings(-30.0, 100.0, -60.0, attack_ms=0.5, lookahead_ms=10.0), RATE, 2)
    assert gate.latency_frames == 480
    x = np.concatenate([np.zeros((2, RATE), np.float32), tone(-10.0, 0.2)], axis=1)
    y = gate.process(x)
    assert np.allclose(y[:, RATE + 480 : RATE + 960], x[:, RATE : RATE + 480], rtol=0.01, atol=1e-4)


def test_any_cut_gives_the_same_samples() -> None:
    """Bit-identical."""
    x = (0.05 * np.random.default_rng(1).standard_normal((2, 9_000))).astype(np.float32)
    s = ExpanderSettings(-26.0, 4.0, lookahead_ms=3.0, hold_ms=2.0)
    pieces = Expander(s, RATE, 2)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 77, 5_000], axis=1)], axis=1)
    assert np.array_equal(cut, Expander(s, RATE, 2).process(x))


@pytest.mark.parametrize("change", [{"ratio": 0.5}, {"range_db": 3.0}], ids=str)
def test_wrong_numbers_are_refused(change: dict[str, float]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(change))):
        ExpanderSettings(**({"threshold_db": -30.0} | change))
