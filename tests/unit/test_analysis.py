"""What the analysis says of audio whose answer is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.demo import synthesise
from outboard.audio.spectrum import SpectrumStream
from outboard.audio.true_peak import TruePeakMeter
from outboard.errors import InvalidInput

RATE = 48000


def _sine(hertz: float, seconds: float = 2.0, level: float = 0.5, rate: int = RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def _noise(seconds: float = 3.0, channels: int = 2, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((channels, int(seconds * RATE))) * 0.1).astype(np.float32)


def test_levels_of_a_sine() -> None:
    """A sine of amplitude 0.5: peak -6.02 dBFS, RMS -9.03 dBFS, crest 3.01 dB, true peak equal to the peak."""
    analysis = analyze(np.stack([_sine(1000.0)] * 2), RATE)
    assert analysis.sample_peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert analysis.rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert analysis.crest_factor_db == pytest.approx(3.01, abs=0.01)
    assert analysis.true_peak_dbtp == pytest.approx(-6.02, abs=0.4)
    assert analysis.integrated_lufs == pytest.approx(-6.02, abs=0.1)


def test_stereo_of_known_signals() -> None:
    """Mono, antiphase and uncorrelated channels have width 0, 2, 1 and correlation 1, -1, 0."""
    noise = _noise(4.0)
    mono = analyze(np.stack([noise[0], noise[0]]), RATE)
    assert (mono.width, mono.mid_side_ratio_db) == (0.0, None)
    assert mono.correlation == pytest.approx(1.0)
    assert mono.low_correlation == pytest.approx(1.0)
    antiphase = analyze(np.stack([noise[0], -noise[0]]), RATE)
    assert antiphase.width == pytest.approx(2.0)
    assert antiphase.correlation == pytest.approx(-1.0)
    wide = analyze(noise, RATE)
    assert wide.width == pytest.approx(1.0, abs=0.02)
    assert wide.correlation == pytest.approx(0.0, abs=0.02)
    assert wide.mid_side_ratio_db == pytest.approx(0.0, abs=0.1)
    narrow = analyze(np.stack([noise[0] + 0.1 * noise[1], noise[0] - 0.1 * noise[1]]), RATE)
    assert narrow.mid_side_ratio_db == pytest.approx(-20.0, abs=0.2)


def test_low_correlation_hears_the_lows_only() -> None:
    """A bass in antiphase under a mono treble: the lows are at -1 whatever the whole is."""
    low, high = _sine(60.0, level=0.2), _sine(3000.0, level=0.5)
    analysis = analyze(np.stack([high + low, high - low]), RATE)
    assert analysis.low_correlation == pytest.approx(-1.0, abs=0.01)
    assert analysis.correlation is not None
    assert analysis.correlation > 0.5


def test_band_levels_find_the_band() -> None:
    """A sine lies in its band; the six bands are those of the report, and level minus target is the deviation."""
    analysis = analyze(np.stack([_sine(1000.0)] * 2), RATE)
    edges = [(band.low_hertz, band.high_hertz) for band in analysis.band_levels]
    assert edges == [(20, 60), (60, 200), (200, 500), (500, 2000), (2000, 6000), (6000, 16000)]
    assert analysis.band_levels[3].level_db == pytest.approx(0.0, abs=0.01)
    assert max(band.level_db for band in analysis.band_levels if band.low_hertz != 500) < -40
    for band in analysis.band_levels:
        assert band.deviation_db == pytest.approx(band.level_db - band.target_db)
    shares = sum(10 ** (band.target_db / 10) for band in analysis.band_levels)
    assert shares == pytest.approx(1.0)


def test_white_noise_fills_bands_by_their_width() -> None:
    """White noise: each band's share is its width over 20 Hz to 16 kHz."""
    for band in analyze(_noise(5.0), RATE).band_levels:
        expected = 10 * math.log10((band.high_hertz - band.low_hertz) / (16000 - 20))
        assert band.level_db == pytest.approx(expected, abs=0.5), band


@pytest.mark.parametrize("cutoff", [8000, 15000, 18000])
def test_bandwidth_finds_a_brick_wall(cutoff: int) -> None:
    """Noise cut by a steep filter ends where the filter does, within 400 Hz."""
    from scipy import signal

    taps = signal.firwin(1201, cutoff, window=("kaiser", 12.0), fs=RATE)
    audio = signal.oaconvolve(_noise(3.0), taps[None, :], axes=1).astype(np.float32)
    bandwidth = analyze(audio[:, 2000:-2000], RATE).bandwidth_hertz
    assert bandwidth is not None
    assert abs(bandwidth - cutoff) < 400, f"{bandwidth:.0f} Hz, cut at {cutoff}"


def test_clipping_counts_flat_runs() -> None:
    """Runs of 3 and more at full scale count, single full-scale samples do not; each channel and sign by itself."""
    audio = np.zeros((2, 10000), np.float32)
    audio[0, 100:105] = 1.0
    audio[1, 200:203] = -1.0
    audio[0, 300] = audio[0, 302] = 1.0
    audio[1, 400], audio[1, 401] = 1.0, -1.0
    audio[0, 500:503] = 1.3  # over full scale is clipped further on
    assert analyze(audio, RATE).clipped_samples == 5 + 3 + 3


def test_dc_mean_and_deviation() -> None:
    """Offsets per channel, and the mono mean and deviation that a Demucs model is normalised with."""
    audio = _noise(2.0) + np.array([[0.1], [-0.04]], np.float32)
    analysis = analyze(audio, RATE)
    mono = audio.astype(np.float64).mean(axis=0)
    assert analysis.dc_offset == pytest.approx((0.1, -0.04), abs=2e-3)
    assert analysis.mean == pytest.approx(mono.mean(), rel=1e-6)
    assert analysis.deviation == pytest.approx(mono.std(ddof=1), rel=1e-6)


def test_noise_floor() -> None:
    """One tenth of the time at -60 dBFS: the level exceeded 95 % of the time is that."""
    audio = _noise(10.0)
    audio[:, -RATE:] *= 0.01
    floor = analyze(audio, RATE).noise_floor_dbfs
    assert floor == pytest.approx(-60.0, abs=1.0)


@pytest.mark.parametrize("bpm", [90.0, 120.0, 140.0])
def test_tempo_of_clicks(bpm: float) -> None:
    """Clicks at a tempo read as that tempo within 4 %."""
    audio = np.zeros(20 * RATE, np.float32)
    click = (np.random.default_rng(0).standard_normal(2000) * np.exp(-np.arange(2000) / 300)).astype(np.float32)
    for beat in np.arange(0.0, 19.5, 60.0 / bpm):
        begin = int(beat * RATE)
        audio[begin : begin + len(click)] += 0.3 * click
    tempo = analyze(np.stack([audio] * 2), RATE).tempo_bpm
    assert tempo == pytest.approx(bpm, rel=0.04)


@pytest.mark.parametrize(
    ("chords", "key"),
    [
        ([(0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7)], "C major"),
        ([(9, 12, 16), (2, 5, 9), (4, 8, 11), (9, 12, 16)], "A minor"),
    ],
)
def test_key_of_a_cadence(chords: list[tuple[int, ...]], key: str) -> None:
    """I-IV-V-I in C, and i-iv-V-i in A minor, are recognised, with some confidence."""
    bars = [
        sum(_sine(261.63 * 2 ** (note / 12) * partial, 2.0, 0.1 / partial) for note in chord for partial in (1, 2, 3))
        for chord in chords * 2
    ]
    analysis = analyze(np.concatenate(bars)[None, :].repeat(2, 0).astype(np.float32), RATE)
    assert analysis.key == key
    assert analysis.key_confidence is not None
    assert 0.0 < analysis.key_confidence <= 1.0


def _values(analysis: Analysis) -> list[float]:
    flat = [getattr(analysis, field.name) for field in dataclasses.fields(analysis)]
    numbers = [value for value in flat if isinstance(value, int | float)]
    numbers += [number for band in analysis.band_levels for number in (band.level_db, band.deviation_db)]
    return numbers + list(analysis.dc_offset)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [0, 1, 3, 100, 19000])
def test_short_audio_has_a_defined_answer(frames: int, channels: int) -> None:
    """From no frame to under 400 ms: no loudness, no tempo, no key, and every number that there is is finite."""
    analysis = analyze(_noise(1.0, channels)[:, :frames], RATE)
    assert analysis.frames == frames
    assert analysis.integrated_lufs is None
    assert analysis.loudness_range_lu is None
    assert analysis.tempo_bpm is None
    assert analysis.key is None
    assert np.isfinite(_values(analysis)).all()
    assert (analysis.rms_dbfs is None) == (frames == 0)


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_has_a_defined_answer(channels: int) -> None:
    """Silence: what has no meaning is None, counts are 0, nothing is infinite."""
    analysis = analyze(np.zeros((channels, 7 * RATE), np.float32), RATE)
    unmeasurable = (
        "integrated_lufs true_peak_dbtp rms_dbfs crest_factor_db bandwidth_hertz tempo_bpm key shimmer_index mud_index "
        "spectral_hole_ratio flat_dynamics_index correlation width mid_side_ratio_db low_correlation noise_floor_dbfs"
    )
    for name in unmeasurable.split():
        assert getattr(analysis, name) is None, name
    assert analysis.band_levels == ()
    assert analysis.clipped_samples == 0
    assert analysis.dc_offset == (0.0,) * channels
    assert (analysis.mean, analysis.deviation) == (0.0, 0.0)


def test_constant_offset_has_a_defined_answer() -> None:
    """Nothing but DC: the offset is read, every number is finite."""
    analysis = analyze(np.full((2, 7 * RATE), 0.25, np.float32), RATE)
    assert analysis.dc_offset == pytest.approx((0.25, 0.25))
    assert analysis.deviation == pytest.approx(0.0, abs=1e-9)
    assert np.isfinite(_values(analysis)).all()


def test_one_channel_has_no_stereo() -> None:
    """One channel: correlation and ratio are None, width and hard panning 0."""
    analysis = analyze(_noise(3.0, channels=1), RATE)
    assert (analysis.channels, analysis.correlation, analysis.low_correlation, analysis.mid_side_ratio_db) == (
        1,
        None,
        None,
        None,
    )
    assert (analysis.width, analysis.hard_panning_index) == (0.0, 0.0)


def test_one_silent_channel() -> None:
    """One channel silent: no correlation, as hard panned as it gets."""
    audio = _noise(3.0)
    audio[1] = 0.0
    analysis = analyze(audio, RATE)
    assert analysis.correlation is None
    assert analysis.hard_panning_index == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(_values(analysis)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 70000, -1])
def test_not_finite_is_refused(bad: float, place: int) -> None:
    """NaN and infinity anywhere are a clear error."""
    audio = _noise(3.0)
    audio[1, place] = bad
    with pytest.raises(InvalidInput, match="NaN or infinity") as caught:
        analyze(audio, RATE)
    assert caught.value.reason == "AUDIO_NOT_FINITE"


@pytest.mark.parametrize("shape", [(3, 100), (100,), (0, 100)])
def test_shape_is_checked(shape: tuple[int, ...]) -> None:
    """One or two channels; anything else is refused."""
    with pytest.raises(InvalidInput, match="one or two channels"):
        analyze(np.zeros(shape, np.float32), RATE)


@pytest.mark.parametrize("rate", [0, 3999, 400000])
def test_rate_is_checked(rate: int) -> None:
    """4 to 384 kHz; anything else is refused."""
    with pytest.raises(InvalidInput, match="4000 to 384000"):
        analyze(np.zeros((2, 100), np.float32), rate)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000, 192000])
def test_every_rate_gives_the_same_levels(rate: int) -> None:
    """A 1 kHz tone reads the same at every rate, and bands beyond Nyquist are left out rather than made up."""
    analysis = analyze(np.stack([_sine(1000.0, 4.0, rate=rate)] * 2), rate)
    assert analysis.integrated_lufs == pytest.approx(-6.02, abs=0.1)
    assert analysis.rms_dbfs == pytest.approx(-9.03, abs=0.01)
    assert analysis.band_levels[-1].high_hertz == min(16000, rate / 2)
    assert (analysis.shimmer_index is None) == (rate < 25200)
    assert np.isfinite(_values(analysis)).all()


def test_memory_map_and_array_agree(tmp_path: Path) -> None:
    """A mapped, transposed, interleaved file gives the same analysis as the array."""
    audio = synthesise(5, 8.0).song
    path = tmp_path / "spool.f32"
    np.ascontiguousarray(audio.T).tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=(audio.shape[1], 2)).T
    assert analyze(mapped, RATE) == analyze(audio, RATE)


def test_progress_rises_to_one_and_may_stop() -> None:
    """Progress is called at least every 65536 frames, never falls, ends at 1, and an error it raises comes through."""
    seen: list[float] = []
    analyze(_noise(4.0), RATE, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) >= 4 * RATE / 65536

    def stop(_: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        analyze(_noise(4.0), RATE, progress=stop)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 30000), min_size=1, max_size=8), st.integers(0, 90000))
def test_spectra_do_not_depend_on_the_cut(cuts: list[int], frames: int) -> None:
    """Any cutting of the stream gives the same batches; all samples are in some frame."""
    audio = _noise(2.0)[:, :frames]

    def batches(pieces: list[np.ndarray]) -> list[np.ndarray]:
        stream = SpectrumStream(RATE, 2)
        found = [batch.spectra for piece in pieces for batch in stream.process(piece)]
        return found + [batch.spectra for batch in stream.finish()]

    whole = batches([audio])
    cut = batches(np.split(audio, np.minimum(np.cumsum(cuts), frames), axis=1))
    assert len(whole) == len(cut)
    assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))


def test_spectra_keep_the_level() -> None:
    """Parseval: the powers of a frame add up to the mean square of white noise."""
    stream = SpectrumStream(RATE, 2)
    batches = [batch.power.sum(axis=1) for batch in stream.process(_noise(10.0))]
    assert np.concatenate(batches).mean() == pytest.approx(0.01, rel=0.02)


def test_third_octaves_show_where_the_energy_is() -> None:
    """A sine's level stands in its own third of an octave (0 dB), white noise rises by 1 dB from each to the next."""
    time = np.arange(5 * 48_000) / 48_000
    sine = np.tile(0.2 * np.sin(2 * np.pi * 1_000 * time), (2, 1)).astype(np.float32)
    bands = analyze(sine, 48_000).third_octaves
    loudest = max(bands, key=lambda band: band.level_db)
    assert len(bands) == 28
    assert loudest.low_hertz < 1_000 < loudest.high_hertz
    assert loudest.level_db == pytest.approx(0.0, abs=0.05)
    noise = (0.1 * np.random.default_rng(1).standard_normal((2, 10 * 48_000))).astype(np.float32)
    levels = [band.level_db for band in analyze(noise, 48_000).third_octaves]
    slope = float(np.polyfit(np.arange(12), levels[14:26], 1)[0])
    assert slope == pytest.approx(1.0, abs=0.05), f"{slope:.3f} dB per third of an octave"
    assert len(analyze(noise, 8_000).third_octaves) == 22


def test_known_peaks_are_not_measured_again() -> None:
    """A meter that has read the audio already gives the same analysis as a new one."""
    audio = _noise(2.0)
    meter = TruePeakMeter(2)
    meter.process(audio)
    meter.finish()
    assert analyze(audio, RATE, known_peaks=meter) == analyze(audio, RATE)
