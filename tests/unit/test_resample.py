"""Resampling: exact length, no latency, independent of cuts, transparent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.resample import StreamResampler, resample, resampled_frames

RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 176400, 192000)


@given(
    from_hertz=st.one_of(st.sampled_from(RATES), st.integers(8000, 192000)),
    to_hertz=st.sampled_from(RATES),
    frames=st.integers(0, 3000),
    channels=st.integers(1, 2),
    cuts=st.lists(st.integers(0, 3000), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_length_is_exact_and_cuts_do_not_matter(
    from_hertz: int, to_hertz: int, frames: int, channels: int, cuts: list[int]
) -> None:
    """Any rates, any length, any cuts: round(n * to / from) frames, the same bits as in one piece."""
    song = np.random.default_rng(frames).uniform(-1.0, 1.0, (channels, frames)).astype(np.float32)
    whole = resample(song, from_hertz, to_hertz)
    assert whole.shape == (channels, resampled_frames(frames, from_hertz, to_hertz))
    assert abs(whole.shape[1] - frames * to_hertz / from_hertz) <= 0.5
    stream = StreamResampler(from_hertz, to_hertz, channels)
    pieces = [stream.process(piece) for piece in np.split(song, sorted(min(cut, frames) for cut in cuts), axis=1)]
    pieces.append(stream.process(song[:, :0], last=True))
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), whole)


@pytest.mark.parametrize("to_hertz", [44100, 88200, 96000])
def test_there_and_back_gives_the_length_back(to_hertz: int) -> None:
    """A song of any length has that length again after going from `to_hertz` to 48 kHz and back."""
    if to_hertz <= 48000:
        for frames in range(2000):
            there = resampled_frames(frames, to_hertz, 48000)
            assert resampled_frames(there, 48000, to_hertz) == frames
    for frames in range(2000):
        if to_hertz >= 48000:
            assert resampled_frames(resampled_frames(frames, 48000, to_hertz), to_hertz, 48000) == frames


@pytest.mark.parametrize(("from_hertz", "to_hertz"), [(44100, 48000), (48000, 44100), (48000, 96000), (96000, 48000)])
def test_no_latency(from_hertz: int, to_hertz: int) -> None:
    """An impulse at second 0.1 stays there, and so does the centre of its energy, within 0.001 samples."""
    song = np.zeros((1, from_hertz // 4), dtype=np.float32)
    song[0, from_hertz // 10] = 1.0
    out = resample(song, from_hertz, to_hertz)[0].astype(np.float64)
    assert np.abs(out).argmax() == to_hertz // 10
    centre = np.sum(out**2 * np.arange(len(out))) / np.sum(out**2)
    assert abs(centre - to_hertz / 10) < 1e-3, f"centre at {centre}, expected {to_hertz / 10}"


def test_equal_rates_pass_bit_for_bit() -> None:
    """The same rate in and out changes nothing and delays nothing."""
    song = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    np.testing.assert_array_equal(StreamResampler(48000, 48000, 2).process(song), song)


@pytest.mark.parametrize("tone_hertz", [100.0, 1000.0, 15000.0, 20000.0])
def test_tones_pass_within_a_hundredth_of_a_decibel_and_alone(tone_hertz: float) -> None:
    """44.1 to 48 kHz: up to 20 kHz a tone keeps its level within 0.01 dB, and nothing else is over -140 dB."""
    there = np.sin(2 * np.pi * tone_hertz * np.arange(44100) / 44100)[None].astype(np.float32)
    angle = 2 * np.pi * tone_hertz * np.arange(48000)[4800:-4800] / 48000
    out = resample(there, 44100, 48000)[0, 4800:-4800].astype(np.float64)
    basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    in_phase, quadrature = np.linalg.lstsq(basis, out, rcond=None)[0]
    gain_db = 20 * np.log10(np.hypot(in_phase, quadrature))
    rest_db = 20 * np.log10(np.abs(out - basis @ [in_phase, quadrature]).max())
    assert abs(gain_db) < 0.01, f"{gain_db:.4f} dB at {tone_hertz} Hz"
    assert abs(quadrature) < 1e-6, f"quadrature {quadrature:.2e} at {tone_hertz} Hz"
    assert rest_db < -140, f"{rest_db:.1f} dB beside the tone at {tone_hertz} Hz"


def test_a_stream_that_has_ended_takes_nothing_more() -> None:
    """Going on after `last` is a mistake of the caller, and so is another number of channels."""
    stream = StreamResampler(44100, 48000, 2)
    with pytest.raises(ValueError, match="shape"):
        stream.process(np.zeros((1, 5), dtype=np.float32))
    stream.process(np.zeros((2, 5), dtype=np.float32), last=True)
    with pytest.raises(ValueError, match="ended"):
        stream.process(np.zeros((2, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="positive"):
        StreamResampler(0, 48000, 2)
