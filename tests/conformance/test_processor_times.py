"""Step responses of every processor that follows a level: its time constants within 5 %, at 44.1, 48 and 96 kHz.

Two promises. What remains of a step falls by e in the attack or the release that was asked for, once the detector
before the ballistics has settled. And the whole response, detector included, is that of theory: mean power through one
pole, static curve, one pole, here as differential equations in small steps of time.

Gains are read on the left channel, where a steady tone plays that is too quiet to be heard by the detector; what drives
it is on the right, or on a key: all channels are moved by one gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.dynamics import CompressorSettings
from outboard.audio.limiter import STEP_FRAMES, LimiterSettings, reduction_curve
from outboard.audio.multiband import CompressorBand
from outboard.audio.processors import (
    Compressor,
    DeEsser,
    DynamicEqualizer,
    Expander,
    MultibandCompressor,
    ProcessorKind,
    TransientShaper,
    Unmasker,
)
from outboard.audio.spool import Spool
from tests.processors import AT_ALL_RATES, compensated, curve_db, gain_curve_db, sine

PILOT_DBFS = -75.0


def stepping(low_dbfs: float, high_dbfs: float, hertz: float, rate: int, seconds: float = 2.0) -> np.ndarray:
    """A sine of that RMS level: so long quiet, loud, quiet."""
    parts = [sine(level, hertz, rate, seconds) for level in (low_dbfs, high_dbfs, low_dbfs)]
    return np.concatenate(parts)


def measured_db(
    kind: ProcessorKind, rate: int, driving: np.ndarray, *, pilot_hertz: float = 2_000.0, keyed: bool = False
) -> np.ndarray:
    """Gain over time while ``driving`` plays."""
    pilot = sine(PILOT_DBFS, pilot_hertz, rate, driving.size / rate)[: driving.size]
    keys: Mapping[str, np.ndarray] = {}
    if keyed:
        sound = np.tile(pilot.astype(np.float32), (2, 1))
        keys = {"key": np.tile(driving.astype(np.float32), (2, 1))}
    else:
        sound = np.stack([pilot, math.sqrt(2.0) * driving]).astype(np.float32)  # a mean over channels
    return gain_curve_db(sound[0], compensated(kind, rate, sound, keys)[0])


# --- what remains falls by e ----------------------------------------------------------------------------------------


def e_fold_ms(remaining: np.ndarray, rate: float, level: float) -> float:
    """How long a curve takes to fall by e: from ``level`` to half of it, over ln 2."""
    begin, end = (int(np.argmax(remaining <= part)) for part in (level, 0.5 * level))
    return 1e3 * (end - begin) / rate / math.log(2.0)


def settling_ms(gains_db: np.ndarray, start: int, stop: int, rate: int) -> float:
    """The same of what remains to the gain at ``stop``, from half of it on."""
    rest = np.abs(gains_db[start:stop] - gains_db[stop - 1])
    peak = int(np.argmax(rest))
    return e_fold_ms(rest[peak:], rate, 0.5 * rest[peak])


@dataclass(frozen=True)
class Timed:
    """A processor, the step that drives it, and the time constants after the step up and after the step down."""

    kind: ProcessorKind
    low_dbfs: float
    high_dbfs: float
    up_ms: float
    down_ms: float
    keyed: bool = False


def band(range_db: float = -24.0, **more: object) -> DynamicEqualizer:
    settings = {"threshold_db": -30.0, "attack_ms": 120.0, "release_ms": 250.0} | more
    return DynamicEqualizer((DynamicBandSettings(2_000.0, 1.0, 4.0, range_db, **settings),))  # type: ignore[arg-type]


def compressor(ratio: float = 3.0, **more: object) -> Compressor:
    settings = {"attack_ms": 60.0, "release_ms": 150.0, "rms_ms": 3.0} | more
    return Compressor(-40.0, ratio, **settings)  # type: ignore[arg-type]


def expander(**more: object) -> Expander:
    return Expander(-30.0, 2.0, -20.0, attack_ms=60.0, hold_ms=0.0, release_ms=150.0, **more)  # type: ignore[arg-type]


AHEAD = {"lookahead_ms": 7.0, "sidechain": "key"}
BANDS = MultibandCompressor((CompressorBand(500.0, CompressorSettings(0.0, 1.0)), CompressorBand(0.0, compressor())))
GIVING_WAY = Unmasker("key", threshold_db=-100.0, attack_ms=120.0, release_ms=250.0)
TIMED = {
    "compressor_peak": Timed(compressor(detector="peak", hold_ms=2.0), -60.0, -10.0, 60.0, 150.0),
    "compressor_rms": Timed(compressor(), -60.0, -10.0, 60.0, 150.0),
    "compressor_ahead": Timed(compressor(lookahead_ms=7.0), -60.0, -10.0, 60.0, 150.0),
    "compressor_upward": Timed(compressor(0.7), -60.0, -10.0, 60.0, 150.0),
    "compressor_ducking": Timed(compressor(**AHEAD), -60.0, -10.0, 60.0, 150.0, keyed=True),
    "multiband": Timed(BANDS, -60.0, -10.0, 60.0, 150.0),
    "dynamic_band": Timed(band(), -60.0, -20.0, 120.0, 250.0),
    "dynamic_band_lifting": Timed(band(9.0), -60.0, -20.0, 120.0, 250.0),
    "dynamic_band_ducking": Timed(band(**AHEAD), -60.0, -20.0, 120.0, 250.0, keyed=True),
    "unmasker": Timed(GIVING_WAY, -40.0, PILOT_DBFS, 120.0, 250.0, keyed=True),  # gives way to what it comes up to
    "expander": Timed(expander(), -50.0, -10.0, 60.0, 150.0),
    "expander_keyed": Timed(expander(sidechain="key"), -50.0, -10.0, 60.0, 150.0, keyed=True),
}


@AT_ALL_RATES
@pytest.mark.parametrize("name", TIMED)
def test_time_constants_are_within_5_percent(name: str, rate: int) -> None:
    """What remains to the new gain falls by e in the attack time after a step up, in the release time after a fall."""
    timed = TIMED[name]
    driving = stepping(timed.low_dbfs, timed.high_dbfs, 2_000.0, rate)
    gains = measured_db(timed.kind, rate, driving, keyed=timed.keyed)
    margin, frame = (
        rate // 50,
        rate // 15,
    )  # the envelope of a step is smeared a little, in frames of spectra a little more
    up = settling_ms(gains, 2 * rate + margin, 4 * rate - frame, rate)
    down = settling_ms(gains, 4 * rate + margin, 6 * rate - frame, rate)
    assert up == pytest.approx(timed.up_ms, rel=0.05), f"{up:.1f} ms up"
    assert down == pytest.approx(timed.down_ms, rel=0.05), f"{down:.1f} ms down"


@AT_ALL_RATES
def test_a_held_peak_waits_before_the_gain_comes_back(rate: int) -> None:
    """A quarter of a second of hold: the release begins so much later, within 5 %."""
    gains = measured_db(compressor(detector="peak", hold_ms=250.0), rate, stepping(-60.0, -10.0, 2_000.0, rate))
    fall = gains[4 * rate :]
    covered = 1.0 - 1.0 / math.e
    waited = 1e3 * int(np.argmax(fall >= fall[0] + covered * (gains[-1] - fall[0]))) / rate - 150.0
    assert waited == pytest.approx(250.0, rel=0.05), f"{waited:.1f} ms"


# --- the whole response ---------------------------------------------------------------------------------------------

STEP_SECONDS = 2e-5
Target = Callable[[float], float]


def pole_seconds(powers: np.ndarray, milliseconds: float) -> np.ndarray:
    """A step of mean power through one pole of so many milliseconds."""
    out, state, share = np.empty(powers.size), float(powers[0]), -math.expm1(-1e3 * STEP_SECONDS / milliseconds)
    for index, power in enumerate(powers):
        state += share * (power - state)
        out[index] = state
    return out


def ballistics_db(levels_db: np.ndarray, target: Target, attack_ms: float, release_ms: float, start_db: float,
                  *, opens: bool = False, hold_ms: float = 0.0) -> np.ndarray:  # fmt: skip
    """Gain over time: one pole towards the target, attack away from 0 dB; of a gate (``opens``) towards it, and closing
    waits for the hold.
    """
    out, gain, held = np.empty(levels_db.size), start_db, 0.0
    attack, release = (-math.expm1(-1e3 * STEP_SECONDS / ms) for ms in (attack_ms, release_ms))
    for index, level in enumerate(levels_db):
        wanted = target(level)
        if wanted >= gain if opens else abs(wanted) > abs(gain):
            gain += attack * (wanted - gain)
            held = hold_ms
        elif held > 0.0:
            held -= 1e3 * STEP_SECONDS
        else:
            gain += release * (wanted - gain)
        out[index] = gain
    return out


def powers_db(low_dbfs: float, high_dbfs: float, seconds: float, ms: float) -> np.ndarray:
    """Level that a detector of mean power reads of the same three parts as `stepping`."""
    steps = np.repeat(10.0 ** (np.array([low_dbfs, high_dbfs, low_dbfs]) / 10.0), round(seconds / STEP_SECONDS))
    return 10.0 * np.log10(pole_seconds(steps, ms))


def times_ms(gains_db: np.ndarray, per_second: float, seconds: float) -> tuple[float, float]:
    """From each step to 63 % of what it changes; levels are settled 20 ms before the next step."""
    found = []
    settled = round(0.02 * per_second)
    for part in (1, 2):
        start, stop = round(part * seconds * per_second), round((part + 1) * seconds * per_second) - settled
        change = (gains_db[start:stop] - gains_db[start - settled]) / (gains_db[stop] - gains_db[start - settled])
        found.append(1e3 * int(np.argmax(change >= 1.0 - 1.0 / math.e)) / per_second)
    return found[0], found[1]


def sibilance_db(voice_dbfs: float, low_dbfs: float, high_dbfs: float, seconds: float, rate: int) -> np.ndarray:
    """What a de-esser reads of an ess of 9 kHz that steps beside a voice of 1 kHz: power above 5.5 kHz (3 ms) over the
    voice's level, which rises with it and falls in 1.5 s.
    """

    def above(hertz: float) -> float:
        ratio = math.tan(math.pi * hertz / rate) / math.tan(math.pi * 5_500.0 / rate)
        return 1.0 / (1.0 + ratio**-4.0)

    steps = np.repeat(10.0 ** (np.array([low_dbfs, high_dbfs, low_dbfs]) / 10.0), round(seconds / STEP_SECONDS))
    voice = 10.0 ** (voice_dbfs / 10.0)
    top = pole_seconds(above(9_000.0) * steps + above(1_000.0) * voice, 3.0)
    whole = pole_seconds(steps + voice, 3.0)
    levels, level, share = np.empty(whole.size), whole[0], -math.expm1(-STEP_SECONDS / 1.5)
    for index, power in enumerate(whole):
        level = max(power, level + share * (power - level))
        levels[index] = level
    return 10.0 * np.log10(top / levels)


@AT_ALL_RATES
@pytest.mark.parametrize("name", ["compressor", "dynamic_band", "expander", "de_esser"])
def test_step_responses_at_default_times_are_those_of_theory(name: str, rate: int) -> None:
    """With the attack, release, hold and averaging that nobody changed: up and down to 63 % within 5 % of theory."""
    seconds = 0.75
    pilot_hertz = 12_000.0
    driving = stepping(-50.0, -15.0, 2_000.0, rate, seconds)
    kind: ProcessorKind
    if name == "compressor":
        kind = Compressor(-35.0, 3.0)
        levels = powers_db(-50.0, -15.0, seconds, 10.0)
        theory = ballistics_db(levels, lambda level: curve_db(level, -35.0, 3.0, 6.0), 10.0, 120.0, 0.0)
    elif name == "dynamic_band":
        kind, pilot_hertz = band(attack_ms=20.0, release_ms=150.0), 2_000.0
        levels = powers_db(-50.0, -15.0, seconds, 10.0)
        theory = ballistics_db(levels, lambda level: max(-24.0, curve_db(level, -30.0, 4.0, 4.0)), 20.0, 150.0, 0.0)
    elif name == "expander":
        kind = Expander(-30.0)
        levels = powers_db(-50.0, -15.0, seconds, 5.0)
        theory = ballistics_db(
            levels, lambda level: max(-12.0, min(0.0, level + 30.0)), 1.0, 100.0, -12.0, opens=True, hold_ms=20.0
        )
    else:
        kind, pilot_hertz = DeEsser(), 16_000.0
        driving = stepping(-60.0, -20.0, 9_000.0, rate, seconds) + sine(-22.0, 1_000.0, rate, 3.0 * seconds)
        levels = sibilance_db(-22.0, -60.0, -20.0, seconds, rate)
        gains = ballistics_db(levels, lambda level: max(-6.0, curve_db(level, -10.0, 4.0, 3.0)), 1.0, 40.0, 0.0)
        s = 1j * math.tan(math.pi * pilot_hertz / rate) / math.tan(math.pi * 5_500.0 / rate)
        theory = 20.0 * np.log10(np.abs((10.0 ** (gains / 20.0) * s + 1.0) / (s + 1.0)))
    # The look-ahead of a de-esser moves all of it; here it counts from the step.
    ahead_ms = 2.0 if name == "de_esser" else 0.0
    measured = times_ms(
        np.roll(measured_db(kind, rate, driving, pilot_hertz=pilot_hertz), round(ahead_ms * rate / 1e3)), rate, seconds
    )
    wanted = times_ms(theory, 1.0 / STEP_SECONDS, seconds)
    assert measured == pytest.approx(wanted, rel=0.05), f"{measured} ms instead of {wanted} ms"


# --- transients -----------------------------------------------------------------------------------------------------


@AT_ALL_RATES
@pytest.mark.parametrize("milliseconds", [20.0, 60.0])
def test_an_onset_lasts_as_long_as_asked_for(milliseconds: float, rate: int) -> None:
    """The follower that the onset is held against comes up to it by e in ``attack_ms``: read back from the gain, which
    is the lead of the fast one in dB over 1 to 12 dB.
    """
    kind = TransientShaper(attack_db=8.0, attack_ms=milliseconds)
    driving = stepping(-45.0, -15.0, 9_000.0, rate)  # its power hardly ripples
    gains = measured_db(kind, rate, driving, pilot_hertz=12_000.0)[2 * rate : 4 * rate]
    lead_db = 1.0 + 11.0 * gains / 8.0
    remaining = 1.0 - 10.0 ** (-lead_db / 10.0)
    got = e_fold_ms(remaining[int(np.argmax(gains)) :], rate, 0.55)
    assert got == pytest.approx(milliseconds, rel=0.05), f"{got:.1f} ms"


@AT_ALL_RATES
@pytest.mark.parametrize("milliseconds", [200.0, 400.0])
def test_a_decay_is_sustained_as_long_as_asked_for(milliseconds: float, rate: int) -> None:
    """The follower that a decay is held against falls by e in ``sustain_ms``, once the fast one has fallen."""
    kind = TransientShaper(sustain_db=8.0, sustain_ms=milliseconds)
    driving = stepping(-25.0, -15.0, 9_000.0, rate)
    gains = measured_db(kind, rate, driving, pilot_hertz=12_000.0)[4 * rate :]
    remaining = 10.0 ** ((1.0 + 11.0 * gains[rate // 7 :] / 8.0) / 10.0) - 1.0
    got = e_fold_ms(remaining, rate, 3.5)
    assert got == pytest.approx(milliseconds, rel=0.05), f"{got:.1f} ms"


# --- limiter --------------------------------------------------------------------------------------------------------


def limited_db(settings: LimiterSettings, loud_seconds: float, folder: Path) -> tuple[np.ndarray, int]:
    """Reduction after a need of 6 dB that lasted so long, and how many values a second has."""
    rate = 48_000
    per_second = rate // STEP_FRAMES
    peaks = np.full((1, 20 * per_second), 0.1, np.float32)
    end = per_second + round(loud_seconds * per_second)
    peaks[:, per_second:end] = 10.0 ** ((settings.ceiling_dbtp + 6.0) / 20.0)
    curve = reduction_curve(peaks, rate, 0.0, settings, partial(Spool, directory=folder))
    return np.asarray(curve[0, end:], np.float64), per_second


def test_the_limiter_lets_go_in_its_times(tmp_path: Path) -> None:
    """Fast after something short, slow after something long; and a need of one charging time charges 63 % of it."""
    short, per_second = limited_db(LimiterSettings(charge_ms=1e6), 0.3, tmp_path)
    assert e_fold_ms(short, per_second, 3.0) == pytest.approx(60.0, rel=0.05)
    long, _ = limited_db(LimiterSettings(), 10.0, tmp_path)
    assert e_fold_ms(long, per_second, 1.0) == pytest.approx(150.0, rel=0.05)
    charged, _ = limited_db(LimiterSettings(fast_release_ms=1.0, slow_release_ms=1e6), 0.8, tmp_path)
    assert charged[per_second // 10] == pytest.approx(6.0 * (1.0 - 1.0 / math.e), rel=0.05)
