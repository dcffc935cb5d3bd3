"""Chains of processors: order, bypass, latency, sidechains; the transient shaper and the band extension."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from outboard.audio.chain import Chain
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
    Unmasker,
)
from outboard.audio.stereo import StereoFieldBand
from tests.processors import through

RATE = 48_000
KINDS: dict[str, ProcessorKind] = {
    "equalizer": Equalizer(
        (FilterBand("high_pass", 100.0), FilterBand("peak", 3_000.0, 2.0, 1.0), FilterBand("notch", 50.0, q=8.0))
    ),
    "dynamic_equalizer": DynamicEqualizer((DynamicBandSettings(320.0, 1.0, 4.0, -3.0, relative_threshold_db=-20.0),)),
    "compressor": Compressor(-30.0, 2.0, lookahead_ms=5.0),
    "tone": LinearPhaseEqualizer((CurvePoint(20.0, -60.0), CurvePoint(40.0), CurvePoint(3_000.0, 2.0)), 4_095),
    "bands": MultibandCompressor(
        (CompressorBand(200.0, CompressorSettings(-30.0, 2.0)), CompressorBand(0.0, CompressorSettings(-30.0, 2.0)))
    ),
    "warmth": Saturator("tape", 6.0),
    "transients": TransientShaper(attack_db=4.0, sustain_db=-2.0),
    "width": StereoWidth(0.7, 100.0),
    "field": StereoField((StereoFieldBand(300.0, 3_000.0, 0.7, 0.1),)),
    "air": BandExtender(15_000.0),
    "de_esser": DeEsser(threshold_db=-12.0),
    "gate": Expander(-26.0, 4.0, lookahead_ms=2.0),
    "echo": Delay(30.0, mix=0.2),
    "room": Reverb("room", 0.3, predelay_ms=5.0, mix=0.2),
    "chorus": Chorus(mix=0.2),
    "unmasker": Unmasker(),
}  # fmt: skip
ALL = tuple(Processor(label, kind) for label, kind in KINDS.items())


def noise(seed: int, frames: int = 20_000) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((2, frames))).astype(np.float32)


def test_an_empty_and_a_bypassed_chain_are_exact() -> None:
    """What is out of the path changes no bit and costs no latency."""
    x = noise(1)
    for processors in ((), tuple(Processor(p.label, p.kind, bypass=True) for p in ALL)):
        chain = Chain(processors, RATE)
        assert chain.latency_frames == 0
        assert np.array_equal(chain.process(x), x)
        assert chain.reports() == ()


@pytest.mark.parametrize("label", KINDS)
def test_every_processor_keeps_time(label: str) -> None:
    """An impulse at frame n has its peak at frame n once the stated latency is taken out."""
    x = np.zeros((2, 8_000), np.float32)
    x[:, 3_000] = 0.01
    y = through(Chain((Processor(label, KINDS[label]),), RATE), x)
    assert int(np.argmax(np.abs(y[0]))) == 3_000


def test_any_cut_gives_the_same_within_rounding() -> None:
    """Only the FFT filters depend on the block at all, by less than -130 dBFS."""
    x = noise(2)
    pieces = Chain(ALL, RATE)
    cut = np.concatenate([pieces.process(p) for p in np.split(x, [1, 900, 8_192], axis=1)], axis=1)
    assert np.max(np.abs(Chain(ALL, RATE).process(x) - cut)) < 3e-7


def test_a_sidechain_meets_the_frame_it_belongs_to() -> None:
    """A key passes the delays of the slots before: a late strip is ducked where the key sounds, not before."""
    keyed = Processor(
        "duck", Compressor(-40.0, 20.0, attack_ms=0.0, release_ms=1.0, rms_ms=0.0, knee_db=0.0, sidechain="kick")
    )
    late = Processor("field", StereoField((StereoFieldBand(300.0, 3_000.0, 0.999),)))
    chain = Chain((late, keyed), RATE)
    assert chain.key_names == {"kick"}
    x = np.full((2, 10_000), 0.1, np.float32)
    key = np.zeros((2, 10_000), np.float32)
    key[:, 4_000:5_000] = 1.0
    y = chain.process(x, {"kick": key})[0]
    start = 4_000 + chain.latency_frames
    assert np.all(y[start - 100 : start] > 0.099)
    assert np.all(y[start + 10 : start + 900] < 0.02)


def test_reports_carry_the_gains() -> None:
    """Processors with a moving gain report its mean and extreme, the others none."""
    chain = Chain(ALL, RATE)
    chain.process(noise(3, 96_000))
    reports = {r.label: r for r in chain.reports()}
    assert reports["compressor"].average_gain_db < -1.0
    assert reports["dynamic_equalizer"].average_gain_db < 0.0
    assert reports["transients"].extreme_gain_db > 0.0
    assert reports["equalizer"].average_gain_db is None


def test_transient_shaper_lifts_onsets_and_not_the_body() -> None:
    """The first milliseconds of a burst rise by several dB; its steady part stays within 0.2 dB, at any level."""
    burst = np.zeros((2, RATE), np.float32)
    burst[:, 12_000:36_000] = np.sin(2 * np.pi * 1_000 * np.arange(24_000) / RATE).astype(np.float32)
    lifts = []
    for level in (0.5, 0.05):
        x = burst * np.float32(level)
        y = Chain((Processor("t", TransientShaper(attack_db=6.0)),), RATE).process(x)
        onset, body = slice(12_048, 12_240), slice(30_000, 35_000)
        lifts.append(10 * np.log10(np.mean(y[:, onset] ** 2) / np.mean(x[:, onset] ** 2)))
        steady = 10 * np.log10(np.mean(y[:, body] ** 2) / np.mean(x[:, body] ** 2))
        assert abs(steady) < 0.2, f"body moved by {steady:.2f} dB"
    assert min(lifts) > 2.0, f"onset rose by {lifts} dB only"
    assert abs(lifts[0] - lifts[1]) < 0.5, f"level dependent: {lifts}"


def test_transient_shaper_of_a_band_hears_and_moves_that_band() -> None:
    """Over a loud bass an onset at 3 kHz rises by 2 dB and more above 800 Hz, the bass stays within 0.05 dB; without
    the band the same onset is not heard at all. Cut anywhere, the stream gives the same samples.
    """
    time = np.arange(48_000) / RATE
    bass = 0.5 * np.sin(2 * np.pi * 50.0 * time)
    click = np.where((time >= 0.25) & (time < 0.75), 0.05 * np.sin(2 * np.pi * 3000.0 * time), 0.0)
    x = np.tile(bass + click, (2, 1)).astype(np.float32)
    settings = TransientShaper(attack_db=6.0, low_hertz=800.0)
    y = Chain((Processor("t", settings),), RATE).process(x)
    onset = slice(12_000, 12_200)
    lifts = []
    for out in (y, Chain((Processor("t", TransientShaper(attack_db=6.0)),), RATE).process(x)):
        high = out[0] - bass
        lifts.append(10 * np.log10(np.mean(high[onset] ** 2) / np.mean(click[onset] ** 2)))
    assert lifts[0] > 2.0, f"onset rose by {lifts[0]:.2f} dB"
    assert abs(lifts[1]) < 1.0, f"heard without its band: {lifts[1]:.2f} dB"
    before, after = (np.abs(np.fft.rfft(z[0].astype(np.float64)))[50] for z in (x, y))
    assert abs(20 * np.log10(after / before)) < 0.05, f"bass moved by {20 * np.log10(after / before):.3f} dB"
    cut = Chain((Processor("t", settings),), RATE)
    pieces = np.concatenate([cut.process(x[:, :777]), cut.process(x[:, 777:])], axis=1)
    assert np.array_equal(pieces, y)


def test_band_extension_fills_above_the_cutoff_only() -> None:
    """Below the cutoff nothing changes; above it the copy stands at its gain and slope."""
    x = noise(4, 4 * RATE)
    spectrum = np.fft.rfft(x)
    hertz = np.fft.rfftfreq(x.shape[1], 1 / RATE)
    spectrum[:, hertz > 14_900.0] = 0.0
    x = np.fft.irfft(spectrum).astype(np.float32)
    y = through(Chain((Processor("air", BandExtender(15_000.0, 5_000.0, -6.0, -24.0)),), RATE), x)

    def level_db(z: np.ndarray, low: float, high: float) -> float:
        return float(
            10 * np.log10(np.sum(np.abs(np.fft.rfft(z[0])[(hertz >= low) & (hertz < high)]) ** 2) / (high - low))
        )

    assert abs(level_db(y - x, 1_000, 14_500) - level_db(x, 1_000, 14_500)) > 60.0, "the copy reaches below the cutoff"
    for hz in (15_500.0, 17_000.0, 19_000.0):
        got = level_db(y, hz - 200, hz + 200) - level_db(x, hz - 5_200, hz - 4_800)
        wanted = -6.0 - 24.0 * np.log2(hz / 15_000.0)
        assert abs(got - wanted) < 0.7, f"{got:.2f} dB at {hz:.0f} Hz, wanted {wanted:.2f} dB"


@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float32, (2, 64), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_finite_stays_finite(x: np.ndarray) -> None:
    """Any finite input gives finite output through all processors."""
    assert np.all(np.isfinite(Chain(ALL, RATE).process(x)))


def test_an_unknown_filter_shape_is_refused() -> None:
    """A plan that was edited wrongly fails when it is set up."""
    with pytest.raises(ValueError, match="comb"):
        Chain((Processor("eq", Equalizer((FilterBand("comb", 100.0),))),), RATE)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", KINDS)
def test_the_largest_samples_stay_finite(label: str) -> None:
    """At the end of float32's range, where a square or a sum would overflow it: every processor by itself."""
    x = np.sign(noise(9, 4_000)) * np.float32(3.4e38)
    y = Chain((Processor(label, KINDS[label]),), RATE).process(x)
    assert np.all(np.isfinite(y))
