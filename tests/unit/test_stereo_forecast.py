"""The field behind the strips is forecast from measurements, and the mix's own field is planned on that."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard import presets
from outboard.audio.analysis import Analysis, analyze
from outboard.audio.processors import Processor, StereoField, StereoWidth
from outboard.audio.stereo import StereoMeter, left_right, mid_side
from services.mixer.brief import Brief
from services.mixer.console import MixPlan, MixSettings, Strip
from services.mixer.plan import plan
from services.mixer.stereo_forecast import Field, after_strips

RATE = 48_000
BALANCED = presets.load("balanced")
ROLES = {"vocals": "lead_vocal", "drums": "drums", "bass": "bass", "other": "other"}
# Side over mid of each part, dB; none for the bass.
RATIOS = {"vocals": -12.0, "drums": -8.0, "bass": None, "other": 2.0}


@functools.cache
def stems(shared: float) -> dict[str, np.ndarray]:
    """Four parts of pink noise, ``shared`` of each one's amplitude the same in all: 0 strangers, 1 one sound."""
    rng = np.random.default_rng(1)
    hertz = np.fft.rfftfreq(2 * RATE, 1.0 / RATE)
    slope = 1.0 / np.sqrt(np.maximum(hertz, 40.0))

    def pink() -> np.ndarray:
        wave = np.fft.irfft(np.fft.rfft(rng.standard_normal(2 * RATE)) * slope)
        return np.asarray(0.05 * wave / np.std(wave))

    common = np.stack([pink(), pink()])
    parts = {}
    for name, ratio in RATIOS.items():
        own = np.stack([pink(), pink()])
        both = np.sqrt(1.0 - shared**2) * own + shared * common
        both[1] *= 0.0 if ratio is None else 10.0 ** (ratio / 20.0)
        parts[name] = left_right(both).astype(np.float32)
    return parts


@functools.cache
def measured(shared: float, name: str) -> Analysis:
    sound = song(shared) if name == "song" else stems(shared)[name]
    return analyze(sound, RATE)


def song(shared: float) -> np.ndarray:
    return np.asarray(np.sum(list(stems(shared).values()), axis=0), np.float32)


def forecast(shared: float, strips: tuple[Strip, ...]) -> Field:
    whole = measured(shared, "song")
    brief = Brief({name: measured(shared, name) for name in RATIOS}, whole, BALANCED, MixSettings(), ROLES)
    found = after_strips(brief, whole, strips, ())
    assert found is not None
    return found


def side_mid_db(sound: np.ndarray) -> float:
    meter = StereoMeter()
    meter.process(sound)
    assert meter.mid_side_ratio_db is not None
    return meter.mid_side_ratio_db


@pytest.mark.parametrize("shared", [0.0, 0.7])
def test_strips_that_change_nothing_leave_the_song_s_field(shared: float) -> None:
    """Band for band, and in the whole within 0.1 dB."""
    whole = measured(shared, "song")
    found = forecast(shared, tuple(Strip(name, role) for name, role in ROLES.items()))
    assert found.whole_db == pytest.approx(side_mid_db(song(shared)), abs=0.1)
    for band, before in zip(found.bands, whole.stereo_bands, strict=True):
        assert 10.0 * np.log10(band.side / band.mid) == pytest.approx(before.mid_side_ratio_db, abs=1e-6)
        assert band.lean == pytest.approx(before.lean, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(
    shared=st.sampled_from([0.0, 0.7, 1.0]),
    widths=st.lists(st.floats(0.2, 1.4), min_size=4, max_size=4),
    faders=st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4),
)
def test_widths_and_faders_are_forecast_within_half_a_db(
    shared: float, widths: list[float], faders: list[float]
) -> None:
    """Parts that are strangers, partly alike or one sound: side over mid of the sum that is really rendered."""
    strips = tuple(
        Strip(name, role, gain_db=fader, chain=(Processor("width", StereoWidth(side_gain=width)),))
        for (name, role), width, fader in zip(ROLES.items(), widths, faders, strict=True)
    )
    total = np.zeros((2, 2 * RATE))
    for strip, width in zip(strips, widths, strict=True):
        both = mid_side(stems(shared)[strip.stem])
        both[1] *= width
        total += 10.0 ** (strip.gain_db / 20.0) * left_right(both)
    found, real = forecast(shared, strips).whole_db, side_mid_db(total)
    assert found == pytest.approx(real, abs=0.5), f"forecast {found:.2f} dB, rendered {real:.2f} dB"


def field_of(made: MixPlan) -> StereoField | None:
    return next((p.kind for p in made.master_chain if isinstance(p.kind, StereoField)), None)


def decided(whole: Analysis, shared: float = 0.0) -> MixPlan:
    return plan({name: measured(shared, name) for name in RATIOS}, ROLES, whole, BALANCED, MixSettings())


def test_what_a_strip_took_is_not_taken_again() -> None:
    """The wide part is narrowed on its strip; the mix takes only what is left beyond the limits, to half a dB."""
    made = decided(measured(0.0, "song"))
    widths = {s.stem: p.kind.side_gain for s in made.strips for p in s.chain if isinstance(p.kind, StereoWidth)}
    assert widths == {"other": pytest.approx(10.0 ** (-2.0 / 20.0), abs=0.02)}
    behind = forecast(0.0, made.strips)
    assert behind.whole_db < side_mid_db(song(0.0)) - 0.5
    field = field_of(made)
    assert field is not None
    gains = {band.low_hertz: band.side_gain for band in field.bands}
    after = [10.0 * np.log10(b.side / b.mid * gains.get(b.low_hertz, 1.0) ** 2) for b in behind.bands]
    assert np.mean(after) == pytest.approx(BALANCED["mix.width_gate_db"], abs=0.5), (
        f"song {side_mid_db(song(0.0)):.1f} dB, behind the strips {behind.whole_db:.1f}, "
        f"bands {behind.mean_db:.1f} to {np.mean(after):.1f} dB"
    )


def test_sides_in_the_bass_are_narrowed_with_the_rest() -> None:
    """Most power of a song lies under the thirds that are measured: left alone, its sides keep the whole too wide."""
    wide = np.concatenate([stems(0.0)["other"][:1], stems(0.0)["vocals"][:1]])
    parts = {"other": wide, "vocals": (0.01 * stems(0.0)["vocals"]).astype(np.float32)}
    analyses = {name: analyze(sound, RATE) for name, sound in parts.items()}
    whole = analyze(np.asarray(sum(parts.values()), np.float32), RATE)
    field = field_of(plan(analyses, ROLES, whole, BALANCED, MixSettings(bypass=("width",))))
    assert field is not None
    assert field.bands[0].low_hertz == 20.0
    assert field.bands[0].high_hertz == field.bands[1].low_hertz
    assert field.bands[0].side_gain < 0.9, field.bands[0]


def test_a_sum_that_its_strips_made_narrow_enough_is_left_alone() -> None:
    """A song over the limits whose wide part is turned down by its strip needs no field of its own."""
    whole = measured(0.0, "song")
    assert field_of(decided(whole)) is not None
    loud = dataclasses.replace(measured(0.0, "other"), integrated_lufs=whole.integrated_lufs)
    brief = Brief({**{n: measured(0.0, n) for n in RATIOS}, "other": loud}, whole, BALANCED, MixSettings(), ROLES)
    mono = (Processor("width", StereoWidth(side_gain=0.0)),)
    strips = tuple(Strip(name, role, chain=mono if name == "other" else ()) for name, role in ROLES.items())
    found = after_strips(brief, whole, strips, ())
    assert found is not None
    assert found.mean_db < BALANCED["mix.width_gate_db"], f"{found.mean_db:.1f} dB"
    assert found.whole_db < BALANCED["mix.width_sum_limit_db"], f"{found.whole_db:.1f} dB"
