"""Linear-phase equaliser: response, symmetry, alignment, independence of chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from outboard.audio.fir import StreamConvolver, linear_phase_taps, response_db

RATE_HERTZ = 48000


def test_the_response_is_what_was_asked_for() -> None:
    """At the points of the curve the gain is within 0.1 dB, and level beyond its ends."""
    taps = linear_phase_taps([60.0, 300.0, 2000.0, 9000.0], [1.0, -3.0, 0.0, 2.0], RATE_HERTZ)
    gains = response_db(taps, [60.0, 300.0, 2000.0, 9000.0, 15000.0], RATE_HERTZ)
    assert np.abs(gains - [1.0, -3.0, 0.0, 2.0, 2.0]).max() <= 0.1, f"{gains} dB"


def test_taps_are_exactly_symmetric() -> None:
    """Linear phase by construction: the taps read the same from both ends, to the last bit."""
    taps = linear_phase_taps([100.0, 1000.0], [3.0, -3.0], 44100, taps=4095)
    assert taps.size == 4095
    assert np.array_equal(taps, taps[::-1])


def test_dc_is_nulled() -> None:
    """A falling curve with a nulled DC lets no DC through and keeps what lies above the rumble."""
    taps = linear_phase_taps([2.0, 20.0, 30.0], [-80.0, -4.0, 0.0], RATE_HERTZ, null_dc=True)
    assert abs(float(taps.sum())) <= 1e-12
    gains = response_db(taps, [40.0, 60.0, 1000.0], RATE_HERTZ)
    assert np.abs(gains[1:]).max() <= 0.1, f"{gains} dB"


def test_an_impulse_stays_where_it_is() -> None:
    """The delay of the symmetric taps is taken out."""
    audio = np.zeros((2, 30000), dtype=np.float32)
    audio[:, 12345] = 1.0
    taps = linear_phase_taps([100.0, 1000.0], [3.0, 0.0], RATE_HERTZ)
    out = StreamConvolver(taps, 2).process(audio, last=True)
    assert out.shape == audio.shape
    assert int(np.abs(out[0]).argmax()) == 12345


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9000), st.integers(1, 4000), st.sampled_from([63, 511, 2047]))
def test_any_cut_gives_the_direct_convolution(frames: int, chunk: int, taps: int) -> None:
    """However the stream is cut, the bytes are the same, and they are the convolution to 1e-6."""
    generator = np.random.default_rng(frames)
    audio = generator.standard_normal((2, frames)).astype(np.float32)
    kernel = linear_phase_taps([200.0, 2000.0], [6.0, -6.0], RATE_HERTZ, taps=taps)
    whole = StreamConvolver(kernel, 2).process(audio, last=True)
    stream = StreamConvolver(kernel, 2)
    pieces = [stream.process(audio[:, at : at + chunk]) for at in range(0, frames, chunk)]
    pieces.append(stream.process(np.zeros((2, 0), dtype=np.float32), last=True))
    cut = np.concatenate(pieces, axis=1)
    assert np.array_equal(cut, whole)
    if frames:
        direct = signal.fftconvolve(np.pad(audio, ((0, 0), (taps // 2, taps // 2))), kernel[None], "valid", axes=1)
        assert np.abs(whole - direct).max() <= 1e-5


@pytest.mark.parametrize(
    ("frequencies", "gains", "taps"),
    [([100.0], [1.0, 2.0], 63), ([100.0, 50.0], [0.0, 0.0], 63), ([0.0, 50.0], [0.0, 0.0], 63), ([100.0], [0.0], 64)],
)
def test_impossible_curves_are_refused(frequencies: list[float], gains: list[float], taps: int) -> None:
    """Lengths that differ, frequencies that do not rise from above 0, an even number of taps: errors."""
    with pytest.raises(ValueError, match=r"gains|rise|odd"):
        linear_phase_taps(frequencies, gains, RATE_HERTZ, taps=taps)


def test_a_finished_stream_takes_no_more() -> None:
    """After `last` the stream has ended; a block of another channel count is refused."""
    stream = StreamConvolver(np.ones(3) / 3, 1)
    with pytest.raises(ValueError, match="shape"):
        stream.process(np.zeros((2, 4), dtype=np.float32))
    stream.process(np.zeros((1, 4), dtype=np.float32), last=True)
    with pytest.raises(ValueError, match="ended"):
        stream.process(np.zeros((1, 4), dtype=np.float32))
