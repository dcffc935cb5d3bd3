"""A stereo reverb: image-source reflections, then a feedback delay network with a stated decay.

    in -> low cut, high cut -> pre-delay -+-> early reflections ------------------------+-> width -> mix with the dry
                                          +-> diffusers -> 16 delay lines <-> Hadamard -+

**Early part.** First and second order image sources of a box with rigid walls, heard by two ears (J. B. Allen,
D. A. Berkley, *Image method for efficiently simulating small-room acoustics*, JASA 65, 1979): times and levels of the
strongest ``_EARLY_TAPS`` on each side, counted from the direct sound. A plate has none: it is dense at once.

**Late part.** Sixteen lines whose lengths are primes on a geometric scale, mixed by a Hadamard matrix, which loses
nothing (J.-M. Jot, A. Chaigne, *Digital delay networks for designing artificial reverberators*, AES 90, 1991). A line
of ``m`` samples is followed by

    g (1 - b) / (1 - b z^-1),   g = 10^(-3 m / (rate T))

so that sixty decibels take ``T`` seconds at low frequencies whatever line the sound travels, and ``b`` solves
``|1 - b| / |1 - b e^-jw| = g`` at the damping frequency: there every line loses twice as much, the decay takes half as
long. Four all-passes in front (M. R. Schroeder, *Natural sounding artificial reverberation*, JAES 10, 1962) make the
echoes dense from the start; left feeds the even lines and right the odd ones, and the two outputs take all lines with
orthogonal signs, so that a mono source comes back wide.

The level is set so that noise between 200 Hz and 4 kHz comes back as loud as it went in. Everything is linear and
carried per frame: the result does not depend on how the stream is cut.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.audio.filters import (
    Audio,
    SosFilter,
    butterworth_high_pass,
    butterworth_low_pass,
    to_float32,
)

ReverbKindName = Literal["plate", "room", "hall", "chamber"]

LINES = 16
_DIFFUSERS = 4
_EARLY_TAPS = 12
_SOUND_METRES_PER_SECOND = 343.0
_EARS_METRES = 0.2
# Every wall takes this share of the pressure.
_REFLECTION = 0.8
_TINY = 1e-30
# The band in which the level is set, and how much of the tail is looked at for it.
_LEVEL_HERTZ = (200.0, 4_000.0)
_LONGEST_LOOK_SECONDS = 3.0
# Signs of the lines in the two outputs: orthogonal to one another, and no row of the Hadamard matrix.
_LEFT_SIGNS = np.array([1, -1, 1, 1, -1, 1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1], np.float64)
_RIGHT_SIGNS = np.array([1, 1, -1, 1, 1, 1, -1, -1, -1, 1, 1, 1, 1, 1, -1, 1], np.float64)

Floats = NDArray[np.float64]
Frames = NDArray[np.int64]


@dataclass(frozen=True)
class _Room:
    """What makes a kind: lines from the shortest to the longest, diffusers, the box, the share of the early part."""

    shortest_ms: float
    longest_ms: float
    diffusers_ms: tuple[float, float, float, float]
    diffusion: float
    box_metres: tuple[float, float, float] | None
    early_share: float


_ROOMS: dict[str, _Room] = {
    "plate": _Room(17.0, 61.0, (4.77, 3.59, 12.73, 9.31), 0.70, None, 0.0),
    "room": _Room(9.0, 33.0, (1.31, 2.11, 3.41, 5.03), 0.60, (5.2, 6.4, 2.9), 0.45),
    "chamber": _Room(14.0, 47.0, (2.03, 3.17, 5.11, 7.43), 0.65, (7.1, 9.3, 3.7), 0.30),
    "hall": _Room(29.0, 97.0, (4.11, 6.73, 9.67, 13.9), 0.62, (19.0, 31.0, 12.0), 0.18),
}


@dataclass(frozen=True)
class ReverbSettings:
    """All numbers of one reverb.

    Attributes:
        kind: which room, see the module.
        decay_seconds: time in which the tail falls by 60 dB at low and middle frequencies, 0.1 to 20.
        predelay_ms: silence before the first reflection, 0 to 500.
        damping_hertz: where the decay takes half as long.
        low_cut_hertz: corner of a 2nd-order high-pass before the reverb.
        high_cut_hertz: corner of a 2nd-order low-pass before the reverb.
        width: of what comes back, 0 mono to 1.
        mix: share of the reverb in the sum with the dry sound; 1 on an effect bus.
    """

    kind: ReverbKindName = "plate"
    decay_seconds: float = 1.5
    predelay_ms: float = 0.0
    damping_hertz: float = 6_000.0
    low_cut_hertz: float = 200.0
    high_cut_hertz: float = 12_000.0
    width: float = 1.0
    mix: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _ROOMS:
            raise ValueError(f"kind must be one of {', '.join(_ROOMS)}, not {self.kind!r}")
        if not 0.1 <= self.decay_seconds <= 20.0:
            raise ValueError(f"decay_seconds must be in 0.1..20, not {self.decay_seconds}")
        if not 0.0 <= self.mix <= 1.0:
            raise ValueError(f"mix must be in 0..1, not {self.mix}")


@njit(nogil=True, cache=True)
def _reverberate(
    x: Floats,
    delays: tuple[Floats, Frames, Frames],
    early: tuple[Frames, Floats],
    diffusers: tuple[Floats, Frames, Floats],
    lines: tuple[Floats, Frames, Floats, Floats],
    signs: Floats,
    at: Frames,
    kept: Floats,
) -> tuple[Floats, Floats]:  # pragma: no cover - compiled
    """Early and late part of ``x`` (2, frames).

    Args:
        x: the filtered input.
        delays: ring of the input (2, size); its length in [0], the pre-delay in [0] of the last.
        early: taps (2, n) in frames behind the pre-delay, and their gains.
        diffusers: rings of the all-passes (2 * n, size), their lengths, the coefficient.
        lines: rings of the lines (LINES, size), their lengths, gains and poles of their filters.
        signs: of the lines in the outputs (2, LINES).
        at: positions in all rings: input, diffusers, lines; carried on.
        kept: states of the line filters; carried on.
    """
    ring, sizes, predelay = delays
    taps, tap_gains = early
    ap_rings, ap_lengths, ap_gain = diffusers
    rings, lengths, gains, poles = lines
    frames, size, count = x.shape[1], sizes[0], ap_lengths.shape[1]
    first, late = np.empty((2, frames)), np.empty((2, frames))
    v = np.empty(LINES)
    for i in range(frames):
        now = at[0]
        for c in range(2):
            ring[c, now] = x[c, i]
        for c in range(2):
            total = 0.0
            for k in range(taps.shape[1]):
                then = now - predelay[0] - taps[c, k]
                total += tap_gains[c, k] * ring[c, then if then >= 0 else then + size]
            first[c, i] = total
        for k in range(LINES):
            out = rings[k, at[1 + 2 * count + k]]
            y = gains[k] * (1.0 - poles[k]) * out + poles[k] * kept[k]
            if -_TINY < y < _TINY:
                y = 0.0
            kept[k] = y
            v[k] = y
        for c in range(2):
            total = 0.0
            for k in range(LINES):
                total += signs[c, k] * v[k]
            late[c, i] = total
        then = now - predelay[0] if now >= predelay[0] else now - predelay[0] + size
        step = 1
        while step < LINES:
            for k in range(LINES):
                if not k & step:
                    a, b = v[k], v[k + step]
                    v[k], v[k + step] = a + b, a - b
            step *= 2
        for c in range(2):
            u = ring[c, then]
            for k in range(count):
                slot = 1 + c * count + k
                old = ap_rings[c * count + k, at[slot]]
                w = u + ap_gain[0] * old
                if -_TINY < w < _TINY:
                    w = 0.0
                ap_rings[c * count + k, at[slot]] = w
                u = old - ap_gain[0] * w
                at[slot] += 1
                if at[slot] == ap_lengths[c, k]:
                    at[slot] = 0
            for k in range(c, LINES, 2):
                slot = 1 + 2 * count + k
                w = (u if k & 2 else -u) + 0.25 * v[k]
                if -_TINY < w < _TINY:
                    w = 0.0
                rings[k, at[slot]] = w
                at[slot] += 1
                if at[slot] == lengths[k]:
                    at[slot] = 0
        at[0] = now + 1 if now + 1 < size else 0
    return first, late


class Reverb:
    """A reverb at work on stereo blocks; latency 0. With a mix of 0 it is not there."""

    def __init__(self, settings: ReverbSettings, sample_rate_hertz: int) -> None:
        self.settings = settings
        self._rate = sample_rate_hertz
        corners = (butterworth_high_pass(settings.low_cut_hertz, sample_rate_hertz),
                   butterworth_low_pass(settings.high_cut_hertz, sample_rate_hertz))  # fmt: skip
        self._cuts = SosFilter(np.concatenate(corners), 2)
        room = _ROOMS[settings.kind]
        predelay = round(settings.predelay_ms * sample_rate_hertz / 1000.0)
        self._early = _early_taps(room, sample_rate_hertz)
        self._lengths = _line_lengths(room, sample_rate_hertz)
        self._filters = _line_filters(self._lengths, settings, sample_rate_hertz)
        longest = predelay + int(self._early[0].max(initial=0)) + 1
        lengths = [[_prime(ms * (1.0 + 0.07 * c), sample_rate_hertz) for ms in room.diffusers_ms] for c in (0, 1)]
        self._ap_lengths = np.array(lengths, np.int64)
        self._ap_gain = np.array([room.diffusion])
        self._size, self._predelay = np.array([longest], np.int64), np.array([predelay], np.int64)
        self._start()
        self._gains = self._levels(room)
        self._start()

    def _start(self) -> None:
        """Empty lines."""
        self._ring = np.zeros((2, int(self._size[0])))
        self._ap_rings = np.zeros((2 * _DIFFUSERS, int(self._ap_lengths.max())))
        self._rings = np.zeros((LINES, int(self._lengths.max())))
        self._at = np.zeros(1 + 2 * _DIFFUSERS + LINES, np.int64)
        self._kept = np.zeros(LINES)

    def _parts(self, x: Floats) -> tuple[Floats, Floats]:
        parts: tuple[Floats, Floats] = _reverberate(
            x,
            (self._ring, self._size, self._predelay),
            self._early,
            (self._ap_rings, self._ap_lengths, self._ap_gain),
            (self._rings, self._lengths, *self._filters),
            np.stack([_LEFT_SIGNS, _RIGHT_SIGNS]),
            self._at,
            self._kept,
        )
        return parts

    def _levels(self, room: _Room) -> tuple[float, float]:
        """Gains of the early and the late part with which noise comes back as loud as it went in."""
        seconds = min(self.settings.decay_seconds, _LONGEST_LOOK_SECONDS)
        impulse = np.zeros((2, int(seconds * self._rate) + int(self._size[0]) + int(self._lengths.max())))
        impulse[:, 0] = 1.0
        corners = (
            butterworth_high_pass(_LEVEL_HERTZ[0], self._rate),
            butterworth_low_pass(_LEVEL_HERTZ[1], self._rate),
        )
        reference = float(np.sum(SosFilter(np.concatenate(corners), 2).process(impulse) ** 2))
        powers = [float(np.sum(SosFilter(np.concatenate(corners), 2).process(p) ** 2)) for p in self._parts(impulse)]
        # What of the tail was not looked at: it falls by 60 dB in the decay time.
        powers[1] /= 1.0 - 10.0 ** (-6.0 * seconds / self.settings.decay_seconds)
        early, late = (math.sqrt(reference / power) if power > 0.0 else 0.0 for power in powers)
        return early * math.sqrt(room.early_share), late * math.sqrt(1.0 - room.early_share)

    def process(self, block: Audio) -> Audio:
        """As many frames as the stereo ``block`` ``(2, frames)`` has."""
        s = self.settings
        if s.mix == 0.0:
            return block
        first, late = self._parts(self._cuts.process(np.asarray(block, np.float64)))
        wet = self._gains[0] * first + self._gains[1] * late
        mid, side = 0.5 * (wet[0] + wet[1]), 0.5 * s.width * (wet[0] - wet[1])
        return to_float32(s.mix * np.stack([mid + side, mid - side]) + (1.0 - s.mix) * block)


def _line_lengths(room: _Room, sample_rate_hertz: int) -> Frames:
    ratio = (room.longest_ms / room.shortest_ms) ** (1.0 / (LINES - 1))
    found: list[int] = []
    for k in range(LINES):
        frames = _prime(room.shortest_ms * ratio**k, sample_rate_hertz)
        while frames in found:
            frames = _next_prime(frames + 1)
        found.append(frames)
    return np.array(found, np.int64)


def _line_filters(lengths: Frames, settings: ReverbSettings, sample_rate_hertz: int) -> tuple[Floats, Floats]:
    """Gain and pole behind every line."""
    gains: Floats = np.power(10.0, -3.0 * lengths / (sample_rate_hertz * settings.decay_seconds))
    w = 2.0 * math.pi * min(settings.damping_hertz, 0.49 * sample_rate_hertz) / sample_rate_hertz
    squares = gains**2
    p, q = 1.0 - squares * math.cos(w), 1.0 - squares
    poles: Floats = (p - np.sqrt(np.maximum(p * p - q * q, 0.0))) / q
    return gains, poles


def _early_taps(room: _Room, sample_rate_hertz: int) -> tuple[Frames, Floats]:
    """Times in frames and gains (2, n) of what reaches the two ears after the direct sound, the loudest first."""
    if room.box_metres is None:
        return np.zeros((2, 0), np.int64), np.zeros((2, 0))
    box = np.array(room.box_metres)
    source, head = box * (0.41, 0.28, 0.47), box * (0.53, 0.69, 0.44)
    direct = float(np.linalg.norm(source - head))
    frames, gains = [], []
    for sign in (-1.0, 1.0):
        ear = head + np.array([sign * 0.5 * _EARS_METRES, 0.0, 0.0])
        heard = []
        for image in itertools.product((-2, -1, 0, 1, 2), repeat=3):
            order = sum(abs(n) for n in image)
            if not 1 <= order <= 2:
                continue
            where = [n * length + (length - s if n % 2 else s) for n, length, s in zip(image, box, source, strict=True)]
            distance = float(np.linalg.norm(np.array(where) - ear))
            heard.append((_REFLECTION**order * direct / distance, distance))
        heard.sort(reverse=True)
        nearest = min(distance for _, distance in heard)
        frames.append(
            [round((d - nearest) / _SOUND_METRES_PER_SECOND * sample_rate_hertz) for _, d in heard][:_EARLY_TAPS]
        )
        gains.append([gain for gain, _ in heard][:_EARLY_TAPS])
    return np.array(frames, np.int64), np.array(gains)


def _prime(milliseconds: float, sample_rate_hertz: int) -> int:
    return _next_prime(max(2, round(milliseconds * sample_rate_hertz / 1000.0)))


def _next_prime(number: int) -> int:
    """The smallest prime that is at least ``number``."""
    while any(number % d == 0 for d in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
