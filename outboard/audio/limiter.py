"""A look-ahead true-peak limiter: one smooth, stereo-linked gain curve that keeps the interpolated signal under a
ceiling.

The work is split in two. The *reduction curve* (dB, one value per control step of 8 frames) is made from the peak
envelope; the *render* multiplies. The curve costs next to nothing, so a loudness loop may try many input gains before
anything is rendered.

How the curve is made, per control step:

1. Need: how far the interpolated peak, after the input gain, stands above the ceiling.
2. Bridging: a morphological closing (a running maximum, then a running minimum; Serra, Image Analysis and Mathematical
   Morphology, 1982) fills gaps of up to `bridge_ms` between two needs. The half-waves of a bass note become one
   constant gain, which has no distortion; a lone transient is left as short as it is. A fixed hold would lengthen both.
3. Sorting: an opening (minimum, then maximum) of `transient_ms` keeps what lasts, the *sustained* need; what stands
   out of it is a *transient*. Of a transient at most `dip_share` and `transient_db` are left to a dip (step 6), the
   rest counts as sustained.
4. Release of the sustained need, with two time constants: a slow average, which sustained limiting charges, and a fast
   fall back to it. So gain returns quickly after a loud moment and hardly moves under a dense passage.
5. Look-ahead: a running maximum over `look_ahead_ms`, then a Hann-shaped average over the same length. Every average is
   then at least the need at its centre, so the smoothing cannot break the ceiling. Nothing is delayed: the curve is
   computed from the envelope on both sides.
6. What the smooth sustained curve leaves of the need is dipped away, each dip as short as `dip_ms` and smoothed the
   same way: a drum stroke costs a millisecond of gain, and the level around it stays.

Dips and release pull against each other. A limiter that releases after every stroke lowers what follows the stroke,
needs more gain in front for the same loudness, and so raises what comes before the next one: punch goes. One that only
dips flattens the tops of the strokes: their crest goes, and bass distorts. So both share every transient, and bass is
never dipped.

All steps together bound the product of gain and interpolated peak. Interpolating the *product* differs from that by
what the gain moves within the interpolator's reach, and other meters interpolate differently; `peak_guard` measures and
mends both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio.peak_envelope import STEP_FRAMES, read_padded
from outboard.audio.spool import Spool

_BLOCK_STEPS = 32768  # 5.5 s at 48 kHz
_RENDER_FRAMES = 65536
_SILENCE = 1e-12


@dataclass(frozen=True)
class LimiterSettings:
    """How the limiter moves.

    Attributes:
        ceiling_dbtp: highest interpolated peak let through, in dBTP; at most 0.
        look_ahead_ms: how long before a sustained need the gain begins to fall, and the length of every corner's
            rounding.
        bridge_ms: gaps between needs up to this length are held: a period of the lowest clean bass note.
        fast_release_ms: time constant of the return to the slow average.
        charge_ms: time constant with which sustained limiting raises the slow average.
        slow_release_ms: time constant with which the slow average falls.
        transient_ms: a need that lasts less than this is a transient; 0: nothing is.
        transient_db: furthest dip of a transient.
        dip_share: share of a transient's reduction that is dipped; the rest is released.
        dip_ms: length of its dip.
    """

    ceiling_dbtp: float = -1.0
    look_ahead_ms: float = 4.0
    bridge_ms: float = 25.0
    fast_release_ms: float = 60.0
    charge_ms: float = 800.0
    slow_release_ms: float = 150.0
    transient_ms: float = 40.0
    transient_db: float = 6.0
    dip_share: float = 0.6
    dip_ms: float = 1.0

    def __post_init__(self) -> None:
        if not self.ceiling_dbtp <= 0.0:
            raise ValueError(f"a ceiling above 0 dBTP is none: {self.ceiling_dbtp}")
        if min(self.look_ahead_ms, self.fast_release_ms, self.charge_ms, self.slow_release_ms, self.dip_ms) <= 0.0:
            raise ValueError("look-ahead, dips and time constants must be positive")
        if min(self.bridge_ms, self.transient_ms, self.transient_db) < 0.0:
            raise ValueError("bridge_ms, transient_ms and transient_db must be at least 0")
        if not 0.0 <= self.dip_share <= 1.0:
            raise ValueError(f"dip_share must be in 0..1, not {self.dip_share}")


def reduction_curve(
    peaks: NDArray[np.float32],
    sample_rate_hertz: int,
    input_gain_db: float,
    settings: LimiterSettings,
    spool_factory: Callable[[int], Spool],
    progress: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Gain reduction for every control step.

    Args:
        peaks: (1, steps) linear peaks from `peak_envelope`, before the input gain; may be mapped.
        sample_rate_hertz: of the audio.
        input_gain_db: gain that the render applies in front of the limiter.
        settings: ceiling and time constants.
        spool_factory: makes an empty spool of that many channels.
        progress: called with the fraction done, once a block.

    Returns:
        (1, steps) float32 dB, at least 0, mapped from a spool.
    """
    steps = peaks.shape[1]
    with spool_factory(1) as held:
        state = np.zeros(2)
        for start in range(0, steps, _BLOCK_STEPS):
            stop = min(start + _BLOCK_STEPS, steps)
            block = _sustained_need(peaks, start, stop, sample_rate_hertz, input_gain_db, settings)
            _release(block, state, _release_coefficients(settings, sample_rate_hertz))
            held.append(block[None, :])
            if progress is not None:
                progress(0.5 * stop / steps)
        with spool_factory(1) as smooth:
            for start in range(0, steps, _BLOCK_STEPS):
                stop = min(start + _BLOCK_STEPS, steps)
                smooth.append(_dipped(peaks, held.array, start, stop, sample_rate_hertz, input_gain_db, settings))
                if progress is not None:
                    progress(0.5 + 0.5 * stop / steps)
            return smooth.array


def smooth_reduction(
    reduction_db: NDArray[np.float32], sample_rate_hertz: int, length_ms: float, spool: Spool
) -> NDArray[np.float32]:
    """Rounds a curve of needed reductions without ever falling below it (step 4 of the module's text).

    Args:
        reduction_db: (1, steps), at least 0.
        length_ms: how far each need reaches to both sides, together.
        spool: an empty one-channel spool that receives the curve.

    Returns:
        (1, steps) float32 dB, mapped from the spool.
    """
    length = _steps(length_ms, sample_rate_hertz)
    for start in range(0, reduction_db.shape[1], _BLOCK_STEPS):
        stop = min(start + _BLOCK_STEPS, reduction_db.shape[1])
        spool.append(_smoothed(reduction_db, start, stop, length)[None, :])
    return spool.array


def render(
    array: NDArray[np.floating],
    input_gain_db: float,
    reduction_db: NDArray[np.float32],
    progress: Callable[[float], None] | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The signal times the input gain and the reduction curve, in blocks.

    Args:
        array: (channels, frames), may be mapped.
        input_gain_db: constant gain.
        reduction_db: (1, steps) from `reduction_curve` or `smooth_reduction`.
        progress: called with the fraction done, once a block.

    Yields:
        (channels, n) float32; together exactly the input's frames, none delayed.
    """
    frames = array.shape[1]
    for start in range(0, frames, _RENDER_FRAMES):
        stop = min(start + _RENDER_FRAMES, frames)
        block = read_padded(array, start, stop)
        yield apply_reduction(block, start, input_gain_db, reduction_db)
        if progress is not None:
            progress(stop / frames)


def apply_reduction(
    block: NDArray[np.float32], start_frame: int, input_gain_db: float, reduction_db: NDArray[np.float32]
) -> NDArray[np.float32]:
    """One block of `render`: frames from `start_frame` (a multiple of `STEP_FRAMES`) times gain and curve, as a new
    array.
    """
    first = start_frame // STEP_FRAMES - 1
    last = (start_frame + block.shape[1]) // STEP_FRAMES + 2
    index = np.clip(np.arange(first, last), 0, reduction_db.shape[1] - 1)
    gains = 10.0 ** ((input_gain_db - reduction_db[0, index[0] : index[-1] + 1].astype(np.float64)) / 20.0)
    out: NDArray[np.float32] = np.empty_like(block)
    _multiply(block, gains[index - index[0]], out)
    return out


def mean_reduction_db(reduction_db: NDArray[np.float32]) -> float:
    """Average gain reduction over time, in dB; 0 for an empty curve."""
    steps = reduction_db.shape[1]
    total = sum(
        float(reduction_db[:, start : start + _BLOCK_STEPS].sum(dtype=np.float64))
        for start in range(0, steps, _BLOCK_STEPS)
    )
    return total / steps if steps else 0.0


def _steps(length_ms: float, sample_rate_hertz: int) -> int:
    return max(1, round(length_ms * 1e-3 * sample_rate_hertz / STEP_FRAMES))


def _need(
    peaks: NDArray[np.float32], start: int, stop: int, input_gain_db: float, ceiling_dbtp: float
) -> NDArray[np.float32]:
    around = read_padded(peaks, start, stop)[0]
    threshold = np.float32(10.0 ** ((ceiling_dbtp - input_gain_db) / 20.0))
    need: NDArray[np.float32] = np.zeros(around.size, dtype=np.float32)
    over = np.flatnonzero(around > threshold)  # few steps are: the logarithm costs more than all the rest
    need[over] = 20.0 * np.log10(np.maximum(around[over], _SILENCE)) + (input_gain_db - ceiling_dbtp)
    return np.maximum(need, np.float32(0.0))


def _sustained_need(
    peaks: NDArray[np.float32], start: int, stop: int, rate: int, input_gain_db: float, settings: LimiterSettings
) -> NDArray[np.float32]:
    """Steps 1 to 3 for the steps [start, stop)."""
    bridge = _steps(settings.bridge_ms, rate) if settings.bridge_ms > 0.0 else 1
    lasting = _steps(settings.transient_ms, rate) if settings.transient_ms > 0.0 else 1
    margin = bridge + lasting
    need = _need(peaks, start - margin, stop + margin, input_gain_db, settings.ceiling_dbtp)
    if not need.any():
        return need[margin : margin + stop - start]
    # Origins shift the two windows against each other by the same amount, so that an even length closes without drift.
    wide = ndimage.maximum_filter1d(need, bridge, mode="constant", cval=0.0)
    closed = ndimage.minimum_filter1d(wide, bridge, mode="constant", cval=0.0, origin=0 if bridge % 2 else -1)
    narrow = ndimage.minimum_filter1d(closed, lasting, mode="constant", cval=0.0)
    opened = ndimage.maximum_filter1d(narrow, lasting, mode="constant", cval=0.0, origin=0 if lasting % 2 else -1)
    released = np.maximum(closed - np.float32(settings.transient_db), closed * np.float32(1.0 - settings.dip_share))
    sustained = np.maximum(opened, released)
    return np.ascontiguousarray(np.maximum(sustained, np.float32(0.0))[margin : margin + stop - start])


def _dipped(
    peaks: NDArray[np.float32],
    held: NDArray[np.float32],
    start: int,
    stop: int,
    rate: int,
    input_gain_db: float,
    settings: LimiterSettings,
) -> NDArray[np.float32]:
    """Steps 5 and 6 for the steps [start, stop): (1, n)."""
    look_ahead, dip = _steps(settings.look_ahead_ms, rate), _steps(settings.dip_ms, rate)
    margin = _margin(dip)
    sustained = _smoothed(held, start - margin, stop + margin, look_ahead)
    need = _need(peaks, start - margin, stop + margin, input_gain_db, settings.ceiling_dbtp)
    rest = np.maximum(need - sustained, np.float32(0.0))
    inner = slice(margin, margin + stop - start)
    if not rest.any():
        return sustained[None, inner]
    return (sustained + _smooth(rest, dip))[None, inner]


def _release_coefficients(settings: LimiterSettings, rate: int) -> tuple[float, float, float]:
    def coefficient(time_ms: float) -> float:
        return math.exp(-STEP_FRAMES / (time_ms * 1e-3 * rate))

    return (
        coefficient(settings.fast_release_ms),
        coefficient(settings.charge_ms),
        coefficient(settings.slow_release_ms),
    )


def _margin(length: int) -> int:
    """How far `_smooth` looks to either side."""
    length += 1 - length % 2
    return (length + 2) // 2 + length // 2


def _smoothed(curve: NDArray[np.float32], start: int, stop: int, length: int) -> NDArray[np.float32]:
    """Steps [start, stop) of the smoothed curve; silence outside of it."""
    margin = _margin(length)
    around = read_padded(curve, start - margin, stop + margin)[0]
    return _smooth(around, length)[margin : margin + stop - start]


def _smooth(curve: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """A running maximum and a Hann average of odd `length`: nowhere less than the curve around it."""
    if not curve.any():
        return np.zeros_like(curve)
    length += 1 - length % 2
    kernel = np.hanning(length + 2)[1:-1]
    kernel /= kernel.sum()
    # Two steps wider than the average: a peak may lie between two steps, and the render interpolates from one to the
    # next.
    wide = ndimage.maximum_filter1d(curve, length + 2, mode="constant", cval=0.0).astype(np.float64)
    smooth = np.convolve(wide, kernel, mode="same")
    return np.maximum(smooth, 0.0).astype(np.float32)


@njit(nogil=True, cache=True)
def _release(need: NDArray[np.float32], state: NDArray[np.float64], coefficients: tuple[float, float, float]) -> None:
    """In place: needs in dB become the held curve; state is (slow average, held)."""
    fast, charge, slow_fall = coefficients
    slow, held = state[0], state[1]
    for step in range(need.size):
        wanted = np.float64(need[step])
        slow = wanted + (slow - wanted) * (charge if wanted > slow else slow_fall)
        if slow < 1e-6:
            slow = 0.0
        held = max(wanted, slow + (held - slow) * fast)
        if held < 1e-6:
            held = 0.0
        need[step] = held
    state[0], state[1] = slow, held


@njit(nogil=True, cache=True)
def _multiply(block: NDArray[np.float32], gains: NDArray[np.float64], out: NDArray[np.float32]) -> None:
    """Gains (one per step, the first belongs to the step before the block) run linearly between the steps' centres."""
    for frame in range(block.shape[1]):
        position = (frame - (STEP_FRAMES - 1) / 2.0) / STEP_FRAMES + 1.0
        low = int(position)
        share = position - low
        gain = gains[low] + share * (gains[low + 1] - gains[low])
        for channel in range(block.shape[0]):
            out[channel, frame] = block[channel, frame] * gain
