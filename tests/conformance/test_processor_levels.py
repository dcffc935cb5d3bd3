"""Static curves of every processor that follows a level, within 0.1 dB, at 44.1, 48 and 96 kHz; and what a saturator
makes of a sine.

Curves are written out here once more, from the paper and not from the code (`tests.processors.curve_db`).
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    Compressor,
    DeEsser,
    DynamicEqualizer,
    Expander,
    MultibandCompressor,
    Saturator,
    TransientShaper,
)
from tests.processors import AT_ALL_RATES, TOLERANCE_DB, compensated, curve_db, settled_gain_db, sine, tone


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


@AT_ALL_RATES
def test_make_up_and_a_parallel_mix_are_within_a_tenth_of_a_db(rate: int) -> None:
    """``1 + mix (g makeup - 1)``: a blend in volts, not in dB."""
    for mix, makeup in ((1.0, 6.0), (0.5, 0.0), (0.25, 9.0)):
        kind = Compressor(-30.0, 4.0, rms_ms=100.0, mix=mix, makeup_db=makeup)
        gain = 10.0 ** ((curve_db(-12.0, -30.0, 4.0, 6.0) + makeup) / 20.0)
        got = settled_gain_db(kind, rate, tone(-12.0, 1_000.0, rate))
        assert got == pytest.approx(20.0 * math.log10(1.0 + mix * (gain - 1.0)), abs=TOLERANCE_DB)


@AT_ALL_RATES
def test_another_strip_ducks_by_the_curve_of_its_own_level(rate: int) -> None:
    """A compressor, a dynamic band and an expander that follow a key: the key's level counts, not the sound's."""
    sound = tone(-45.0, 1_000.0, rate)
    band = DynamicBandSettings(1_000.0, 2.0, 3.0, -24.0, threshold_db=-40.0, sidechain="key")
    for level in (-60.0, -32.0, -18.0):
        key = {"key": tone(level, 1_000.0, rate)}
        for kind, wanted in (
            (Compressor(-30.0, 3.0, rms_ms=100.0, sidechain="key"), curve_db(level, -30.0, 3.0, 6.0)),
            (DynamicEqualizer((band,)), curve_db(level, -40.0, 3.0, 4.0)),
            (Expander(-36.0, 2.0, -20.0, hold_ms=0.0, sidechain="key"), max(-20.0, min(0.0, level + 36.0))),
        ):
            got = settled_gain_db(kind, rate, sound, key)
            assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{type(kind).__name__}: {got - wanted:+.3f} dB"


@AT_ALL_RATES
def test_a_detector_hears_through_its_own_filters(rate: int) -> None:
    """Kick to bass: a band-pass of 40 to 120 Hz before the detector has Butterworth's magnitude at every frequency."""
    sound = tone(-45.0, 1_000.0, rate)
    kind = Compressor(-40.0, 4.0, rms_ms=200.0, sidechain="key",
                      sidechain_high_pass_hertz=40.0, sidechain_low_pass_hertz=120.0)  # fmt: skip
    for hertz in (30.0, 60.0, 120.0, 300.0):
        warped = math.tan(math.pi * hertz / rate)
        high, low = (warped / math.tan(math.pi * corner / rate) for corner in (40.0, 120.0))
        level = -15.0 - 10.0 * math.log10(1.0 + high**-4.0) - 10.0 * math.log10(1.0 + low**4.0)
        got = settled_gain_db(kind, rate, sound, {"key": tone(-15.0, hertz, rate, 1.0)})
        wanted = curve_db(level, -40.0, 4.0, 6.0)
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {hertz} Hz"


@AT_ALL_RATES
def test_a_dynamic_band_that_weighs_itself_against_the_whole(rate: int) -> None:
    """Its curve is that of the band's share: the bands of a tone at its centre and one four octaves above."""
    band = DynamicBandSettings(500.0, 2.0, 3.0, -24.0, relative_threshold_db=-12.0)
    for quieter in (20.0, 10.0, 3.0):
        low, high = sine(-20.0 - quieter, 500.0, rate), sine(-20.0, 8_000.0, rate)
        sound = np.tile((low + high).astype(np.float32), (2, 1))
        out = compensated(DynamicEqualizer((band,)), rate, sound)[0, -rate // 10 :].astype(np.float64)
        turn = np.exp(-2j * np.pi * 500.0 * np.arange(rate - out.size, rate) / rate)
        got = 20.0 * math.log10(abs(out @ turn) / abs(low[-rate // 10 :] @ turn))
        share_db = -10.0 * math.log10(1.0 + 10.0 ** (quieter / 10.0))
        wanted = curve_db(share_db, -12.0, 3.0, 4.0)
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB, {quieter:g} dB under the rest"


@AT_ALL_RATES
@pytest.mark.parametrize("level", [-50.0, -10.0])
def test_a_steady_tone_is_no_transient(level: float, rate: int) -> None:
    """Neither onset nor decay: the gain of a settled tone is 0 dB, whatever its level."""
    kind = TransientShaper(attack_db=9.0, sustain_db=-9.0)
    got = settled_gain_db(kind, rate, tone(level, 200.0, rate, 2.0))
    assert abs(got) <= TOLERANCE_DB, f"{got:+.3f} dB"


# --- saturation -----------------------------------------------------------------------------------------------------

BENDS = {
    "tanh": np.tanh,
    "tape": lambda v: v / np.sqrt(1.0 + v * v),
    "tube": lambda v: (np.tanh(v + 0.3) - math.tanh(0.3)) / (1.0 - math.tanh(0.3) ** 2),
    "clip": lambda v: np.sign(v) * np.where(
        np.abs(v) < 0.7, np.abs(v), np.where(np.abs(v) > 1.3, 1.0, np.abs(v) - (np.abs(v) - 0.7) ** 2 / 1.2)
    ),
}  # fmt: skip


@AT_ALL_RATES
@pytest.mark.parametrize("curve", BENDS)
def test_static_saturation_is_within_a_tenth_of_a_db(curve: str, rate: int) -> None:
    """The fundamental of a sine at several levels against the Fourier coefficient of the bent period."""
    phase = 2.0 * np.pi * np.arange(4_096) / 4_096
    for level in (-30.0, -12.0, -3.0):
        volts = 10.0 ** (level / 20.0)
        drive = 10.0 ** (9.0 / 20.0)
        bent = BENDS[curve](drive * volts * np.sin(phase)) / drive
        wanted = 20.0 * math.log10(2.0 * abs(np.mean(bent * np.exp(-1j * phase))) / volts)
        sound = tone(level - 3.0103, 1_000.0, rate)
        out = compensated(Saturator(curve, 9.0), rate, sound)[0].astype(np.float64)  # type: ignore[arg-type]
        middle = slice(rate // 2, rate // 2 + rate // 10)
        turn = np.exp(-2j * np.pi * 1_000.0 * np.arange(rate // 10) / rate)
        got = 20.0 * math.log10(abs(out[middle] @ turn) / abs(sound[0, middle].astype(np.float64) @ turn))
        assert got == pytest.approx(wanted, abs=TOLERANCE_DB), f"{got - wanted:+.3f} dB at {level} dBFS"


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
