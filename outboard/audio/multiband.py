"""Multiband compression: the signal split by Linkwitz-Riley crossovers, each band with a compressor of its own.

The bands of `outboard.audio.filters.Crossover` sum to an all-pass, so with all compressors at rest the level of every
frequency is what it was and only the phase around the splits has turned. Bands with less look-ahead than the longest
are delayed to meet it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from outboard.audio.dynamics import Compressor, CompressorSettings, Delay
from outboard.audio.filters import Audio, Crossover, to_float32

FEWEST_BANDS, MOST_BANDS = 2, 5


@dataclass(frozen=True)
class CompressorBand:
    """One band: its upper edge (0 for the last band) and its compressor."""

    high_hertz: float
    compressor: CompressorSettings


def check_bands(bands: tuple[CompressorBand, ...]) -> None:
    """Refuses what cannot be split.

    Raises:
        ValueError: not 2 to 5 bands, edges that do not rise, a last band with an edge, a sidechain.
    """
    edges = [band.high_hertz for band in bands[:-1]]
    if not FEWEST_BANDS <= len(bands) <= MOST_BANDS:
        raise ValueError(f"a multiband compressor has {FEWEST_BANDS} to {MOST_BANDS} bands, not {len(bands)}")
    if edges[0] <= 0.0 or any(high <= low for low, high in pairwise(edges)) or bands[-1].high_hertz:
        raise ValueError(f"edges must rise and the last must be 0: {[band.high_hertz for band in bands]}")
    if any(band.compressor.sidechain for band in bands):
        raise ValueError("the bands of a multiband compressor follow their own levels: no sidechain")


class MultibandCompressor:
    """A multiband compressor at work; its output is `latency_frames` late, all channels of a band moved by one gain."""

    def __init__(self, bands: tuple[CompressorBand, ...], sample_rate_hertz: int, channels: int) -> None:
        check_bands(bands)
        self._split = Crossover([band.high_hertz for band in bands[:-1]], sample_rate_hertz, channels)
        self._compressors = [Compressor(band.compressor, sample_rate_hertz, channels) for band in bands]
        self.latency_frames = max(compressor.latency_frames for compressor in self._compressors)
        waits = [self.latency_frames - compressor.latency_frames for compressor in self._compressors]
        self._delays = [Delay(channels, wait) for wait in waits]

    def process(self, block: Audio) -> Audio:
        """As many frames as ``block`` (channels, frames) has, ``latency_frames`` late."""
        total = np.zeros(block.shape)
        for part, compressor, delay in zip(self._split.process(block), self._compressors, self._delays, strict=True):
            total += compressor.process(delay.process(to_float32(part)))
        return to_float32(total)

    @property
    def average_gain_db(self) -> float:
        """Mean gain of the band that was moved most on average, in dB."""
        return max((-compressor.average_gain_reduction_db for compressor in self._compressors), key=abs)

    @property
    def extreme_gain_db(self) -> float:
        """The furthest gain of any band so far, in dB."""
        return max((-compressor.max_gain_reduction_db for compressor in self._compressors), key=abs)
