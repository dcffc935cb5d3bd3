"""Mid and side, width, the field by bands, and their meters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outboard.audio.stereo import (
    PanLaw,
    StereoFieldBand,
    StereoFieldFilter,
    StereoMeter,
    Width,
    WidthSettings,
    left_right,
    mid_side,
    pan_gains,
)

RATE = 48_000


def noise(seed: int, frames: int = RATE) -> np.ndarray:
    """Independent channels."""
    return (0.2 * np.random.default_rng(seed).standard_normal((2, frames))).astype(np.float32)


def ratio_db(x: np.ndarray) -> float:
    meter = StereoMeter()
    meter.process(x)
    assert meter.mid_side_ratio_db is not None
    return meter.mid_side_ratio_db


def test_mid_side_and_back_is_the_same() -> None:
    """Encoding and decoding round-trips within rounding."""
    x = noise(1)
    assert np.allclose(left_right(mid_side(x)), x, atol=1e-12)


def test_default_width_is_exact() -> None:
    """A width stage that does nothing hands the same block on."""
    x = noise(2)
    assert Width(WidthSettings(), RATE).process(x) is x


@pytest.mark.parametrize("gain", [0.0, 0.5, 1.4])
def test_width_scales_the_side_and_keeps_the_mono_sum(gain: float) -> None:
    """Mono listeners hear the same whatever the width."""
    x = noise(3)
    y = Width(WidthSettings(side_gain=gain), RATE).process(x)
    assert np.allclose(x.sum(axis=0), y.sum(axis=0), atol=1e-6)
    assert np.allclose(mid_side(y)[1], gain * mid_side(x)[1], atol=1e-6)


def test_mono_bass_has_no_side_below_the_corner() -> None:
    """Side energy two octaves under the corner falls by 24 dB, far above it stays."""
    t = np.arange(RATE) / RATE
    for hertz, low, high in ((25.0, -100.0, -23.0), (2_000.0, -0.1, 0.1)):
        side = np.sin(2 * np.pi * hertz * t)
        y = mid_side(
            Width(WidthSettings(mono_below_hertz=100.0), RATE).process(np.stack([side, -side]).astype(np.float32))
        )[1]
        gain = 10 * np.log10(np.mean(y[RATE // 2 :] ** 2) / np.mean(side[RATE // 2 :] ** 2))
        assert low < gain < high, f"{gain:.1f} dB at {hertz} Hz"


def test_field_centres_a_leaning_band_and_leaves_the_rest() -> None:
    """A band that plays on the left only is brought to the middle; the mid signal is untouched everywhere."""
    t = np.arange(RATE) / RATE
    x = np.zeros((2, RATE), np.float32)
    x[0] = 0.4 * np.sin(2 * np.pi * 1_000 * t)
    x += (0.3 * np.sin(2 * np.pi * 6_000 * t)).astype(np.float32) * np.array([[1.0], [0.2]], np.float32)
    field = StereoFieldFilter((StereoFieldBand(500.0, 2_000.0, recentre=1.0),), RATE)
    y = np.concatenate([field.process(x), field.process(np.zeros((2, field.latency_frames), np.float32))], axis=1)
    y = y[:, field.latency_frames :]
    assert np.allclose(mid_side(y)[0], mid_side(x)[0], atol=1e-6)
    inner = slice(4_800, -4_800)
    window = np.hanning(RATE - 9_600)
    before, after = (np.abs(np.fft.rfft(mid_side(z)[1][inner] * window)) for z in (x, y))
    hertz = np.fft.rfftfreq(RATE - 9_600, 1 / RATE)
    at_1k, at_6k = (int(np.argmin(np.abs(hertz - f))) for f in (1_000, 6_000))
    assert 20 * np.log10(after[at_1k] / before[at_1k]) < -40.0
    assert abs(20 * np.log10(after[at_6k] / before[at_6k])) < 0.05


def test_field_narrows_a_band_by_its_gain() -> None:
    """Side energy within the band falls by the side gain."""
    x = noise(4)
    field = StereoFieldFilter((StereoFieldBand(1.0, 24_000.0, side_gain=0.5),), RATE)
    y = field.process(x)
    assert abs(ratio_db(y) - ratio_db(x) + 6.02) < 0.1


def test_any_cut_of_the_field_gives_the_same_within_rounding() -> None:
    """FFT sizes follow the blocks, so equality is to -130 dBFS; the console's own blocks are fixed."""
    x = noise(5, 20_000)
    bands = (StereoFieldBand(200.0, 900.0, 0.6, 0.2), StereoFieldBand(2_000.0, 9_000.0, 0.8, -0.1))
    whole = StereoFieldFilter(bands, RATE).process(x)
    pieces = StereoFieldFilter(bands, RATE)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 700, 5_000], axis=1)], axis=1)
    assert np.max(np.abs(whole - cut)) < 3e-7


def test_meter_reads_known_signals() -> None:
    """Mono, antiphase, independent and one-sided signals read as what they are."""
    x = noise(6)
    meters = {}
    for name, z in {
        "mono": x[[0, 0]],
        "anti": x[[0, 0]] * np.array([[1], [-1]]),
        "wide": x,
        "left": x * np.array([[1], [0]]),
    }.items():
        meters[name] = StereoMeter()
        meters[name].process(z)
    assert meters["mono"].correlation == pytest.approx(1.0)
    assert meters["anti"].correlation == pytest.approx(-1.0)
    assert meters["wide"].correlation == pytest.approx(0.0, abs=0.02)
    assert meters["wide"].mid_side_ratio_db == pytest.approx(0.0, abs=0.2)
    assert meters["mono"].mid_side_ratio_db < -100.0
    assert meters["left"].correlation is None
    assert StereoMeter().mid_side_ratio_db is None


def test_pan_is_unity_in_the_middle() -> None:
    """A balance: nothing changes in the middle, the far side is silent at the edge."""
    assert pan_gains(0.0) == (1.0, 1.0)
    assert pan_gains(-1.0) == (1.0, 0.0)
    assert pan_gains(1.0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="pan"):
        pan_gains(1.1)
    with pytest.raises(ValueError, match="no pan law 'linear'"):
        pan_gains(0.5, "linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("law", ["balance", "constant_power", "constant_sum"])
def test_pan_laws_keep_what_they_are_named_after(law: PanLaw) -> None:
    """Unity in the middle, silence on the far side of an edge, left and right alike; one power, or one sum."""
    assert pan_gains(0.0, law) == (1.0, 1.0)
    assert pan_gains(-1.0, law)[1] == pan_gains(1.0, law)[0] == 0.0
    for pan in np.linspace(-1.0, 1.0, 21):
        left, right = pan_gains(float(pan), law)
        assert (right, left) == pytest.approx(pan_gains(-float(pan), law))
        if law == "constant_power":
            assert left**2 + right**2 == pytest.approx(2.0)
        elif law == "constant_sum":
            assert left + right == pytest.approx(2.0)
        else:
            assert max(left, right) == 1.0


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (2, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_finite_stays_finite(x: np.ndarray) -> None:
    """Any finite input gives finite output."""
    assert np.all(np.isfinite(Width(WidthSettings(1.4, 100.0, 0.3), RATE).process(x)))


@pytest.mark.parametrize(
    "make",
    [lambda: WidthSettings(side_gain=1.5), lambda: WidthSettings(balance=2.0), lambda: StereoFieldBand(500, 100)],
)
def test_settings_out_of_range_are_refused(make: object) -> None:
    """What makes no sense is refused when it is set."""
    with pytest.raises(ValueError, match=r"must|needs"):
        make()  # type: ignore[operator]
