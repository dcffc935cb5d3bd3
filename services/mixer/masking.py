"""How much of one sound another covers, measured in auditory bands.

The spectrum is taken every quarter of a second and summed in bands of one ERB (`outboard.audio.erb`). A masker reaches
into its neighbours, by 10 dB less for every band upward and by 25 dB less for every band downward (the slopes of the
spreading function at ordinary levels, rounded).

A band of the target is covered not at all while the masker is 6 dB under it and wholly when it is 6 dB over it. Bands
count by the target's power to the 0.3, about as loud as they sound. The index is the covered share of the target's
loudness while it plays: 0 free, 1 covered; gain on both changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from outboard.audio.erb import erb_hertz, erb_number

Levels = NDArray[np.float32]
"""Power in dB, (moments, bands)."""

MOMENT_SECONDS = 0.25
"""From one moment to the next."""
PLAYING_DB = 30.0
"""A sound plays while its loudest band comes within this of its loudest moment."""
_SIZE = 4096
_LOW_HERTZ, _HIGH_HERTZ = 40.0, 16_000.0
_UPWARD_DB, _DOWNWARD_DB = 10.0, 25.0
_MARGIN_DB = 6.0
_LOUDNESS_EXPONENT = 0.3
# Bands of the target that are this far under its loudest one at the moment are not what is listened to.
_HEARD_DB = 30.0
# What can be told: from silence to far over full scale, where float32 powers still have room.
_FLOOR_DB, _TOP_DB = -100.0, 200.0


_FIRST = math.floor(erb_number(_LOW_HERTZ))
BANDS = math.ceil(erb_number(_HIGH_HERTZ)) - _FIRST
CENTRES_HERTZ = tuple(erb_hertz(_FIRST + band + 0.5) for band in range(BANDS))
WIDTHS_HERTZ = tuple(erb_hertz(_FIRST + band + 1) - erb_hertz(_FIRST + band) for band in range(BANDS))


class ErbMeter:
    """Levels of a stream: 40 numbers four times a second, at the same moments for all streams of one mix."""

    def __init__(self, sample_rate_hertz: int) -> None:
        self._step = int(MOMENT_SECONDS * sample_rate_hertz)
        self._size = min(_SIZE, self._step)
        hertz = np.fft.rfftfreq(self._size, 1.0 / sample_rate_hertz)
        edges = [erb_hertz(_FIRST + band) for band in range(BANDS + 1)]
        self._edges = np.searchsorted(hertz, edges)
        self._window = np.hanning(self._size + 1)[:-1]
        self._scale = 2.0 / (self._size * float(np.sum(self._window**2)))
        self._moments: list[Levels] = []
        self._kept = np.zeros((2, 0))
        self._at = 0

    def process(self, block: NDArray[np.floating]) -> None:
        """Take in a block ``(channels, frames)``."""
        joined = np.concatenate([self._kept, block], axis=1) if self._kept.shape[1] else block
        begin = 0
        while True:
            skip = (-self._at) % self._step
            if begin + skip + self._size > joined.shape[1]:
                break
            begin += skip
            self._at += skip
            self._moments.append(self._level(np.asarray(joined[:, begin : begin + self._size], np.float64)))
            begin += self._size
            self._at += self._size
        # Frames before the next moment are not kept.
        passed = min((-self._at) % self._step, joined.shape[1] - begin)
        self._at += passed
        self._kept = np.array(joined[:, begin + passed :], np.float64)

    @property
    def levels_db(self) -> Levels:
        """What was measured so far."""
        return np.stack(self._moments) if self._moments else np.zeros((0, BANDS), np.float32)

    def _level(self, frame: NDArray[np.float64]) -> Levels:
        spectra = scipy.fft.rfft(frame * self._window, axis=-1)
        power = np.einsum("cf,cf->f", spectra.real, spectra.real)
        power += np.einsum("cf,cf->f", spectra.imag, spectra.imag)
        # Bands that the transform does not resolve have the bin at their lower edge, those above Nyquist a zero.
        power = np.append(power, 0.0)[: max(self._edges[-1], self._edges[-2] + 1)]
        sums = np.add.reduceat(power, self._edges[:-1]) * (self._scale / len(frame))
        levels = 10.0 * np.log10(sums + 1e-12)
        return np.minimum(np.maximum(levels, _FLOOR_DB), _TOP_DB).astype(np.float32)


def erb_levels(stem: NDArray[np.float32], sample_rate_hertz: int) -> Levels:
    """Levels of a whole stem ``(channels, frames)``, which may be a memory map; one moment at a time is read."""
    meter = ErbMeter(sample_rate_hertz)
    for begin in range(0, stem.shape[1], 16 * sample_rate_hertz):
        meter.process(np.asarray(stem[:, begin : begin + 16 * sample_rate_hertz], np.float32))
    return meter.levels_db


def summed(levels: Collection[Levels]) -> Levels:
    """Levels of a sum of parts that are not alike; none at all for no parts."""
    given = [one for one in levels if len(one)]
    if not given:
        return np.zeros((0, BANDS), np.float32)
    moments = min(len(one) for one in given)
    power = np.sum([10.0 ** (one[:moments].astype(np.float64) / 10.0) for one in given], axis=0)
    return np.asarray(10.0 * np.log10(power), np.float32)


def _spread(levels: Levels) -> Levels:
    """What a masker of these levels covers: each band reaches into the others."""
    out = levels.copy()
    for band in range(1, levels.shape[1]):
        out[:, band] = np.maximum(out[:, band], out[:, band - 1] - _UPWARD_DB)
    for band in range(levels.shape[1] - 2, -1, -1):
        out[:, band] = np.maximum(out[:, band], out[:, band + 1] - _DOWNWARD_DB)
    return out


@dataclass(frozen=True)
class Masking:
    """How a target is covered.

    Attributes:
        index: covered share of its loudness, 0 to 1.
        bands: what each band adds to the index, summing up to it.
    """

    index: float
    bands: tuple[float, ...]


def masking(target: Levels, maskers: Collection[Levels]) -> Masking:
    """How ``maskers`` together cover ``target``; all of one mix, at the levels at which they are heard."""
    none = Masking(0.0, (0.0,) * BANDS)
    moments = min([len(target), *(len(one) for one in maskers)])
    if not moments or not maskers:
        return none
    heard = target[:moments]
    total = heard.max(axis=1)
    playing = total > max(float(total.max()) - PLAYING_DB, _FLOOR_DB + 20.0)
    if not playing.any():
        return none
    heard = heard[playing]
    power = np.sum([10.0 ** (_spread(one[:moments][playing]) / 10.0) for one in maskers], axis=0)
    covered = np.clip((10.0 * np.log10(power) - heard + _MARGIN_DB) / (2.0 * _MARGIN_DB), 0.0, 1.0)
    weights = 10.0 ** (_LOUDNESS_EXPONENT * heard / 10.0) * (heard > heard.max(axis=1, keepdims=True) - _HEARD_DB)
    bands = (weights * covered).sum(axis=0) / float(weights.sum())
    return Masking(float(bands.sum()), tuple(float(band) for band in bands))


def relief(target: Levels, masker: Levels, others: Collection[Levels], cut_db: float) -> tuple[float, ...]:
    """How much less of the target is covered in a band when the masker is cut by ``cut_db``, for every band.

    Args:
        target: what is covered.
        masker: what gives way.
        others: what covers the target as well, and stays.
        cut_db: how far it gives way.
    """
    before = masking(target, [masker, *others]).bands
    after = masking(target, [np.asarray(masker - np.float32(cut_db)), *others]).bands
    return tuple(float(gain) for gain in np.subtract(before, after))


def indices(levels: Mapping[str, Levels]) -> dict[str, float]:
    """Of each strip, how far the others together cover it."""
    return {
        name: masking(one, [other for key, other in levels.items() if key != name]).index
        for name, one in levels.items()
    }


def spectrum(levels: Levels) -> tuple[float, ...]:
    """Mean level of every band in dB; none at all where nothing was measured."""
    if not len(levels):
        return ()
    power = np.mean(10.0 ** (levels.astype(np.float64) / 10.0), axis=0)
    return tuple(float(level) for level in 10.0 * np.log10(power))


def pairs(levels: Mapping[str, Levels]) -> dict[tuple[str, str], float]:
    """Of each two strips (masker, masked), how far the one alone covers the other."""
    return {
        (masker, masked): masking(levels[masked], [levels[masker]]).index
        for masker in levels
        for masked in levels
        if masker != masked
    }
