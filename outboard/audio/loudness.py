"""Loudness as ITU-R BS.1770-4, EBU R128, EBU Tech 3341 and EBU Tech 3342 define it, from a stream.

**K-weighting** (BS.1770-4, Annex 1): a high shelf (+4 dB above 1.7 kHz, the head) followed by a high-pass (38 Hz, RLB).
The Recommendation prints coefficients for 48 kHz only; the analogue prototypes behind them, carried to any rate by the
bilinear transform, give the printed numbers at 48 kHz to 1e-12 (Brecht De Man, "Evaluation of Implementations of the
EBU R128 Loudness Measurement", AES 145, 2018).

**Loudness** of a window is ``-0.691 + 10 log10(sum_c G_c z_c)``, with z_c the mean square of the K-weighted channel c.

- momentary: 400 ms windows; short-term: 3 s windows (EBU Tech 3341). The maxima are taken on a 10 ms grid (3341 wants
  100 ms or finer; a 400 ms burst between two 100 ms steps would read 0.6 LU low), the short-term series every 100 ms.
- integrated: mean energy of the 400 ms windows (75 % overlap) above -70 LUFS and above 10 LU below their own mean.
- loudness range (EBU Tech 3342): 95th minus 10th percentile of the short-term series (here every 100 ms) above -70 LUFS
  and above 20 LU below their own mean.

What is kept of the past is two numbers per 100 ms (0.6 MB an hour): the audio itself is never held.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator

import numpy as np
from numba import njit
from numpy.typing import NDArray

from outboard.errors import InvalidInput

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

# Analogue prototypes of the two K-weighting stages (De Man 2018, after BS.1770-4 Annex 1).
_SHELF_HERTZ, _SHELF_GAIN_DB, _SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_SHELF_BAND_EXPONENT = 0.4996667741545416
_HIGH_PASS_HERTZ, _HIGH_PASS_Q = 38.13547087602444, 0.5003270373238773

_OFFSET_LUFS = -0.691
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = 10.0
_RANGE_GATE_LU = 20.0

_STEP_HERTZ = 100  # energies are summed per 10 ms step
_STEPS_PER_HOP = 10  # 100 ms: hop of the gating blocks and of the short-term series
_STEPS_MOMENTARY = 40  # 400 ms
_STEPS_SHORT_TERM = 300  # 3 s

_LOWEST_RATE_HERTZ = 4000  # the shelf's corner must lie under Nyquist
_BLOCK_FRAMES = 65536
# Below this a filter state is worth -600 dB: zeroed at step boundaries, so that silence does not run on denormals.
_STATE_FLOOR = 1e-30


def k_weighting(sample_rate_hertz: int) -> Float64Array:
    """Coefficients of the K-weighting filter at any rate.

    Returns:
        Array (2, 5): the shelf and the high-pass as ``b0 b1 b2 a1 a2`` with a0 = 1. The high-pass numerator is left at
        ``1 -2 1``, as in the Recommendation's table.

    Raises:
        InvalidInput: the rate is under 4 kHz.
    """
    if sample_rate_hertz < _LOWEST_RATE_HERTZ:
        raise InvalidInput(
            f"Sample rate {sample_rate_hertz} Hz is too low to measure loudness: at least {_LOWEST_RATE_HERTZ} Hz.",
            field="sample_rate_hertz",
        )
    tangent = math.tan(math.pi * _SHELF_HERTZ / sample_rate_hertz)
    high = 10.0 ** (_SHELF_GAIN_DB / 20.0)
    band = high**_SHELF_BAND_EXPONENT
    a0 = 1.0 + tangent / _SHELF_Q + tangent * tangent
    shelf = [
        (high + band * tangent / _SHELF_Q + tangent * tangent) / a0,
        2.0 * (tangent * tangent - high) / a0,
        (high - band * tangent / _SHELF_Q + tangent * tangent) / a0,
        2.0 * (tangent * tangent - 1.0) / a0,
        (1.0 - tangent / _SHELF_Q + tangent * tangent) / a0,
    ]
    tangent = math.tan(math.pi * _HIGH_PASS_HERTZ / sample_rate_hertz)
    a0 = 1.0 + tangent / _HIGH_PASS_Q + tangent * tangent
    high_pass = [
        1.0,
        -2.0,
        1.0,
        2.0 * (tangent * tangent - 1.0) / a0,
        (1.0 - tangent / _HIGH_PASS_Q + tangent * tangent) / a0,
    ]
    return np.array([shelf, high_pass])


def channel_weights(channels: int) -> Float64Array:
    """BS.1770-4 Table 3: 1 in front, 1.41 for surrounds, 0 for the LFE of a 5.1 layout (L R C LFE Ls Rs)."""
    weights = np.ones(channels)
    if channels == 5:
        weights[3:] = 1.41
    elif channels == 6:
        weights[3] = 0.0
        weights[4:] = 1.41
    return weights


@njit(nogil=True, cache=True)
def _weigh(
    block: Float32Array,
    coefficients: Float64Array,
    state: Float64Array,
    sums: Float64Array,
    begin: int,
    end: int,
) -> None:  # pragma: no cover - compiled
    """Filter frames begin..end (transposed direct form II) and add their squares to sums (channels,)."""
    b0, b1, b2, a1, a2 = coefficients[0]
    c1, c2 = coefficients[1, 3], coefficients[1, 4]
    first = 0
    if block.shape[0] == 2:  # both in one loop: two independent recursions hide each other's latency
        s1, s2, s3, s4 = state[0]
        t1, t2, t3, t4 = state[1]
        left, right = sums[0], sums[1]
        for frame in range(begin, end):
            x, u = np.float64(block[0, frame]), np.float64(block[1, frame])
            y, v = b0 * x + s1, b0 * u + t1
            s1, t1 = b1 * x - a1 * y + s2, b1 * u - a1 * v + t2
            s2, t2 = b2 * x - a2 * y, b2 * u - a2 * v
            z, w = y + s3, v + t3
            s3, t3 = -2.0 * y - c1 * z + s4, -2.0 * v - c1 * w + t4
            s4, t4 = y - c2 * z, v - c2 * w
            left += z * z
            right += w * w
        sums[0], sums[1] = left, right
        state[0, 0], state[0, 1], state[0, 2], state[0, 3] = s1, s2, s3, s4
        state[1, 0], state[1, 1], state[1, 2], state[1, 3] = t1, t2, t3, t4
        first = 2
    for channel in range(first, block.shape[0]):
        s1, s2, s3, s4 = state[channel]
        total = sums[channel]
        row = block[channel]
        for frame in range(begin, end):
            x = np.float64(row[frame])
            y = b0 * x + s1
            s1 = b1 * x - a1 * y + s2
            s2 = b2 * x - a2 * y
            z = y + s3
            s3 = -2.0 * y - c1 * z + s4
            s4 = y - c2 * z
            total += z * z
        sums[channel] = total
        state[channel, 0], state[channel, 1], state[channel, 2], state[channel, 3] = s1, s2, s3, s4


@njit(nogil=True, cache=True)
def _weighted_energies(
    block: Float32Array,
    coefficients: Float64Array,
    weights: Float64Array,
    state: Float64Array,
    sums: Float64Array,
    frame: int,
    step: int,
    rate: int,
    energies: Float64Array,
) -> int:  # pragma: no cover - compiled
    """Write the weighted energy sum of each 10 ms step that ends in this block; returns how many."""
    done = 0
    position = 0
    length = block.shape[1]
    while position < length:
        boundary = ((step + done + 1) * rate) // _STEP_HERTZ
        end = min(length, boundary - frame)
        _weigh(block, coefficients, state, sums, position, end)
        position = end
        if frame + end == boundary:
            energy = 0.0
            for channel in range(block.shape[0]):
                energy += weights[channel] * sums[channel]
                sums[channel] = 0.0
                for index in range(4):
                    if abs(state[channel, index]) < _STATE_FLOOR:
                        state[channel, index] = 0.0
            energies[done] = energy
            done += 1
    return done


@njit(nogil=True, cache=True)
def _window_sums(energies: Float64Array, count: int, steps: int) -> Float64Array:  # pragma: no cover - compiled
    """Sums of the `steps` energies that end at each of the last `count`.

    Each window is added up afresh, oldest first, so that no rounding error depends on what came before the window.
    """
    sums = np.zeros(count)
    for index in range(count):
        end = len(energies) - count + index + 1
        total = 0.0
        for position in range(end - steps, end):
            total += energies[position]
        sums[index] = total
    return sums


def _lufs(mean_square: float) -> float | None:
    return _OFFSET_LUFS + 10.0 * math.log10(mean_square) if mean_square > 0.0 else None


def _mean_square(lufs: float) -> float:
    return float(10.0 ** ((lufs - _OFFSET_LUFS) / 10.0))


class LoudnessMeter:
    """Streaming meter: feed blocks of any size; the readings do not depend on how the stream was cut.

    Args:
        sample_rate_hertz: 4 kHz or more.
        channels: one or more; one channel is measured as one channel (a mono file reads 3 LU under its stereo copy).
    """

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        self._coefficients = k_weighting(sample_rate_hertz)
        self._weights = channel_weights(channels)
        self._rate = int(sample_rate_hertz)
        self._state = np.zeros((channels, 4))
        self._sums = np.zeros(channels)
        self._frame = 0
        self._step = 0
        self._recent = np.zeros(_STEPS_SHORT_TERM - 1)  # energies of the steps that may still be part of a window
        self._max_momentary = 0.0
        self._max_short_term = 0.0
        self._gating_blocks = array("d")  # mean squares of the 400 ms blocks, one per 100 ms
        self._short_term = array("d")  # mean squares of the 3 s windows, one per 100 ms

    def process(self, block: Float32Array) -> None:
        """Take the next block, float (channels, frames).

        Raises:
            InvalidInput: wrong channel count, or NaN or infinity in the audio.
        """
        if block.ndim != 2 or block.shape[0] != len(self._weights):
            raise InvalidInput(
                f"Block of shape {block.shape} given to a meter of {len(self._weights)} channels.", field="channels"
            )
        if block.shape[1] == 0:
            return
        energies = np.empty(block.shape[1] * _STEP_HERTZ // self._rate + 2)
        done = _weighted_energies(
            np.ascontiguousarray(block, dtype=np.float32), self._coefficients, self._weights, self._state, self._sums,
            self._frame, self._step, self._rate, energies,
        )  # fmt: skip
        self._frame += block.shape[1]
        if not np.isfinite(self._sums).all() or not np.isfinite(energies[:done]).all():
            raise InvalidInput("The audio contains NaN or infinity.", field="audio", reason="AUDIO_NOT_FINITE")
        if done:
            self._take(energies[:done])

    def _take(self, energies: Float64Array) -> None:
        """Update windows with the energies of the newest steps."""
        first = self._step
        self._step += len(energies)
        known = np.concatenate([self._recent, energies])
        ends = np.arange(first + 1, self._step + 1)  # step counts after each new step
        momentary = self._windows(known, ends, _STEPS_MOMENTARY)
        short_term = self._windows(known, ends, _STEPS_SHORT_TERM)
        self._max_momentary = max(self._max_momentary, float(momentary.max(initial=0.0)))
        self._max_short_term = max(self._max_short_term, float(short_term.max(initial=0.0)))
        on_hop = ends % _STEPS_PER_HOP == 0
        self._gating_blocks.extend(momentary[on_hop & (ends >= _STEPS_MOMENTARY)])
        self._short_term.extend(short_term[on_hop & (ends >= _STEPS_SHORT_TERM)])
        self._recent = known[-(_STEPS_SHORT_TERM - 1) :]

    def _windows(self, known: Float64Array, ends: NDArray[np.int64], steps: int) -> Float64Array:
        """Mean squares of the windows of that many steps that end after each new step; 0 where not yet filled."""
        frames = ends * self._rate // _STEP_HERTZ - (ends - steps) * self._rate // _STEP_HERTZ
        return np.where(ends >= steps, _window_sums(known, len(ends), steps) / frames, 0.0)

    @property
    def integrated_lufs(self) -> float | None:
        """Gated programme loudness; None under 400 ms or where nothing passes the absolute gate."""
        blocks = np.frombuffer(self._gating_blocks, dtype=np.float64) if self._gating_blocks else np.empty(0)
        blocks = blocks[blocks > _mean_square(_ABSOLUTE_GATE_LUFS)]
        if not len(blocks):
            return None
        gate = blocks.mean() * 10.0 ** (-_RELATIVE_GATE_LU / 10.0)
        return _lufs(float(blocks[blocks > gate].mean()))

    @property
    def max_momentary_lufs(self) -> float | None:
        """Largest loudness of any 400 ms; None under 400 ms or for digital silence."""
        return _lufs(self._max_momentary)

    @property
    def max_short_term_lufs(self) -> float | None:
        """Largest loudness of any 3 s; None under 3 s or for digital silence."""
        return _lufs(self._max_short_term)

    @property
    def short_term_lufs(self) -> tuple[float | None, ...]:
        """Short-term loudness every 100 ms, the first at 3 s; None where silent."""
        return tuple(_lufs(value) for value in self._short_term)

    @property
    def loudness_range_lu(self) -> float | None:
        """EBU Tech 3342 loudness range; None under 3 s or where nothing passes the absolute gate."""
        windows = np.frombuffer(self._short_term, dtype=np.float64) if self._short_term else np.empty(0)
        windows = windows[windows > _mean_square(_ABSOLUTE_GATE_LUFS)]
        if not len(windows):
            return None
        gate = windows.mean() * 10.0 ** (-_RANGE_GATE_LU / 10.0)
        low, high = np.percentile(windows[windows >= gate], [10.0, 95.0])
        return float(10.0 * math.log10(high / low))


def _as_blocks(audio: Float32Array | Iterable[Float32Array]) -> Iterator[Float32Array]:
    """Blocks of an array (channels, frames), or the blocks as they come."""
    if isinstance(audio, np.ndarray):
        for begin in range(0, audio.shape[1], _BLOCK_FRAMES):
            yield audio[:, begin : begin + _BLOCK_FRAMES]
    else:
        yield from audio


def measure_loudness(audio: Float32Array | Iterable[Float32Array], sample_rate_hertz: int) -> LoudnessMeter | None:
    """A meter that has heard all of an array (channels, frames) or iterable of blocks; None for no block at all."""
    meter = None
    for block in _as_blocks(audio):
        if meter is None:
            meter = LoudnessMeter(sample_rate_hertz, block.shape[0])
        meter.process(block)
    return meter


def integrated_loudness(audio: Float32Array | Iterable[Float32Array], sample_rate_hertz: int) -> float | None:
    """Integrated loudness in LUFS of an array (channels, frames) or an iterable of blocks; None where unmeasurable."""
    meter = measure_loudness(audio, sample_rate_hertz)
    return meter.integrated_lufs if meter else None
