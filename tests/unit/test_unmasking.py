"""The unmasker: cuts where and while the other sound is covered, by no more than its range, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from outboard.audio.erb import erb_hertz, erb_number
from outboard.audio.unmasking import LOWEST_HERTZ, Unmasker, UnmaskerSettings, wanted_gains_db

RATE = 48_000
S = UnmaskerSettings(begins_db=-9.0, ends_db=16.0, range_db=-4.0)


def noise(seed: int, level: float, seconds: float = 1.5) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal((2, int(seconds * RATE)))).astype(np.float32)


def tone(hertz: float, level_dbfs: float, seconds: float = 1.5, rate: int = RATE) -> np.ndarray:
    """A sine of that RMS level on both channels."""
    wave = math.sqrt(2.0) * np.sin(2.0 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return np.tile((10.0 ** (level_dbfs / 20.0) * wave).astype(np.float32), (2, 1))


def compensated(s: UnmaskerSettings, x: np.ndarray, key: np.ndarray, rate: int = RATE) -> np.ndarray:
    """All of the sound, the latency taken out."""
    made = Unmasker(s, rate, 2)
    padding = np.zeros((2, made.latency_frames), np.float32)
    return made.process(*(np.concatenate([one, padding], axis=1) for one in (x, key)))[:, made.latency_frames :]


def spectrum_db(x: np.ndarray) -> np.ndarray:
    """Mean power of frames of 85 ms, in the settled middle."""
    frames = x[0, RATE // 2 : RATE // 2 + 8 * 4_096].reshape(8, 4_096) * np.hanning(4_096)
    return 10.0 * np.log10(np.mean(np.abs(np.fft.rfft(frames)) ** 2, axis=0) + 1e-20)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
@pytest.mark.parametrize(
    ("over_db", "gain_db"),
    [(-20.0, 0.0), (-7.0, -2.0), (-5.0, -4.0), (0.0, -4.0), (12.0, -4.0), (14.0, -2.0), (25.0, 0.0)],
)
def test_the_curve_is_met_by_a_tone_over_a_tone(rate: int, over_db: float, gain_db: float) -> None:
    """At a band's centre the settled gain is the curve's within 0.3 dB: clear and buried sounds are left alone."""
    centre = erb_hertz(erb_number(LOWEST_HERTZ) + 14.5)
    x, key = tone(centre, -30.0 + over_db, rate=rate), tone(centre, -30.0, rate=rate)
    y = compensated(S, x, key, rate)
    settled = slice(int(0.7 * rate), int(1.3 * rate))
    found = 10.0 * math.log10(float(np.mean(y[0, settled] ** 2.0) / np.mean(x[0, settled] ** 2.0)))
    assert found == pytest.approx(gain_db, abs=0.3), f"{found:.2f} dB at {over_db:+.0f} dB over the sidechain"


def test_no_frequency_is_cut_further_than_the_range() -> None:
    """Every band acts at once, under white noise over white noise: 4 dB everywhere, and never more."""
    x, key = noise(1, 0.1), noise(2, 0.1)
    change = spectrum_db(compensated(S, x, key)) - spectrum_db(x)
    hertz = np.fft.rfftfreq(4_096, 1.0 / RATE)
    inside = change[(hertz > 100.0) & (hertz < 15_000.0)]
    assert inside.min() > -4.05, f"{inside.min():.2f} dB"
    assert inside.mean() < -3.5, f"{inside.mean():.2f} dB"


def test_only_the_bands_of_the_sidechain_move() -> None:
    """A tone clears its own band of noise and those beside it; two octaves away nothing changes by 0.1 dB."""
    x, key = noise(3, 0.1), tone(1_000.0, -45.0)
    change = spectrum_db(compensated(S, x, key)) - spectrum_db(x)
    hertz = np.fft.rfftfreq(4_096, 1.0 / RATE)
    assert change[(hertz > 900.0) & (hertz < 1_100.0)].min() < -3.3
    assert np.abs(change[(hertz < 250.0) | (hertz > 4_000.0)]).max() < 0.1


def test_edges_leave_the_rest_alone() -> None:
    """Nothing is cut below `low_hertz` and above `high_hertz`, but for half a band."""
    x, key = noise(4, 0.1), noise(5, 0.1)
    s = UnmaskerSettings(low_hertz=500.0, high_hertz=2_000.0)
    change = spectrum_db(compensated(s, x, key)) - spectrum_db(x)
    hertz = np.fft.rfftfreq(4_096, 1.0 / RATE)
    assert np.abs(change[(hertz < 400.0) | (hertz > 2_500.0)]).max() < 0.1
    assert change[(hertz > 600.0) & (hertz < 1_700.0)].mean() < -3.5


def test_it_stops_when_the_sidechain_does() -> None:
    """Before the sidechain plays and 0.4 s after it every sample is the input's; silence in it changes none at all."""
    x, key = noise(6, 0.1, 2.0), noise(7, 0.1, 2.0)
    key[:, : RATE // 2] = 0.0
    key[:, RATE:] = 0.0
    y = compensated(S, x, key)
    still = np.r_[0 : RATE // 2 - 2_048, RATE + 20_000 : 2 * RATE]
    assert np.array_equal(y[:, still], x[:, still])
    assert not np.array_equal(y[:, RATE // 2 : RATE], x[:, RATE // 2 : RATE])
    assert np.array_equal(compensated(S, x, np.zeros_like(x)), x)


def test_any_cut_gives_the_same_bytes() -> None:
    """Frames lie where they lie, whatever the blocks."""
    x, key = noise(8, 0.1), noise(9, 0.1)
    pieces = Unmasker(S, RATE, 2)
    cuts = np.split(np.arange(x.shape[1]), [1, 700, 701, 40_000])
    cut = np.concatenate([pieces.process(x[:, at], key[:, at]) for at in cuts], axis=1)
    assert np.array_equal(cut, Unmasker(S, RATE, 2).process(x, key))


def test_gains_are_told() -> None:
    """Mean of the band that moves most while the sidechain plays, and the furthest."""
    made = Unmasker(S, RATE, 2)
    made.process(noise(10, 0.1), noise(11, 0.1))
    assert -4.0 <= made.average_gain_db < -2.0
    assert made.extreme_gain_db == pytest.approx(-4.0, abs=0.01)


def test_the_curve_by_itself() -> None:
    """One dB for each over the beginning, to the range, and back again; bands that nobody listens to stay."""
    key = np.tile(np.array([[-20.0, -20.0, -20.0, -20.0, -55.0]]), (2, 1))
    key[1] -= 60.0
    own = np.array([[-30.0, -28.0, -20.0, -2.0, -55.0]] * 2)
    assert wanted_gains_db(own, key, S)[0].tolist() == [0.0, -1.0, -4.0, 0.0, 0.0]
    assert not wanted_gains_db(own, key, S)[1].any(), "a sidechain under its threshold does not play"


@pytest.mark.parametrize(
    "change", [{"range_db": 1.0}, {"begins_db": 16.0}, {"low_hertz": 500.0, "high_hertz": 400.0}], ids=str
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    """Each with the value and what is allowed."""
    with pytest.raises(ValueError, match=str(int(max(change.values())))):
        UnmaskerSettings(**change)
