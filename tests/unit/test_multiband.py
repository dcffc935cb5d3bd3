"""The multiband compressor: flat at rest, bands apart, look-ahead aligned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from outboard.audio.dynamics import CompressorSettings
from outboard.audio.multiband import CompressorBand, MultibandCompressor

Array = NDArray[np.float32]
REST = CompressorSettings(0.0, 1.0)
PRESS = CompressorSettings(-40.0, 4.0, knee_db=0.0, attack_ms=5.0, release_ms=50.0)


def sine(hertz: float, peak: float = 0.5) -> Array:
    return np.tile(peak * np.sin(2 * np.pi * hertz * np.arange(48_000) / 48_000), (2, 1)).astype(np.float32)


def gain_db(at_work: MultibandCompressor, audio: Array) -> float:
    """In the second half of a second."""
    out = at_work.process(audio)
    return 20 * math.log10(float(out[:, 24_000:].std()) / float(audio[:, 24_000:].std()))


@pytest.mark.parametrize(
    "edges", [(250.0,), (120.0, 2_000.0), (100.0, 800.0, 5_000.0), (60.0, 300.0, 2_000.0, 8_000.0)]
)
def test_at_rest_every_frequency_keeps_its_level(edges: tuple[float, ...]) -> None:
    """With two to five bands and no compression the magnitude is flat to 0.05 dB, at the splits too."""
    bands = tuple(CompressorBand(edge, REST) for edge in (*edges, 0.0))
    impulse = np.zeros((2, 48_000), np.float32)
    impulse[:, 100] = 1.0
    out = MultibandCompressor(bands, 48_000, 2).process(impulse)
    response = 20 * np.log10(np.abs(np.fft.rfft(out[0].astype(np.float64))))
    worst = float(np.abs(response[20:20_000]).max())
    assert worst <= 0.05, f"{worst:.3f} dB"


def test_a_loud_bass_does_not_press_the_top() -> None:
    """Only the band that is over its threshold is lowered, by what the static curve says, within 0.3 dB."""
    bands = (CompressorBand(300.0, PRESS), CompressorBand(0.0, REST))
    low = gain_db(MultibandCompressor(bands, 48_000, 2), sine(50.0))
    high = gain_db(MultibandCompressor(bands, 48_000, 2), sine(5_000.0))
    level_db = 20 * math.log10(0.5 / math.sqrt(2))
    assert low == pytest.approx(-0.75 * (level_db + 40.0), abs=0.3), f"{low:.2f} dB"
    assert abs(high) <= 0.05, f"{high:.3f} dB"


def test_bands_with_different_look_ahead_stay_together() -> None:
    """Look-ahead in one band delays all of them alike: at rest an impulse stays one impulse."""
    ahead = CompressorSettings(0.0, 1.0, lookahead_ms=5.0)
    late = MultibandCompressor((CompressorBand(500.0, ahead), CompressorBand(0.0, REST)), 48_000, 2)
    plain = MultibandCompressor((CompressorBand(500.0, REST), CompressorBand(0.0, REST)), 48_000, 2)
    impulse = np.zeros((2, 5_000), np.float32)
    impulse[:, 1_000] = 1.0
    assert late.latency_frames == 240
    assert np.allclose(late.process(impulse)[:, 240:], plain.process(impulse)[:, :-240], atol=1e-7)


def test_reports_the_band_that_moved_most() -> None:
    """Mean and extreme gain are those of the busiest band."""
    at_work = MultibandCompressor((CompressorBand(300.0, PRESS), CompressorBand(0.0, REST)), 48_000, 2)
    at_work.process(sine(50.0))
    assert at_work.average_gain_db < -10.0
    assert at_work.extreme_gain_db <= at_work.average_gain_db


@pytest.mark.parametrize(
    "bands",
    [
        (CompressorBand(0.0, REST),),
        (CompressorBand(500.0, REST), CompressorBand(200.0, REST), CompressorBand(0.0, REST)),
        (CompressorBand(500.0, REST), CompressorBand(900.0, REST)),
        (CompressorBand(500.0, CompressorSettings(0.0, 2.0, sidechain="kick")), CompressorBand(0.0, REST)),
    ],
)
def test_what_cannot_be_split_is_refused(bands: tuple[CompressorBand, ...]) -> None:
    """Too few bands, edges that fall, an open end that is closed, a sidechain: each an error."""
    with pytest.raises(ValueError, match=r"bands|edges"):
        MultibandCompressor(bands, 48_000, 2)
