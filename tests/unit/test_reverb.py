"""The reverb: it decays as asked, is dense and wide, and comes back as loud as it went in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from outboard.audio.reverb import Reverb, ReverbKindName, ReverbSettings

RATE = 48_000
KINDS: tuple[ReverbKindName, ...] = ("plate", "room", "hall", "chamber")
OPEN = {"damping_hertz": 20_000.0, "low_cut_hertz": 20.0, "high_cut_hertz": 20_000.0}


def impulse_response(settings: ReverbSettings, rate: int = RATE, seconds: float = 3.0) -> np.ndarray:
    x = np.zeros((2, int(seconds * rate)), np.float32)
    x[:, 0] = 1.0
    return Reverb(settings, rate).process(x).astype(np.float64)


def decay_seconds(response: np.ndarray, rate: int, hertz: float) -> float:
    """RT60 of an octave from -5 to -35 dB of the backward-integrated energy (ISO 3382-1, T30)."""
    sos = signal.butter(4, [hertz / np.sqrt(2), hertz * np.sqrt(2)], "bandpass", fs=rate, output="sos")
    energy = np.cumsum(signal.sosfilt(sos, response)[::-1] ** 2)[::-1]
    level = 10.0 * np.log10(energy / energy[0] + 1e-30)
    fit = np.flatnonzero((level <= -5.0) & (level >= -35.0))
    return float(-60.0 / (np.polyfit(fit / rate, level[fit], 1)[0]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asked", [0.4, 1.2, 3.0])
@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_it_decays_in_the_time_that_was_asked_for(kind: ReverbKindName, asked: float, rate: int) -> None:
    """RT60 of the octaves at 500 Hz and 1 kHz within 10 %."""
    response = impulse_response(ReverbSettings(kind, asked, damping_hertz=8_000.0), rate, 1.2 * asked)
    for hertz in (500.0, 1_000.0):
        found = decay_seconds(response[0], rate, hertz)
        assert abs(found / asked - 1.0) < 0.10, f"{kind} at {hertz:.0f} Hz: {found:.2f} s instead of {asked} s"


def test_at_the_damping_frequency_it_decays_in_half_the_time() -> None:
    """Within 15 % in the octave around it."""
    response = impulse_response(ReverbSettings("hall", 2.0, damping_hertz=4_000.0))
    found = decay_seconds(response[1], RATE, 4_000.0)
    assert abs(found / 1.0 - 1.0) < 0.15, f"{found:.2f} s at 4 kHz instead of 1 s"


@pytest.mark.parametrize("kind", KINDS)
def test_noise_comes_back_as_loud_as_it_went_in(kind: ReverbKindName) -> None:
    """Steady noise at 200 Hz to 4 kHz, after the reverb has filled: within 1.5 dB, so that a send's level means it."""
    x = np.tile(0.1 * np.random.default_rng(1).standard_normal(4 * RATE), (2, 1)).astype(np.float32)
    y = Reverb(ReverbSettings(kind, 1.5), RATE).process(x)
    sos = signal.butter(2, [200.0, 4_000.0], "bandpass", fs=RATE, output="sos")
    came, went = (float(np.mean(signal.sosfilt(sos, z[:, 2 * RATE :]) ** 2)) for z in (y, x))
    assert abs(10.0 * np.log10(came / went)) < 1.5, f"{10.0 * np.log10(came / went):+.2f} dB"


def echo_density(response: np.ndarray, at_seconds: float) -> float:
    """Share of samples beyond one deviation in 20 ms, over Gaussian noise's share: 1 is as dense as noise.

    J. S. Abel, P. Huang, *A simple, robust measure of reverberation echo density*, AES 121, 2006.
    """
    piece = response[int(at_seconds * RATE) : int((at_seconds + 0.02) * RATE)]
    return float(np.mean(np.abs(piece) > piece.std()) / 0.3173)


def test_it_is_denser_sooner_than_the_field_s_reverb_and_wide_from_a_mono_source() -> None:
    """Echo density of a plate after 60 ms over 0.8 and over pedalboard's; left and right hardly correlate."""
    pedalboard = pytest.importorskip("pedalboard")
    ours = impulse_response(ReverbSettings("plate", 2.0, **OPEN))
    x = np.zeros((2, 3 * RATE), np.float32)
    x[:, 0] = 1.0
    theirs = pedalboard.Reverb(room_size=0.8, wet_level=1.0, dry_level=0.0)(x, RATE)
    found = [np.mean([echo_density(one, at) for one in y for at in (0.06, 0.07, 0.08)]) for y in (ours, theirs)]
    assert found[0] > 0.8, f"echo density {found[0]:.2f}"
    assert found[0] > found[1], f"echo density {found[0]:.2f}, pedalboard's {found[1]:.2f}"
    tail = ours[:, RATE // 10 : RATE]
    assert abs(np.corrcoef(tail)[0, 1]) < 0.15, f"correlation {np.corrcoef(tail)[0, 1]:.2f}"


def test_predelay_cuts_width_and_mix_do_what_they_say() -> None:
    """Silence for the pre-delay; little below the low cut; width 0 is mono; mix 0 is a wire."""
    late = impulse_response(ReverbSettings("room", 0.5, predelay_ms=40.0), seconds=0.5)
    assert not late[:, : int(0.039 * RATE)].any()
    spectrum = np.abs(np.fft.rfft(impulse_response(ReverbSettings("hall", 1.0, low_cut_hertz=400.0))[0]))
    hertz = np.fft.rfftfreq(3 * RATE, 1.0 / RATE)
    low, mid = (np.sqrt(np.mean(spectrum[(hertz > a) & (hertz < b)] ** 2)) for a, b in ((40.0, 80.0), (900.0, 1_200.0)))
    assert 20.0 * np.log10(low / mid) < -25.0
    mono = impulse_response(ReverbSettings("plate", 0.5, width=0.0), seconds=0.5)
    assert np.array_equal(mono[0], mono[1])
    x = np.random.default_rng(2).standard_normal((2, 500)).astype(np.float32)
    assert np.array_equal(Reverb(ReverbSettings(mix=0.0), RATE).process(x), x)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(KINDS), st.lists(st.integers(1, 3_999), min_size=1, max_size=5, unique=True))
def test_any_cut_gives_the_same_samples(kind: ReverbKindName, cuts: list[int]) -> None:
    """Blocks of any size are bit-identical."""
    x = np.random.default_rng(3).standard_normal((2, 4_000)).astype(np.float32)
    s = ReverbSettings(kind, 0.5, predelay_ms=7.0)
    pieces = Reverb(s, RATE)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, sorted(cuts), axis=1)], axis=1)
    assert np.array_equal(cut, Reverb(s, RATE).process(x))


def test_the_tail_ends_in_exact_silence() -> None:
    """Nothing rings on in denormals."""
    reverb = Reverb(ReverbSettings("room", 0.1), RATE)
    reverb.process(np.ones((2, 64), np.float32))
    for _ in range(20):
        tail = reverb.process(np.zeros((2, RATE // 2), np.float32))
    assert not tail.any()


@pytest.mark.parametrize("change", [{"kind": "cave"}, {"decay_seconds": 0.05}, {"mix": 1.5}], ids=str)
def test_wrong_numbers_are_refused(change: dict[str, object]) -> None:
    """By name."""
    with pytest.raises(ValueError, match=next(iter(change))):
        ReverbSettings(**change)  # type: ignore[arg-type]
