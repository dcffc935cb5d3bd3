"""Every processor of the console against theory, through the chain that renders plans, at 44.1, 48 and 96 kHz.

Closed forms are written out here once more, from the papers and not from the code: the analogue prototypes of the RBJ
cookbook at the frequency that the bilinear transform maps to, Butterworth's magnitude, the static curve of Giannoulis,
Massberg and Reiss (2012). What is particular to one processor has its test beside that processor's others, in
``tests/unit``.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.ndimage import maximum_filter1d

from outboard.audio.chain import Chain, curve_taps
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    BandExtender,
    Chorus,
    Compressor,
    CurvePoint,
    DeEsser,
    Delay,
    DynamicEqualizer,
    Equalizer,
    Expander,
    FilterBand,
    LinearPhaseEqualizer,
    MultibandCompressor,
    Processor,
    ProcessorKind,
    Reverb,
    Saturator,
    StereoField,
    StereoWidth,
    TransientShaper,
)
from outboard.audio.stereo import StereoFieldBand

RATES = (44_100, 48_000, 96_000)
AT_ALL_RATES = pytest.mark.parametrize("rate", RATES)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
IMPULSE_FRAMES = 1 << 17
TOLERANCE_DB = 0.1

KINDS: dict[str, ProcessorKind] = {
    "equalizer": Equalizer((FilterBand("high_pass", 100.0, order=4), FilterBand("peak", 3_000.0, 2.0, 1.0))),
    "linear_phase": LinearPhaseEqualizer((CurvePoint(20.0, -3.0), CurvePoint(3_000.0, 2.0)), 1_023),
    "dynamic_equalizer": DynamicEqualizer((DynamicBandSettings(320.0, 1.0, 4.0, -3.0, threshold_db=-40.0),)),
    "compressor": Compressor(-30.0, 2.0, lookahead_ms=5.0),
    "multiband": MultibandCompressor(
        (CompressorBand(200.0, CompressorSettings(-30.0, 2.0)), CompressorBand(0.0, CompressorSettings(-30.0, 2.0)))
    ),
    "expander": Expander(-40.0),
    "de_esser": DeEsser(),
    "transients": TransientShaper(attack_db=4.0, sustain_db=-2.0),
    "saturator": Saturator("tape", 6.0),
    "width": StereoWidth(0.7, 100.0),
    "field": StereoField((StereoFieldBand(300.0, 3_000.0, 0.7, 0.1),)),
    "extender": BandExtender(15_000.0),
    "delay": Delay(100.0, 0.3),
    "reverb": Reverb(decay_seconds=0.3),
    "chorus": Chorus(1.0, 3.0, 0.5),
}
NEUTRAL: dict[str, ProcessorKind] = {
    "no_bands": Equalizer(()),
    "flat_bands": Equalizer(
        (FilterBand("peak", 900.0), FilterBand("low_shelf", 90.0), FilterBand("high_shelf", 9_000.0))
    ),
    "ratio_1": Compressor(-60.0, 1.0, lookahead_ms=3.0),
    "dry": Compressor(-60.0, 8.0, mix=0.0),
    "range_0": DynamicEqualizer((DynamicBandSettings(500.0, 1.0, 8.0, 0.0, threshold_db=-90.0, lookahead_ms=2.0),)),
    "open": Expander(-20.0, 1.0),
    "no_range": Expander(0.0, 8.0, range_db=0.0),
    "calm": DeEsser(ratio=1.0),
    "no_onsets": TransientShaper(),
    "no_curve": Saturator("tube", 12.0, mix=0.0),
    "as_wide": StereoWidth(),
    "no_echo": Delay(100.0, 0.5, mix=0.0),
    "no_room": Reverb(mix=0.0),
    "no_copies": Chorus(1.0, 3.0, mix=0.0),
}
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


def chain(kind: ProcessorKind, rate: int) -> Chain:
    return Chain((Processor("p", kind),), rate)


def compensated(kind: ProcessorKind, rate: int, sound: np.ndarray) -> np.ndarray:
    """All of the sound through the processor, its latency taken out."""
    made = chain(kind, rate)
    late = made.latency_frames
    return made.process(np.concatenate([sound, np.zeros((2, late), np.float32)], axis=1))[:, late:]


def response_db(kind: ProcessorKind, rate: int, hertz: np.ndarray) -> np.ndarray:
    """Measured on an impulse in the middle."""
    sound = np.zeros((2, IMPULSE_FRAMES), np.float32)
    sound[:, IMPULSE_FRAMES // 2] = 1.0
    spectrum = np.abs(np.fft.rfft(compensated(kind, rate, sound)[0].astype(np.float64)))
    grid = np.fft.rfftfreq(IMPULSE_FRAMES, 1.0 / rate)
    return 20.0 * np.log10(np.maximum(np.interp(hertz, grid, spectrum), 1e-12))


def tone(level_dbfs: float, hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    """A sine of that RMS level on both channels."""
    wave = math.sqrt(2.0) * np.sin(2.0 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return np.tile((10.0 ** (level_dbfs / 20.0) * wave).astype(np.float32), (2, 1))


def settled_gain_db(kind: ProcessorKind, rate: int, sound: np.ndarray) -> float:
    """Of the last tenth of a second."""
    tail = slice(-rate // 10, None)
    out = compensated(kind, rate, sound)[0, tail].astype(np.float64)
    return float(20.0 * np.log10(np.linalg.norm(out) / np.linalg.norm(sound[0, tail].astype(np.float64))))


# --- frequency response ---------------------------------------------------------------------------------------------


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


# --- static curves --------------------------------------------------------------------------------------------------


def curve_db(level_db: float, threshold_db: float, ratio: float, knee_db: float) -> float:
    """Gain of the static curve."""
    over = level_db - threshold_db
    if 2.0 * over < -knee_db:
        return 0.0
    slope = 1.0 / ratio - 1.0
    return slope * ((over + knee_db / 2.0) ** 2 / (2.0 * knee_db) if 2.0 * abs(over) <= knee_db and knee_db else over)


@AT_ALL_RATES
@pytest.mark.parametrize("ratio", [0.7, 2.0, 4.0, 100.0])
@pytest.mark.parametrize("detector", ["peak", "rms"])
def test_static_compression_is_within_a_tenth_of_a_db(detector: str, ratio: float, rate: int) -> None:
    """Below, in and above a knee of 6 dB, on a settled sine; a peak detector reads 3.01 dB more of it."""
    for level in (-50.0, -33.0, -30.0, -27.0, -20.0, -10.0):
        kind = Compressor(
            -30.0, ratio, knee_db=6.0, attack_ms=5.0, release_ms=80.0, detector=detector, rms_ms=100.0, hold_ms=20.0
        )  # type: ignore[arg-type]
        read = level + (3.0103 if detector == "peak" else 0.0)
        got, wanted = settled_gain_db(kind, rate, tone(level, 1_000.0, rate)), curve_db(read, -30.0, ratio, 6.0)
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {level} dBFS"


@AT_ALL_RATES
@pytest.mark.parametrize(("ratio", "range_db"), [(2.0, -40.0), (4.0, -12.0), (100.0, -60.0)])
def test_static_expansion_is_within_a_tenth_of_a_db(ratio: float, range_db: float, rate: int) -> None:
    """Under the threshold the level falls ``ratio`` times as fast, down to the range; above it nothing happens."""
    for level in (-20.0, -34.0, -38.0, -46.0, -60.0):
        wanted = max(range_db, (ratio - 1.0) * min(0.0, level + 36.0))
        kind = Expander(-36.0, ratio, range_db, attack_ms=1.0, hold_ms=0.0, release_ms=50.0)
        got = settled_gain_db(kind, rate, tone(level, 3_000.0, rate))
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {level} dBFS"


@AT_ALL_RATES
def test_static_dynamic_band_is_within_a_tenth_of_a_db(rate: int) -> None:
    """A sine at the centre, in and above the knee of 4 dB."""
    for level in (-50.0, -40.0, -35.0, -25.0):
        band = DynamicBandSettings(1_000.0, 2.0, 3.0, -24.0, threshold_db=-40.0, attack_ms=10.0)
        got, wanted = (
            settled_gain_db(DynamicEqualizer((band,)), rate, tone(level, 1_000.0, rate)),
            curve_db(level, -40.0, 3.0, 4.0),
        )
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {level} dBFS"


@AT_ALL_RATES
def test_static_multiband_is_within_a_tenth_of_a_db(rate: int) -> None:
    """A sine two octaves from the split, compressed by its own band only."""
    band = CompressorSettings(-30.0, 3.0, rms_ms=100.0)
    kind = MultibandCompressor((CompressorBand(1_000.0, band), CompressorBand(0.0, CompressorSettings(0.0, 1.0))))
    for hertz, wanted in ((100.0, curve_db(-15.0, -30.0, 3.0, 6.0)), (12_000.0, 0.0)):
        got = settled_gain_db(kind, rate, tone(-15.0, hertz, rate))
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {hertz} Hz"


@AT_ALL_RATES
def test_static_de_esser_is_within_a_tenth_of_a_db(rate: int) -> None:
    """A sibilant by itself stands as far over the voice as the detector's high-pass lets it: the shelf turns it down by
    what curve and range say, at any level.
    """
    corner, hertz = 5_500.0, 9_000.0
    omega = np.tan(np.pi * hertz / rate) / np.tan(np.pi * corner / rate)
    over_db = -10.0 * math.log10(1.0 + omega**-4.0)
    for threshold, range_db in ((-10.0, -6.0), (-3.0, -12.0), (6.0, -6.0)):
        kind = DeEsser(corner, threshold, 4.0, range_db)
        gain = 10.0 ** (max(range_db, curve_db(over_db, threshold, 4.0, 3.0)) / 20.0)
        s = 1j * omega
        wanted = 20.0 * math.log10(abs((gain * s + 1.0) / (s + 1.0)))
        for level in (-40.0, -15.0):
            got = settled_gain_db(kind, rate, tone(level, hertz, rate))
            assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {level} dBFS"


# --- time constants -------------------------------------------------------------------------------------------------


def e_fold_ms(gains_db: np.ndarray, start: int, stop: int, rate: int) -> float:
    """How long what remains to the gain at ``stop`` takes to fall by e, from half of it on: the detector before the
    ballistics has settled by then.
    """
    rest = np.abs(gains_db[start:stop] - gains_db[stop - 1])
    peak = int(np.argmax(rest))
    level = 0.5 * rest[peak]
    begin = peak + int(np.argmax(rest[peak:] <= level))
    end = peak + int(np.argmax(rest[peak:] <= level / math.e))
    return 1e3 * (end - begin) / rate


def steps(rate: int, low_dbfs: float, high_dbfs: float, hertz: float) -> np.ndarray:
    """Two seconds quiet, two loud, two quiet."""
    gains = np.repeat([low_dbfs, high_dbfs, low_dbfs], 2 * rate)
    wave = math.sqrt(2.0) * np.sin(2.0 * np.pi * hertz * np.arange(6 * rate) / rate)
    return np.tile((10.0 ** (gains / 20.0) * wave).astype(np.float32), (2, 1))


def gain_curve_db(kind: ProcessorKind, rate: int, sound: np.ndarray) -> np.ndarray:
    """Gain over time: output over input where the wave is not near its zeros, straight lines between."""
    before = sound[0].astype(np.float64)
    out = compensated(kind, rate, sound)[0].astype(np.float64)
    frames = np.arange(before.size)
    clear = np.abs(before) > 0.5 * maximum_filter1d(np.abs(before), rate // 1_000)
    return np.interp(frames, frames[clear], 20.0 * np.log10(np.abs(out[clear] / before[clear])))


TIMED: dict[str, tuple[ProcessorKind, float, float, float, float, float]] = {
    # kind, low and high dBFS, hertz, then the time constants after the step up and after the step down
    "compressor_peak": (
        Compressor(-40.0, 3.0, attack_ms=60.0, release_ms=150.0, detector="peak", hold_ms=2.0),
        -60.0, -10.0, 2_000.0, 60.0, 150.0,
    ),
    "compressor_rms": (
        Compressor(-40.0, 3.0, attack_ms=100.0, release_ms=250.0, rms_ms=3.0), -60.0, -10.0, 2_000.0, 100.0, 250.0,
    ),
    "dynamic_band": (
        DynamicEqualizer(
            (DynamicBandSettings(2_000.0, 1.0, 4.0, -24.0, threshold_db=-30.0, attack_ms=120.0, release_ms=250.0),)
        ),
        -60.0, -20.0, 2_000.0, 120.0, 250.0,
    ),
    "expander": (
        Expander(-30.0, 2.0, -20.0, attack_ms=60.0, hold_ms=0.0, release_ms=150.0), -50.0, -10.0, 2_000.0, 60.0, 150.0,
    ),
}  # fmt: skip


@AT_ALL_RATES
@pytest.mark.parametrize("name", TIMED)
def test_time_constants_are_within_5_percent(name: str, rate: int) -> None:
    """What remains to the new gain falls by e in the attack time after a step up, in the release time after a fall."""
    kind, low, high, hertz, up_ms, down_ms = TIMED[name]
    gains = gain_curve_db(kind, rate, steps(rate, low, high, hertz))
    margin = rate // 50  # the envelope of a step is smeared a little
    up = e_fold_ms(gains, 2 * rate + margin, 4 * rate - margin, rate)
    down = e_fold_ms(gains, 4 * rate + margin, 6 * rate - margin, rate)
    assert up == pytest.approx(up_ms, rel=0.05), f"{up:.1f} ms up"
    assert down == pytest.approx(down_ms, rel=0.05), f"{down:.1f} ms down"


# --- saturation -----------------------------------------------------------------------------------------------------


@AT_ALL_RATES
@pytest.mark.parametrize("curve", ["tanh", "tape", "tube", "clip"])
def test_aliases_lie_80_db_under_the_fundamental(curve: str, rate: int) -> None:
    """5 kHz at 0 dBFS through a drive of 0 dB: every line below Nyquist that is no harmonic."""
    frames = rate  # a whole number of periods, so that every line is one bin
    wave = np.sin(2.0 * np.pi * 5_000.0 * np.arange(2 * frames) / rate).astype(np.float32)
    out = compensated(Saturator(curve, 0.0), rate, np.tile(wave, (2, 1)))[0, -frames - frames // 2 : -frames // 2]  # type: ignore[arg-type]
    lines = np.abs(np.fft.rfft(out.astype(np.float64)))
    harmonic = np.zeros(lines.size, bool)
    harmonic[::5_000] = True
    worst_db = float(20.0 * np.log10(np.max(lines[~harmonic]) / lines[5_000]))
    assert worst_db <= -80.0, f"{worst_db:.1f} dB"


# --- nulls, denormals, finiteness -----------------------------------------------------------------------------------


@AT_ALL_RATES
@pytest.mark.parametrize("name", NEUTRAL)
def test_what_does_nothing_changes_no_bit(name: str, rate: int) -> None:
    """Neutral settings null exactly, latency taken out."""
    sound = (0.3 * np.random.default_rng(5).standard_normal((2, 8_192))).astype(np.float32)
    assert np.array_equal(compensated(NEUTRAL[name], rate, sound), sound)


@pytest.mark.parametrize("name", KINDS)
def test_a_bypassed_slot_is_not_there(name: str) -> None:
    """No bit, no latency."""
    sound = (0.3 * np.random.default_rng(6).standard_normal((2, 4_096))).astype(np.float32)
    bypassed = Chain((Processor("p", KINDS[name], bypass=True),), RATES[1])
    assert bypassed.latency_frames == 0
    assert np.array_equal(bypassed.process(sound), sound)


@AT_ALL_RATES
@pytest.mark.parametrize("name", KINDS)
def test_tails_end_without_denormals(name: str, rate: int) -> None:
    """After a burst, 15 s of silence: nothing subnormal ever comes out, and in the end nothing at all. Subnormal input
    gives no more than itself back.
    """
    made = chain(KINDS[name], rate)
    burst = (0.5 * np.random.default_rng(7).standard_normal((2, rate // 4))).astype(np.float32)
    tiny = np.finfo(np.float32).tiny
    made.process(burst)
    silence = np.zeros((2, rate), np.float32)
    for _ in range(15):
        out = made.process(silence)
        subnormal = (out != 0.0) & (np.abs(out) < tiny)
        assert not subnormal.any(), f"{np.count_nonzero(subnormal)} subnormal samples"
    assert not out.any(), f"{np.max(np.abs(out))} after 15 s"
    faint = np.full((2, rate // 4), 1e-41, np.float32)
    assert np.max(np.abs(chain(KINDS[name], rate).process(faint))) <= 1e-38


@AT_ALL_RATES
@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sound=arrays.arrays(
        np.float32,
        st.tuples(st.just(2), st.integers(1, 600)),
        elements=FINITE,
    )
)
def test_finite_stays_finite(name: str, rate: int, sound: np.ndarray) -> None:
    """Any finite input, at any rate, gives finite output."""
    made = chain(KINDS[name], rate)
    assert np.isfinite(made.process(sound)).all()
    assert np.isfinite(made.process(np.zeros((2, 2_000), np.float32))).all()
