"""Processors of the console for tests: one of every kind, and what is measured on them through the chain that renders
plans, at 44.1, 48 and 96 kHz.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy.signal import hilbert

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
    MinimumPhaseEqualizer,
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

RATES = (44_100, 48_000, 96_000)
AT_ALL_RATES = pytest.mark.parametrize("rate", RATES)
IMPULSE_FRAMES = 1 << 17
TOLERANCE_DB = 0.1

KINDS: dict[str, ProcessorKind] = {
    "equalizer": Equalizer((FilterBand("high_pass", 100.0, order=4), FilterBand("peak", 3_000.0, 2.0, 1.0))),
    "linear_phase": LinearPhaseEqualizer((CurvePoint(20.0, -3.0), CurvePoint(3_000.0, 2.0)), 1_023),
    "minimum_phase": MinimumPhaseEqualizer((CurvePoint(20.0, -3.0), CurvePoint(3_000.0, 2.0)), 1_023),
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
    "unmasker": Unmasker(),
    "congestion": DynamicEqualizer((DynamicBandSettings(320.0, 1.0, 4.0, -3.0, relative_threshold_db=-10.0),)),
    "peaks": Compressor(-30.0, 8.0, detector="peak", hold_ms=20.0, mix=0.5, sidechain_high_pass_hertz=100.0),
    "onsets_above": TransientShaper(attack_db=4.0, low_hertz=800.0),
    "saturated_band": Saturator("tube", 12.0, 0.6, 200.0, 8_000.0),
    "ping_pong": Delay(100.0, 0.3, ping_pong=True, mix=0.4),
    "hall": Reverb("hall", 0.3, 20.0, width=0.5, mix=0.3),
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
    "gives_no_way": Unmasker(range_db=0.0),
}


def chain(kind: ProcessorKind, rate: int) -> Chain:
    """The processor by itself."""
    return Chain((Processor("p", kind),), rate)


def through(made: Chain, sound: np.ndarray, keys: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """All of the sound through a chain, its latency taken out; ``keys``: what drives its sidechains."""
    late = np.zeros((2, made.latency_frames), np.float32)
    padded = {name: np.concatenate([key, late], axis=1) for name, key in (keys or {}).items()}
    return made.process(np.concatenate([sound, late], axis=1), padded)[:, made.latency_frames :]


def compensated(
    kind: ProcessorKind, rate: int, sound: np.ndarray, keys: Mapping[str, np.ndarray] | None = None
) -> np.ndarray:
    """The same through one processor."""
    return through(chain(kind, rate), sound, keys)


def response_db(kind: ProcessorKind, rate: int, hertz: np.ndarray, height: float = 1.0) -> np.ndarray:
    """Measured on an impulse in the middle, of that height, on both channels."""
    sound = np.zeros((2, IMPULSE_FRAMES), np.float32)
    sound[:, IMPULSE_FRAMES // 2] = height
    spectrum = np.abs(np.fft.rfft(compensated(kind, rate, sound)[0].astype(np.float64))) / height
    grid = np.fft.rfftfreq(IMPULSE_FRAMES, 1.0 / rate)
    return 20.0 * np.log10(np.maximum(np.interp(hertz, grid, spectrum), 1e-12))


def sine(level_dbfs: float, hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    """A sine of that RMS level, one channel, float64."""
    wave = np.sin(2.0 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)
    return math.sqrt(2.0) * 10.0 ** (level_dbfs / 20.0) * wave


def tone(level_dbfs: float, hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    """The same on both channels, as a block."""
    return np.tile(sine(level_dbfs, hertz, rate, seconds).astype(np.float32), (2, 1))


def settled_gain_db(
    kind: ProcessorKind, rate: int, sound: np.ndarray, keys: Mapping[str, np.ndarray] | None = None
) -> float:
    """Of the last tenth of a second."""
    tail = slice(-rate // 10, None)
    out = compensated(kind, rate, sound, keys)[0, tail].astype(np.float64)
    return float(20.0 * np.log10(np.linalg.norm(out) / np.linalg.norm(sound[0, tail].astype(np.float64))))


def curve_db(level_db: float, threshold_db: float, ratio: float, knee_db: float) -> float:
    """Gain of the static curve of Giannoulis, Massberg and Reiss (2012)."""
    over = level_db - threshold_db
    if 2.0 * over < -knee_db:
        return 0.0
    slope = 1.0 / ratio - 1.0
    return slope * ((over + knee_db / 2.0) ** 2 / (2.0 * knee_db) if 2.0 * abs(over) <= knee_db and knee_db else over)


def gain_curve_db(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Gain over time of one channel that holds a steady tone: envelope over envelope, since filters turn its phase."""
    envelopes = [np.abs(hilbert(wave.astype(np.float64))) for wave in (before, after)]
    gains: np.ndarray = 20.0 * np.log10(envelopes[1] / envelopes[0])
    return gains
