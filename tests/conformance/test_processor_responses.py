"""Frequency responses of every processor within 0.1 dB of their closed (digital) form, at 44.1, 48 and 96 kHz.

Closed forms are written out here once more, from the papers and not from the code: the analogue prototypes of the RBJ
cookbook at the frequency that the bilinear transform maps to, Butterworth's magnitude, one-pole filters, the weights of
a cubic Hermite curve.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import hilbert

from outboard.audio.chain import curve_taps
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    BandExtender,
    Chorus,
    CurvePoint,
    DeEsser,
    Delay,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    LinearPhaseEqualizer,
    MinimumPhaseEqualizer,
    MultibandCompressor,
    Reverb,
    Saturator,
    StereoField,
    StereoWidth,
)
from outboard.audio.reverb import ReverbKindName
from outboard.audio.stereo import StereoFieldBand
from tests.processors import (
    AT_ALL_RATES,
    IMPULSE_FRAMES,
    TOLERANCE_DB,
    compensated,
    response_db,
    settled_gain_db,
    tone,
)

SHAPES = [
    FilterBand("peak", 80.0, 12.0, 2.0),
    FilterBand("peak", 1_000.0, -6.0, 0.7),
    FilterBand("peak", 15_000.0, 4.0, 1.0),
    FilterBand("low_shelf", 120.0, 6.0, 0.7071),
    FilterBand("high_shelf", 8_000.0, -9.0, 0.7071),
    FilterBand("notch", 1_000.0, q=3.0),
    *(FilterBand("high_pass", 100.0, order=order) for order in (1, 2, 4, 8)),
    *(FilterBand("low_pass", 12_000.0, order=order) for order in (1, 3, 8)),
]


def closed_form_db(band: FilterBand, rate: int, hertz: np.ndarray) -> np.ndarray:
    """Magnitude of the analogue prototype at the frequency that the bilinear transform maps to."""
    omega = np.tan(np.pi * hertz / rate) / np.tan(np.pi * band.frequency_hertz / rate)
    s, a, q = 1j * omega, 10.0 ** (band.gain_db / 40.0), band.q
    root = math.sqrt(a) / q
    if band.shape == "peak":
        h = (s * s + s * a / q + 1.0) / (s * s + s / (a * q) + 1.0)
    elif band.shape == "low_shelf":
        h = a * (s * s + root * s + a) / (a * s * s + root * s + 1.0)
    elif band.shape == "high_shelf":
        h = a * (a * s * s + root * s + 1.0) / (s * s + root * s + a)
    elif band.shape == "notch":
        h = (s * s + 1.0) / (s * s + s / q + 1.0)
    else:
        power = omega ** (2 * band.order if band.shape == "low_pass" else -2 * band.order)
        h = 1.0 / np.sqrt(1.0 + power)
    return 20.0 * np.log10(np.maximum(np.abs(h), 1e-12))


@AT_ALL_RATES
@pytest.mark.parametrize("band", SHAPES, ids=lambda band: f"{band.shape}-{band.frequency_hertz:.0f}-{band.order}")
def test_filters_are_within_a_tenth_of_a_db_of_their_closed_form(band: FilterBand, rate: int) -> None:
    """From 20 Hz to 0.45 of the rate, as far down as 80 dB."""
    hertz = np.geomspace(20.0, 0.45 * rate, 400)
    wanted = closed_form_db(band, rate, hertz)
    heard = wanted > -80.0
    if band.shape == "notch":
        heard &= np.abs(np.log2(hertz / band.frequency_hertz)) > 0.02  # the bins of the measurement are too wide there
    worst = float(np.max(np.abs(response_db(Equalizer((band,)), rate, hertz) - wanted)[heard]))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off"


@AT_ALL_RATES
def test_linear_phase_curves_are_within_a_tenth_of_a_db(rate: int) -> None:
    """Of the DFT of their own taps everywhere, and of the curve that was drawn at its points and ends; the phase is
    a pure delay, which the chain takes out.
    """
    points = tuple(CurvePoint(hertz, gain) for hertz, gain in ((60.0, -2.0), (600.0, 0.0), (5_000.0, 3.0)))
    kind = LinearPhaseEqualizer(points)
    hertz = np.geomspace(30.0, 0.45 * rate, 300)
    taps = curve_taps(kind, rate)
    own = np.interp(hertz, np.fft.rfftfreq(1 << 18, 1.0 / rate), np.abs(np.fft.rfft(taps, 1 << 18)))
    measured = response_db(kind, rate, hertz)
    worst = float(np.max(np.abs(measured - 20.0 * np.log10(own))))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off its taps"
    drawn = np.interp(np.log(hertz), np.log([p.frequency_hertz for p in points]), [p.gain_db for p in points])
    worst = float(np.max(np.abs(measured - drawn)))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off the curve"
    assert np.array_equal(taps, taps[::-1])


@AT_ALL_RATES
def test_minimum_phase_curves_are_within_a_tenth_of_a_db_and_ring_behind_only(rate: int) -> None:
    """Of the curve that was drawn; nothing comes before the impulse, and the phase is the least that this magnitude
    allows: the Hilbert transform of its logarithm.
    """
    points = tuple(CurvePoint(hertz, gain) for hertz, gain in ((60.0, -4.0), (600.0, 0.0), (5_000.0, 6.0)))
    hertz = np.geomspace(30.0, 0.45 * rate, 300)
    drawn = np.interp(np.log(hertz), np.log([p.frequency_hertz for p in points]), [p.gain_db for p in points])
    worst = float(np.max(np.abs(response_db(MinimumPhaseEqualizer(points), rate, hertz) - drawn)))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off the curve"
    sound = np.zeros((2, 40_000), np.float32)
    sound[:, 20_000] = 1.0
    early = compensated(MinimumPhaseEqualizer(points), rate, sound)[0]
    assert np.max(np.abs(early[:20_000])) < 1e-6
    assert int(np.argmax(np.abs(early))) == 20_000
    spectrum = np.fft.fft(early[20_000:].astype(np.float64), 1 << 18)
    least = -np.imag(hilbert(np.log(np.abs(spectrum))))
    off = np.angle(spectrum * np.exp(-1j * least))[: int(0.9 * (1 << 17))]
    assert np.max(np.abs(off)) < 0.01, f"{np.max(np.abs(off)):.3f} rad off"


@AT_ALL_RATES
@pytest.mark.parametrize("edges", [(200.0,), (120.0, 2_000.0), (80.0, 400.0, 2_500.0, 9_000.0)])
def test_crossovers_sum_within_a_twentieth_of_a_db(edges: tuple[float, ...], rate: int) -> None:
    """Two to five bands at rest, as the multiband compressor splits them."""
    rest = CompressorSettings(0.0, 1.0)
    kind = MultibandCompressor(tuple(CompressorBand(edge, rest) for edge in (*edges, 0.0)))
    worst = float(np.max(np.abs(response_db(kind, rate, np.geomspace(20.0, 0.45 * rate, 400)))))
    assert worst <= 0.05, f"{worst:.3f} dB"


@AT_ALL_RATES
@pytest.mark.parametrize(("hertz", "q", "range_db"), [(320.0, 1.0, -6.0), (4_000.0, 3.0, 4.0)])
def test_a_dynamic_band_at_its_range_is_a_bell(hertz: float, q: float, range_db: float, rate: int) -> None:
    """At the centre the gain is the range, and off it ``|1 + (g - 1) B|`` with the band-pass B of the cookbook."""
    kind = DynamicEqualizer((DynamicBandSettings(hertz, q, 100.0, range_db, threshold_db=-100.0, attack_ms=1.0),))
    gain = 10.0 ** (range_db / 20.0)
    for factor in (0.5, 0.8, 1.0, 1.3, 2.0):
        omega = np.tan(np.pi * factor * hertz / rate) / np.tan(np.pi * hertz / rate)
        s = 1j * omega
        wanted = 20.0 * math.log10(abs(1.0 + (gain - 1.0) * (s / q) / (s * s + s / q + 1.0)))
        got = settled_gain_db(kind, rate, tone(-20.0, factor * hertz, rate))
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {factor} of the centre"


# --- tops, sides, echoes ----------------------------------------------------------------------------------------------


def decibels(ratio: np.ndarray | complex | float) -> np.ndarray:
    return 20.0 * np.log10(np.maximum(np.abs(ratio), 1e-12))


def warped(hertz: np.ndarray | float, corner: float, rate: int) -> np.ndarray:
    """Frequency over corner, as the bilinear transform maps both."""
    return np.tan(np.pi * np.asarray(hertz) / rate) / math.tan(math.pi * corner / rate)


def spectra(kind: object, rate: int, left: float, right: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mid and side of what an impulse becomes, and the frequencies."""
    sound = np.zeros((2, IMPULSE_FRAMES), np.float32)
    sound[:, IMPULSE_FRAMES // 2] = left, right
    out = np.fft.rfft(compensated(kind, rate, sound).astype(np.float64))  # type: ignore[arg-type]
    return 0.5 * (out[0] + out[1]), 0.5 * (out[0] - out[1]), np.fft.rfftfreq(IMPULSE_FRAMES, 1.0 / rate)


@AT_ALL_RATES
@pytest.mark.parametrize("range_db", [-3.0, -12.0])
def test_a_de_esser_at_its_range_is_a_shelf(range_db: float, rate: int) -> None:
    """``(g s + 1) / (s + 1)`` with the corner that was asked for."""
    corner = 5_500.0
    kind = DeEsser(corner, -60.0, 100.0, range_db)
    gain = 10.0 ** (range_db / 20.0)
    for factor in (0.3, 0.6, 1.0, 1.7, 3.0):
        s = 1j * warped(factor * corner, corner, rate)
        wanted = float(decibels((gain * s + 1.0) / (s + 1.0)))
        got = settled_gain_db(kind, rate, tone(-20.0, factor * corner, rate))
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {factor} of the corner"


@AT_ALL_RATES
def test_width_is_butterworth_on_the_sides_and_nothing_on_the_mid(rate: int) -> None:
    """``side_gain`` times a 2nd-order high-pass; the mid of a mono sum stays as it is; a balance is a gain a side."""
    _, side, grid = spectra(StereoWidth(0.7, 120.0), rate, 1.0, -1.0)
    heard = (grid > 20.0) & (grid < 0.45 * rate)
    wanted = decibels(0.7 / np.sqrt(1.0 + warped(grid[heard], 120.0, rate) ** -4.0))
    worst = float(np.max(np.abs(decibels(side[heard]) - wanted)))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off"
    mid, side, _ = spectra(StereoWidth(0.7, 120.0), rate, 1.0, 1.0)
    assert np.max(np.abs(decibels(mid))) <= 1e-4
    assert np.max(np.abs(side)) <= 1e-6
    sound = tone(-20.0, 1_000.0, rate)
    out = compensated(StereoWidth(balance=-0.25), rate, sound)
    assert np.allclose(out, sound * np.array([[0.75], [1.0]], np.float32), atol=1e-7)


@AT_ALL_RATES
def test_a_stereo_field_has_the_gains_that_were_drawn(rate: int) -> None:
    """Sides by ``side_gain`` inside of a band, as they were outside; what leans is taken out of them by ``recentre``
    times the mid; the mid passes. At 250 Hz and more from an edge.
    """
    kind = StereoField((StereoFieldBand(1_000.0, 4_000.0, 0.5, 0.4), StereoFieldBand(6_000.0, 9_000.0, 1.3)))
    _, side, grid = spectra(kind, rate, 1.0, -1.0)
    mid, leant, _ = spectra(kind, rate, 1.0, 1.0)
    for low, high, gain, taken in (
        (30.0, 1_000.0, 1.0, 0.0), (1_000.0, 4_000.0, 0.5, 0.2), (4_000.0, 6_000.0, 1.0, 0.0),
        (6_000.0, 9_000.0, 1.3, 0.0), (9_000.0, 0.45 * rate, 1.0, 0.0),
    ):  # fmt: skip
        inside = (grid > low + 250.0) & (grid < high - 250.0)
        worst = float(np.max(np.abs(decibels(side[inside]) - decibels(gain))))
        assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off between {low:g} and {high:g} Hz"
        assert np.max(np.abs(np.abs(leant[inside]) - taken)) <= 0.0116 * max(taken, 0.1), "what leans is 0.1 dB off"
    assert np.max(np.abs(decibels(mid))) <= 1e-4


@AT_ALL_RATES
def test_a_copied_top_stands_at_its_gain_and_slope(rate: int) -> None:
    """A tone under the cutoff comes back ``shift`` higher, ``gain + slope * octaves over the cutoff`` against itself,
    and passes as it is.
    """
    kind = BandExtender(12_000.0, 4_000.0, -6.0, -18.0)
    frames = rate  # whole periods
    turns = np.arange(frames) / rate
    for hertz in (8_500.0, 10_000.0, 11_500.0):
        sound = tone(-20.0, hertz, rate, 2.0)
        out = compensated(kind, rate, sound)[0, rate // 2 : rate // 2 + frames].astype(np.float64)
        own = abs(sound[0, rate // 2 : rate // 2 + frames].astype(np.float64) @ np.exp(-2j * np.pi * hertz * turns))
        kept = float(decibels(abs(out @ np.exp(-2j * np.pi * hertz * turns)) / own))
        copied = float(decibels(abs(out @ np.exp(-2j * np.pi * (hertz + 4_000.0) * turns)) / own))
        wanted = -6.0 - 18.0 * math.log2((hertz + 4_000.0) / 12_000.0)
        assert abs(kept) <= TOLERANCE_DB, f"{kept:+.3f} dB at {hertz} Hz"
        assert copied == pytest.approx(wanted, abs=TOLERANCE_DB), f"{copied - wanted:+.3f} dB over {hertz} Hz"


@AT_ALL_RATES
def test_each_echo_goes_once_more_through_the_loop(rate: int) -> None:
    """The n-th repeat is ``(feedback * low-pass * high-pass) ** (n - 1)``, each a one-pole filter."""
    kind = Delay(250.0, 0.6, damping_hertz=4_000.0, low_cut_hertz=150.0)
    sound = np.zeros((2, 4 * rate // 4 + 1), np.float32)
    sound[:, 0] = 1.0
    out = compensated(kind, rate, sound)[0].astype(np.float64)
    late = round(0.25 * rate)
    grid = np.fft.rfftfreq(late, 1.0 / rate)
    heard = (grid > 40.0) & (grid < 0.45 * rate)
    z = np.exp(-2j * np.pi * grid / rate)
    low, high = (math.exp(-2.0 * math.pi * hertz / rate) for hertz in (4_000.0, 150.0))
    loop = 0.6 * (1.0 - low) / (1.0 - low * z) * (1.0 - (1.0 - high) / (1.0 - high * z))
    for turn in (1, 2, 3):
        measured = np.fft.rfft(out[turn * late : (turn + 1) * late])
        worst = float(np.max(np.abs(decibels(measured) - (turn - 1) * decibels(loop))[heard]))
        assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off in repeat {turn}"


@AT_ALL_RATES
def test_a_chorus_at_rest_is_a_comb(rate: int) -> None:
    """Without depth every copy is 8 ms late, read between the frames by a cubic Hermite curve."""
    hertz = np.geomspace(20.0, 0.45 * rate, 400)
    late = 8e-3 * rate
    t = late - int(late)
    z = np.exp(-2j * np.pi * hertz / rate)
    weights = (
        -0.5 * t + t * t - 0.5 * t**3, 1.0 - 2.5 * t * t + 1.5 * t**3,
        0.5 * t + 2.0 * t * t - 1.5 * t**3, -0.5 * t * t + 0.5 * t**3,
    )  # fmt: skip
    copy = sum(weight * z ** (int(late) - 1 + k) for k, weight in enumerate(weights))
    wanted = decibels(0.6 + 0.4 * copy)
    worst = float(np.max(np.abs(decibels(measured_at(Chorus(1.0, 0.0, 0.4), rate, hertz)) - wanted)))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off"


def measured_at(kind: object, rate: int, hertz: np.ndarray) -> np.ndarray:
    """Response to an impulse at these very frequencies: a comb has no straight lines between bins."""
    sound = np.zeros((2, rate // 8), np.float32)
    sound[:, 0] = 1.0
    out = compensated(kind, rate, sound)[0].astype(np.float64)  # type: ignore[arg-type]
    return np.exp(-2j * np.pi * np.outer(hertz, np.arange(out.size)) / rate) @ out


@AT_ALL_RATES
@pytest.mark.parametrize("kind", ["plate", "room", "chamber", "hall"])
def test_the_cuts_of_a_reverb_are_butterworth(kind: ReverbKindName, rate: int) -> None:
    """What comes back with cuts over what comes back without them; the room itself is the same in both."""
    cut = Reverb(kind, 0.3, low_cut_hertz=300.0, high_cut_hertz=5_000.0)
    open_ = Reverb(kind, 0.3, low_cut_hertz=1.0, high_cut_hertz=96_000.0)
    sound = np.zeros((2, IMPULSE_FRAMES), np.float32)
    sound[:, 0] = 1.0
    few, all_ = (np.fft.rfft(compensated(one, rate, sound)[0].astype(np.float64)) for one in (cut, open_))
    grid = np.fft.rfftfreq(IMPULSE_FRAMES, 1.0 / rate)
    heard = (grid > 30.0) & (grid < 0.4 * rate) & (np.abs(all_) > 0.03 * np.sqrt(np.mean(np.abs(all_) ** 2)))
    top = math.tan(math.pi * 0.4975)
    wanted = (
        -10.0 * np.log10(1.0 + warped(grid[heard], 300.0, rate) ** -4.0)
        - 10.0 * np.log10(1.0 + warped(grid[heard], 5_000.0, rate) ** 4.0)
        + 10.0 * np.log10(1.0 + (np.tan(np.pi * grid[heard] / rate) / top) ** 4.0)
    )
    audible = wanted > -60.0
    worst = float(np.max(np.abs(decibels(few[heard] / all_[heard]) - wanted)[audible]))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB off"


@AT_ALL_RATES
@pytest.mark.parametrize("curve", ["tanh", "tape", "tube", "clip"])
def test_a_saturator_leaves_quiet_sound_flat(curve: str, rate: int) -> None:
    """At -60 dBFS, within 0.1 dB from 20 Hz to 0.45 of the rate: the curve has slope 1, the dry path no filter."""
    measured = response_db(Saturator(curve, 6.0), rate, np.geomspace(20.0, 0.45 * rate, 300), 1e-3)  # type: ignore[arg-type]
    worst = float(np.max(np.abs(measured)))
    assert worst <= TOLERANCE_DB, f"{worst:.3f} dB"
