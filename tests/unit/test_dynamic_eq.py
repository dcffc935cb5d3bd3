"""The dynamic band: identity below its threshold, the wanted gain at its centre above."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outboard.audio.dynamic_eq import DynamicBand, DynamicBandSettings

RATE = 48_000
BAND = DynamicBandSettings(frequency_hertz=320.0, q=1.0, ratio=4.0, range_db=-4.0, threshold_db=-30.0)


def sine(hertz: float, level_dbfs: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return np.tile(10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hertz * t), (2, 1)).astype(np.float32)


def gain_db(before: np.ndarray, after: np.ndarray) -> float:
    tail = slice(-9_600, None)
    return float(
        10 * np.log10(np.mean(after[:, tail].astype(float) ** 2) / np.mean(before[:, tail].astype(float) ** 2))
    )


def test_below_its_threshold_it_is_a_wire() -> None:
    """Not one sample changes while the band is quiet."""
    x = sine(320.0, -60.0)
    assert np.array_equal(DynamicBand(BAND, RATE, 2).process(x), x)


@pytest.mark.parametrize("range_db", [-4.0, -2.0, 3.0])
def test_far_above_it_reaches_its_range_at_the_centre(range_db: float) -> None:
    """Cut or lift at the centre is the range within 0.1 dB, and far away from the band next to nothing."""
    band = DynamicBand(dataclasses.replace(BAND, range_db=range_db), RATE, 2)
    x = sine(320.0, -3.0)
    heard = gain_db(x, band.process(x))
    assert abs(heard - range_db) < 0.1, f"{heard:.2f} dB at the centre instead of {range_db} dB"
    assert abs(band.extreme_gain_db - range_db) < 0.05
    far = sine(8_000.0, -3.0)
    heard = gain_db(far, DynamicBand(dataclasses.replace(BAND, range_db=range_db), RATE, 2).process(far))
    assert abs(heard) < 0.1, f"{heard:.2f} dB at 8 kHz"


def test_relative_threshold_does_not_care_about_level() -> None:
    """Congestion is a matter of balance: the same mixture 20 dB lower is cut by the same amount."""
    s = dataclasses.replace(BAND, relative_threshold_db=-10.0)
    x = sine(320.0, -12.0) + sine(5_000.0, -20.0)
    loud, soft = DynamicBand(s, RATE, 2), DynamicBand(s, RATE, 2)
    loud.process(x)
    soft.process(x * np.float32(0.1))
    assert loud.average_gain_db < -2.0
    assert abs(loud.average_gain_db - soft.average_gain_db) < 0.1, (loud.average_gain_db, soft.average_gain_db)


def test_relative_threshold_leaves_a_balanced_signal_alone() -> None:
    """A band that carries little of the whole is not touched, however loud all of it is."""
    s = dataclasses.replace(BAND, relative_threshold_db=-10.0)
    x = sine(320.0, -30.0) + sine(5_000.0, -3.0)
    band = DynamicBand(s, RATE, 2)
    band.process(sine(5_000.0, -3.0)[:, :4_800])
    assert abs(gain_db(x, band.process(x))) < 0.01


def test_external_key_drives_it() -> None:
    """Another signal's level in the band moves this one's."""
    x, key = sine(320.0, -50.0), sine(320.0, -3.0)
    assert abs(gain_db(x, DynamicBand(BAND, RATE, 2).process(x, key)) + 4.0) < 0.1


def test_any_cut_gives_the_same_samples() -> None:
    """Blocks of any size are bit-identical."""
    x = np.random.default_rng(5).standard_normal((2, 12_000)).astype(np.float32)
    s = dataclasses.replace(BAND, relative_threshold_db=-15.0)
    pieces = DynamicBand(s, RATE, 2)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 2, 999, 8_192], axis=1)], axis=1)
    assert np.array_equal(DynamicBand(s, RATE, 2).process(x), cut)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(np.float32, (2, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    st.sampled_from([None, -10.0]),
)
def test_finite_stays_finite(x: np.ndarray, relative: float | None) -> None:
    """Any finite input gives finite output."""
    band = DynamicBand(dataclasses.replace(BAND, relative_threshold_db=relative, range_db=12.0), RATE, 2)
    assert np.all(np.isfinite(band.process(x)))


@pytest.mark.parametrize("change", [{"ratio": 0.5}, {"shape": "notch"}], ids=str)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    """What makes no sense is refused when it is set."""
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(BAND, **change)
