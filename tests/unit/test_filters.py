"""Filters against the closed forms they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outboard.audio import filters

RATES = (44_100, 48_000, 96_000)


def measured_db(sos: np.ndarray, frequencies: np.ndarray, rate: int) -> np.ndarray:
    """Response of the running filter: DFT of its impulse response at the given frequencies."""
    impulse = np.zeros((2, 1 << 16))
    impulse[:, 0] = 1.0
    out = filters.SosFilter(sos, 2).process(impulse)
    assert np.array_equal(out[0], out[1]), "both channels go through the same filter"
    phases = np.exp(-2j * np.pi * np.outer(frequencies / rate, np.arange(out.shape[1])))
    return 20 * np.log10(np.maximum(np.abs(phases @ out[0]), 1e-12))


def analogue_db(
    numerator: list[float], denominator: list[float], frequencies: np.ndarray, f0: float, rate: int
) -> np.ndarray:
    """Prototype H(s) at the frequencies that the bilinear transform maps to."""
    s = 1j * np.tan(np.pi * frequencies / rate) / np.tan(np.pi * f0 / rate)
    return 20 * np.log10(np.abs(np.polyval(numerator, s) / np.polyval(denominator, s)))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    ("f0", "gain_db", "q"), [(100.0, 6.0, 0.7), (316.0, -4.0, 1.05), (1_000.0, 12.0, 4.0), (12_000.0, -9.0, 1.0)]
)
def test_peaking_and_shelves_are_within_a_tenth_of_a_db_of_their_closed_form(
    rate: int, f0: float, gain_db: float, q: float
) -> None:
    """RBJ: the digital response is the analogue prototype's at the prewarped frequency, at every rate."""
    frequencies = np.geomspace(20.0, 0.45 * rate, 60)
    a = 10 ** (gain_db / 40)
    root = np.sqrt(a)
    cases = {
        "peaking": (filters.peaking(f0, gain_db, q, rate), [1, a / q, 1], [1, 1 / (a * q), 1]),
        "low_shelf": (filters.low_shelf(f0, gain_db, rate, q), [a, a * root / q, a * a], [a, root / q, 1]),
        "high_shelf": (filters.high_shelf(f0, gain_db, rate, q), [a * a, a * root / q, a], [1, root / q, a]),
        "band_pass": (filters.band_pass(f0, q, rate), [1 / q, 0], [1, 1 / q, 1]),
    }
    for name, (sos, numerator, denominator) in cases.items():
        error = np.max(
            np.abs(measured_db(sos, frequencies, rate) - analogue_db(numerator, denominator, frequencies, f0, rate))
        )
        assert error < 0.1, f"{name} at {f0} Hz, {rate} Hz: {error:.4f} dB off its closed form"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("order", [1, 2, 4, 8])
def test_butterworth_is_minus_3_db_at_cutoff(rate: int, order: int) -> None:
    """-3.01 dB at the cutoff whatever the order, and the closed form everywhere."""
    frequencies = np.geomspace(30.0, 0.45 * rate, 40)
    for cutoff in (100.0, 1_000.0):
        warped = np.tan(np.pi * frequencies / rate) / np.tan(np.pi * cutoff / rate)
        for name, design, powers in (
            ("high", filters.butterworth_high_pass, warped ** (-2 * order)),
            ("low", filters.butterworth_low_pass, warped ** (2 * order)),
        ):
            sos = design(cutoff, rate, order)
            at_cutoff = measured_db(sos, np.array([cutoff]), rate)[0]
            assert abs(at_cutoff + 3.0103) < 0.01, f"{name}-pass of order {order}: {at_cutoff:.3f} dB at {cutoff} Hz"
            wanted = -10 * np.log10(1 + powers)
            heard = wanted > -100
            error = np.max(np.abs(measured_db(sos, frequencies, rate) - wanted)[heard])
            assert error < 0.1, f"{name}-pass of order {order} at {cutoff} Hz: {error:.4f} dB off"


@pytest.mark.parametrize("rate", RATES)
def test_crossover_sums_flat(rate: int) -> None:
    """Bands of a Linkwitz-Riley crossover add up to gain 1 within 0.05 dB, each -6 dB at its own edge."""
    edges = (120.0, 800.0, 5_000.0)
    impulse = np.zeros((1, 1 << 16))
    impulse[0, 0] = 1.0
    bands = filters.Crossover(edges, rate, 1).process(impulse)
    spectrum = 20 * np.log10(np.abs(np.fft.rfft(np.sum(bands, axis=0)[0]))[1:])
    assert np.max(np.abs(spectrum)) < 0.05, f"sum is off by {np.max(np.abs(spectrum)):.4f} dB"
    low, high = filters.linkwitz_riley(edges[1], rate)
    for sos in (low, high):
        assert abs(filters.response_db(sos, np.array([edges[1]]), rate)[0] + 6.0206) < 0.01


def test_response_agrees_with_the_running_filter() -> None:
    """`response_db` says what the filter does."""
    frequencies = np.geomspace(20, 20_000, 50)
    sos = np.concatenate([filters.peaking(3_000, 5, 2, 48_000), filters.butterworth_high_pass(80, 48_000, 4)])
    assert np.allclose(filters.response_db(sos, frequencies, 48_000), measured_db(sos, frequencies, 48_000), atol=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_cut_gives_the_same_samples(channels: int) -> None:
    """State is carried on: blocks of any size give bit-identical output."""
    x = np.random.default_rng(1).standard_normal((channels, 10_000)).astype(np.float32)
    sos = np.concatenate([filters.peaking(300, -4, 1, 48_000), filters.low_shelf(100, 3, 48_000)])
    whole = filters.SosFilter(sos, channels).process(x)
    cut = filters.SosFilter(sos, channels)
    pieces = np.concatenate([cut.process(p) for p in np.split(x, [1, 2, 700, 701, 4_096, 9_999], axis=1)], axis=1)
    assert whole.dtype == np.float32
    assert np.array_equal(whole, pieces)


def test_no_section_passes_the_signal_on_exactly() -> None:
    """An empty cascade is a wire."""
    x = np.random.default_rng(2).standard_normal((2, 500)).astype(np.float32)
    assert np.array_equal(filters.SosFilter(np.empty((0, 6)), 2).process(x), x)


def test_tail_ends_in_zero_and_not_in_denormals() -> None:
    """After an impulse the output becomes exactly zero; nothing subnormal ever comes out."""
    x = np.zeros((2, 400_000))
    x[:, 0] = 1.0
    y = filters.SosFilter(filters.butterworth_low_pass(200, 48_000), 2).process(x)
    assert np.all(y[:, -1_000:] == 0.0)
    assert not np.any((y != 0) & (np.abs(y) < np.finfo(np.float64).tiny))


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.float32, (2, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_finite_stays_finite(x: np.ndarray) -> None:
    """Any finite float32 input gives finite output, without a warning."""
    y = filters.SosFilter(filters.peaking(1_000, 24, 0.5, 48_000), 2).process(x)
    assert np.all(np.isfinite(y))


@pytest.mark.parametrize("order", [0, 1, 2, 3, 6])
def test_crossover_orders_that_do_not_sum_are_refused(order: int) -> None:
    """Only multiples of four sum without inverting a side."""
    with pytest.raises(ValueError, match="order"):
        filters.linkwitz_riley(1_000, 48_000, order)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_a_notch_removes_its_frequency_and_nothing_far_from_it(rate: int) -> None:
    """Nothing at the centre, -3 dB at the edges that its quality factor gives, unity far away."""
    centre, q = 1_000.0, 5.0
    sos = filters.notch(centre, q, rate)
    at_centre, far_below, far_above = filters.response_db(sos, np.array([centre, 20.0, 15_000.0]), rate)
    assert at_centre < -100.0, f"{at_centre:.0f} dB at the centre"
    assert abs(far_below) < 0.01
    assert abs(far_above) < 0.01
    # The bilinear transform moves the edges by a hair.
    half = 0.5 / q
    edges = centre * (np.sqrt(1.0 + half * half) + np.array([-half, half]))
    got = filters.response_db(sos, edges, rate)
    assert np.allclose(got, -3.01, atol=0.15), f"{got} dB at the edges"
