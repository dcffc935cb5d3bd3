r"""Unmasker: one sound gives way to another in every band of hearing in which it covers it, while it does.

    y = x + synthesis((g - 1) * spectrum(x))

Both sounds are cut into frames of some 43 ms that overlap by half (a periodic Hann window, its root before and after:
they add up exactly), and their powers summed in bands of one ERB (`outboard.audio.erb`). In each band a curve turns the
level of the one over the other into a gain:

        0 dB ____                     ____    level of the sound over the sidechain in the band
                  \                 /
    range_db       \_______________/
              begins_db         ends_db

Where the sidechain stands clear there is nothing to free, and where it is buried no cut within the range frees it:
cutting there would only make the sound thinner. Bands in which the sidechain is 30 dB under its own loudest are not
what is listened to. Attack and release are one-pole filters of the gain; between the bands' centres gains are straight
lines over the ERB number. No gain exceeds ``range_db``, however many bands act. Where all gains are 0 dB no sample
changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import NDArray

from outboard.audio.dynamics import Delay, smoothing_coefficient
from outboard.audio.erb import erb_hertz, erb_number
from outboard.audio.filters import Audio, to_float32

LOWEST_HERTZ, HIGHEST_HERTZ = 40.0, 16_000.0
HEARD_DB = 30.0
"""Bands of a sound further than this under its loudest are not what is listened to."""
_FRAME_SECONDS = 2_048 / 48_000
_OVERLAP = 2
# Frames that are looked at together: what a block of the console holds.
_BATCH = 32
_FLOOR_POWER = 1e-20
# A gain nearer to 0 dB than this has come back.
_NULL_DB = 1e-3

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class UnmaskerSettings:
    """All numbers of one unmasker.

    Attributes:
        sidechain: name of the strip or bus that is given way to, for the console that routes it; empty: itself.
        range_db: furthest gain, negative.
        begins_db: level over the sidechain in a band from which it gives way, by one dB for each.
        ends_db: level over the sidechain in a band from which it has let go again.
        threshold_db: level of the sidechain's loudest band (dBFS, RMS) under which it does not play.
        low_hertz: nothing is cut below.
        high_hertz: nothing is cut above.
        attack_ms: time constant away from 0 dB.
        release_ms: time constant back.
    """

    sidechain: str = ""
    range_db: float = -4.0
    begins_db: float = -9.0
    ends_db: float = 16.0
    threshold_db: float = -60.0
    low_hertz: float = LOWEST_HERTZ
    high_hertz: float = HIGHEST_HERTZ
    attack_ms: float = 10.0
    release_ms: float = 40.0

    def __post_init__(self) -> None:
        if not self.range_db <= 0.0:
            raise ValueError(f"range_db must be at most 0, not {self.range_db}")
        if not self.begins_db < self.ends_db:
            raise ValueError(f"ends_db must be over begins_db, {self.begins_db}, not {self.ends_db}")
        if not self.low_hertz < self.high_hertz:
            raise ValueError(f"high_hertz must be over low_hertz, {self.low_hertz}, not {self.high_hertz}")


def wanted_gains_db(own_db: Floats, key_db: Floats, settings: UnmaskerSettings) -> Floats:
    """What the curve asks for, before attack and release: levels and gains ``(moments, bands)``."""
    over = own_db - key_db
    depth = np.clip(np.minimum(over - settings.begins_db, settings.ends_db - over), 0.0, -settings.range_db)
    loudest = key_db.max(axis=1, keepdims=True)
    listened = (key_db > loudest - HEARD_DB) & (loudest > settings.threshold_db)
    return np.where(listened, -depth, 0.0)


@njit(nogil=True, cache=True)
def _follow(wanted: Floats, attack: float, release: float, state: Floats) -> Floats:  # pragma: no cover - compiled
    """Gains in dB after attack and release; ``state`` (bands,) is carried on."""
    moments, bands = wanted.shape
    gains = np.empty((moments, bands))
    for m in range(moments):
        for b in range(bands):
            pole = attack if wanted[m, b] < state[b] else release
            gain = wanted[m, b] + pole * (state[b] - wanted[m, b])
            if gain > -_NULL_DB:
                gain = 0.0
            state[b] = gain
            gains[m, b] = gain
    return gains


class _Bands:
    """Bins of a transform in bands of one ERB."""

    def __init__(self, settings: UnmaskerSettings, sample_rate_hertz: int, size: int, window: Floats) -> None:
        hertz = np.fft.rfftfreq(size, 1.0 / sample_rate_hertz)
        first, last = erb_number(LOWEST_HERTZ), erb_number(min(HIGHEST_HERTZ, 0.45 * sample_rate_hertz))
        self.count = max(1, math.floor(last - first))
        edges = [erb_hertz(first + band) for band in range(self.count + 1)]
        self._edges = np.searchsorted(hertz, edges)
        self._scale = 2.0 / (size * float(np.sum(window**2)))
        centres = np.array([erb_hertz(first + band + 0.5) for band in range(self.count)])
        self.acting = (centres >= settings.low_hertz) & (centres <= settings.high_hertz)
        # Every bin lies between the centres of two bands; the gains of the outermost reach on.
        place = np.array([erb_number(one) for one in hertz]) - first - 0.5
        self._left = np.clip(np.floor(place).astype(int), 0, self.count - 1)
        self._right = np.minimum(self._left + 1, self.count - 1)
        self._share = np.clip(place - self._left, 0.0, 1.0)

    def levels_db(self, spectra: NDArray[np.complex128]) -> Floats:
        """Levels ``(moments, bands)`` of spectra ``(channels, moments, bins)``, dBFS RMS."""
        power = np.mean(spectra.real**2 + spectra.imag**2, axis=0)
        # Bands that the transform does not resolve have the bin at their lower edge.
        within = power[:, : max(self._edges[-1], self._edges[-2] + 1)]
        sums = np.add.reduceat(within, self._edges[:-1], axis=1) * self._scale
        levels: Floats = 10.0 * np.log10(np.maximum(sums, _FLOOR_POWER))
        return levels

    def factors(self, gains_db: Floats) -> Floats:
        """``g - 1`` of every bin ``(moments, bins)`` for gains of every band."""
        left, right = gains_db[:, self._left], gains_db[:, self._right]
        found: Floats = 10.0 ** ((left + self._share * (right - left)) / 20.0) - 1.0
        return found


class Unmasker:
    """An unmasker at work, ``latency_frames`` late; all channels are moved by one gain."""

    def __init__(self, settings: UnmaskerSettings, sample_rate_hertz: int, channels: int) -> None:
        self.settings = settings
        self._size = 2 ** max(6, round(math.log2(_FRAME_SECONDS * sample_rate_hertz)))
        self._step = self._size // _OVERLAP
        self.latency_frames = self._size
        self._window = np.sqrt(np.hanning(self._size + 1)[:-1])
        self._bands = _Bands(settings, sample_rate_hertz, self._size, self._window)
        # Once for every step.
        self._attack = smoothing_coefficient(settings.attack_ms / self._step, sample_rate_hertz)
        self._release = smoothing_coefficient(settings.release_ms / self._step, sample_rate_hertz)
        self._state = np.zeros(self._bands.count)
        self._own: NDArray[Any] = np.zeros((channels, self._size))
        self._key: NDArray[Any] | None = None
        self._delay = Delay(channels, self._size)
        # Corrections from the next frame that leaves on; the next transform begins this far after it.
        self._coming = np.zeros((channels, 0))
        self._ahead = 0
        self._sums, self._playing, self._extreme = np.zeros(self._bands.count), 0, 0.0

    def process(self, block: Audio, key: NDArray[Any] | None = None) -> Audio:
        """Processed copy of ``block`` (channels, frames); ``key``: what is given way to, the block itself when None."""
        key = block if key is None else key
        most = _BATCH * self._step
        pieces = [
            self._piece(block[:, at : at + most], key[:, at : at + most]) for at in range(0, block.shape[1], most)
        ]
        return np.concatenate(pieces, axis=1) if pieces else block

    def _piece(self, block: Audio, key: NDArray[Any]) -> Audio:
        if self._key is None:  # only the first key tells how many channels it has
            self._key = np.zeros((len(key), self._size))
        own = np.concatenate([self._own, block], axis=1)
        keys = np.concatenate([self._key, key], axis=1)
        moments = max(0, (own.shape[1] - self._size) // self._step + 1)
        passed = moments * self._step
        coming = np.zeros((len(own), self._ahead + passed + self._size))
        coming[:, : self._coming.shape[1]] = self._coming
        if moments:
            changes = self._changes(self._frames(own, moments), self._frames(keys, moments))
            for moment, change in enumerate(changes):
                at = self._ahead + moment * self._step
                coming[:, at : at + self._size] += change
        frames = block.shape[1]
        self._own, self._key = own[:, passed:].copy(), keys[:, passed:].copy()
        self._ahead += passed - frames
        self._coming = coming[:, frames:].copy()
        return to_float32(self._delay.process(block) + coming[:, :frames])

    def _frames(self, sound: NDArray[Any], moments: int) -> NDArray[np.complex128]:
        """Spectra ``(channels, moments, bins)``."""
        frames = np.lib.stride_tricks.sliding_window_view(sound, self._size, axis=1)[:, :: self._step][:, :moments]
        spectra: NDArray[np.complex128] = scipy.fft.rfft(frames * self._window, axis=-1)
        return spectra

    def _changes(self, own: NDArray[np.complex128], key: NDArray[np.complex128]) -> list[Floats]:
        """What is added to every frame: ``(moments)`` of ``(channels, frames)``; none where nothing moves."""
        keys_db = self._bands.levels_db(key)
        wanted = wanted_gains_db(self._bands.levels_db(own), keys_db, self.settings) * self._bands.acting
        gains = _follow(wanted, self._attack, self._release, self._state)
        playing = keys_db.max(axis=1) > self.settings.threshold_db
        self._sums += gains[playing].sum(axis=0)
        self._playing += int(playing.sum())
        self._extreme = min(self._extreme, float(gains.min()))
        if not gains.any():
            return []
        changed = scipy.fft.irfft(own * self._bands.factors(gains), self._size, axis=-1)
        changed *= self._window * (2.0 / _OVERLAP)
        return list(changed.transpose(1, 0, 2))

    @property
    def average_gain_db(self) -> float:
        """Mean gain in dB of the band that moves most, while the sidechain plays."""
        return float(self._sums.min()) / self._playing if self._playing else 0.0

    @property
    def extreme_gain_db(self) -> float:
        """Furthest gain of any band in dB so far."""
        return self._extreme
