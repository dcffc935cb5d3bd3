"""True peak on three meters at once: what the audio contract promises a ceiling on.

Meters that all follow BS.1770-4 differ by up to 2 dB on hostile signals, so a ceiling is held on three, and the reading
that counts is the largest of them:

- **soxr**: libsoxr's VHQ filter at 16x. For an integer ratio that filter is one fixed linear-phase response, whatever
  the sample rate; it is taken from the library itself (its answer to an impulse) and applied here, since running the
  library over a song at 16x costs several times as much.
- **kaiser**: sinc under a Kaiser window (beta 8) at 8x, 64 taps per phase; phase 0 is the samples themselves, so this
  reading is never under the sample peak.
- **annex2**: the filter printed in ITU-R BS.1770-4, Annex 2: 4x, 12 taps per phase.

The audio is taken as silence before its first and after its last frame, and what the filters ring into that silence
counts, as it does in a converter. A peak is over all channels.

**Why not every point is computed, and why the reading is exact all the same.** Let y be the continuous output of one
meter, of exponential type s in radians per input sample (pi for soxr, whose stop band of 170 dB starts at Nyquist;
1.1 pi for the wider transition of Kaiser) and with supremum M, and let D be the largest value on the meter's own grid
of L points per sample: the reading. The 4x grid is computed everywhere, by FFT. Then

1. Duffin and Schaeffer (1938): y'^2 + s^2 y^2 <= s^2 M^2, so arccos(y/M) changes by at most s per sample. The supremum
   lies within 1/2L of a grid point, so M <= D / cos(s/2L), and the 4x point next to D, at most 1/8 sample from it, has
   at least ``D cos(s/8 + s/2L) / cos(s/2L)``. Intervals whose ends are both under that are passed over.
2. Bernstein: the sixth derivative is at most s^6 M, so the quintic through the six 4x points around an interval is
   within ``5/1024 (s/4)^6 M`` of y inside it: 0.1 % for soxr, 0.2 % for Kaiser. Fine points where it falls short of D
   by more than that are passed over.
3. A hop of samples whose peak times the filter's L1 norm does not reach D is passed over as a whole.

D is not known beforehand; the largest value known so far is never over it, so that what is passed over is only less.
What is out of the band after all (Kaiser's stop band, float32 rounding) is covered by slack.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft
import soxr
from numba import njit
from numpy.typing import NDArray

from outboard.errors import InvalidInput

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]

# ITU-R BS.1770-4, Annex 2: order-48, 4-phase FIR interpolating filter.
_ANNEX_2_PHASE_0 = (
    0.0017089843750, 0.0109863281250, -0.0196533203125, 0.0332031250000, -0.0594482421875, 0.1373291015625,
    0.9721679687500, -0.1022949218750, 0.0476074218750, -0.0266113281250, 0.0148925781250, -0.0083007812500,
)  # fmt: skip
_ANNEX_2_PHASE_1 = (
    -0.0291748046875, 0.0292968750000, -0.0517578125000, 0.0891113281250, -0.1665039062500, 0.4650878906250,
    0.7797851562500, -0.2003173828125, 0.1015625000000, -0.0582275390625, 0.0330810546875, -0.0189208984375,
)  # fmt: skip
ANNEX_2: Float64Array = np.array([_ANNEX_2_PHASE_0, _ANNEX_2_PHASE_1, _ANNEX_2_PHASE_1[::-1], _ANNEX_2_PHASE_0[::-1]])

_SOXR_OVERSAMPLING = 16
_KAISER_OVERSAMPLING, _KAISER_TAPS, _KAISER_BETA = 8, 64, 8.0

_REACH = 138  # input samples each side of an output point that any filter looks at (soxr VHQ: 137.9)
_FFT_FRAMES = 4096
_OVERLAP = 2 * _REACH + 1  # one more than the filter needs: a hop's last interval ends on the next hop's first point
_HOP_FRAMES = _FFT_FRAMES - _OVERLAP
_HOPS_PER_BLOCK = 4
_BLOCK_FRAMES = _HOPS_PER_BLOCK * _HOP_FRAMES  # the stream is cut into these whatever the caller's blocks are
_COARSE = 4  # grid computed everywhere, points per sample
_SLACK = 0.98


@dataclass(frozen=True)
class _Kernel:
    """One interpolation filter.

    taps: (phases, 2 * _REACH + 1); ``y(n + p / phases) = sum_m taps[p, _REACH + m] x[n - m]``.
    spectra: transforms of the four coarse phases, (4, _FFT_FRAMES // 2 + 1), complex64.
    guesses: (phases / 4 - 1, 6), Lagrange weights that give the points inside a coarse interval from six around it.
    bounds: shares of the peak, see the module's docstring: a coarse neighbour, an interpolated value.
    l1_norm: largest sum of absolute taps of a phase.
    """

    taps: Float64Array
    spectra: NDArray[np.complex64]
    guesses: Float64Array
    bounds: Float64Array
    l1_norm: float


def _lagrange(position: float) -> Float64Array:
    """Weights of six equidistant points, at -2 to 3, that give the quintic through them at a position from 0 to 1."""
    nodes = np.arange(-2.0, 4.0)
    return np.array([np.prod((position - np.delete(nodes, i)) / (nodes[i] - np.delete(nodes, i))) for i in range(6)])


def _kernel(taps: Float64Array, type_radians: float, leakage: float) -> _Kernel:
    phases = taps.shape[0]
    coarse = taps[:: phases // _COARSE]
    half_step = type_radians / (2 * phases)
    return _Kernel(
        taps=np.ascontiguousarray(taps),
        spectra=scipy.fft.rfft(coarse.astype(np.float32), _FFT_FRAMES, axis=-1),
        guesses=np.array([_lagrange(fraction * _COARSE / phases) for fraction in range(1, phases // _COARSE)]),
        bounds=np.array(
            [
                _SLACK * math.cos(type_radians / (2 * _COARSE) + half_step) / math.cos(half_step),
                1.0 - 5 / 1024 * (type_radians / _COARSE) ** 6 / math.cos(half_step) - leakage,
            ]
        ),
        l1_norm=float(np.abs(taps).sum(axis=1).max()),
    )


@lru_cache(maxsize=1)
def _soxr_kernel() -> _Kernel:
    """libsoxr's VHQ response at 16x, from its answer to an impulse."""
    impulse = np.zeros(4 * _REACH)
    impulse[2 * _REACH] = 1.0
    response = soxr.resample(impulse, 1, _SOXR_OVERSAMPLING, quality="VHQ")
    begin = _REACH * _SOXR_OVERSAMPLING  # output time -_REACH relative to the impulse
    taps = response[begin : begin + (2 * _REACH + 1) * _SOXR_OVERSAMPLING].reshape(-1, _SOXR_OVERSAMPLING).T
    return _kernel(taps, math.pi, leakage=1e-5)


@lru_cache(maxsize=1)
def _kaiser_kernel() -> _Kernel:
    """Kaiser-windowed sinc, 8x, 64 taps per phase: ``sinc(t) I0(beta sqrt(1 - (t/32)^2)) / I0(beta)`` for |t| < 32."""
    time = np.arange(-_REACH, _REACH + 1)[None, :] + (np.arange(_KAISER_OVERSAMPLING) / _KAISER_OVERSAMPLING)[:, None]
    half = _KAISER_TAPS / 2
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0.0, 1.0 - (time / half) ** 2))) / np.i0(_KAISER_BETA)
    return _kernel(np.where(np.abs(time) < half, np.sinc(time) * window, 0.0), 1.1 * math.pi, leakage=4e-3)


@njit(nogil=True, cache=True)
def _dot(taps: Float64Array, samples: Float32Array, centre: int) -> float:  # pragma: no cover - compiled
    """Filter output at one point; four sums, since one alone waits on its own additions."""
    count = len(taps) // 4 * 4
    first = centre + _REACH
    a = b = c = d = 0.0
    for index in range(0, count, 4):
        a += taps[index] * samples[first - index]
        b += taps[index + 1] * samples[first - index - 1]
        c += taps[index + 2] * samples[first - index - 2]
        d += taps[index + 3] * samples[first - index - 3]
    for index in range(count, len(taps)):
        a += taps[index] * samples[first - index]
    return a + b + c + d


@njit(nogil=True, cache=True)
def _refine(
    coarse: Float32Array,
    samples: Float32Array,
    taps: Float64Array,
    guesses: Float64Array,
    bounds: Float64Array,
    peak: float,
) -> float:  # pragma: no cover - compiled
    """Largest fine-grid value of one hop.

    coarse: (4, hop + 1), values at ``n + j/4``, n counted from sample _REACH of samples (hop + _OVERLAP).
    guesses: (phases / 4 - 1, 6), weights that interpolate the points within a coarse interval.
    bounds: share of the peak that a neighbour must have, share that the interpolated value must have.
    """
    step = taps.shape[0] // 4
    points = 4 * (coarse.shape[1] - 1)
    right = abs(coarse[0, 0])
    for point in range(points):
        left, right = right, abs(coarse[(point + 1) % 4, (point + 1) // 4])
        peak = max(peak, left)
        if max(left, right) < bounds[0] * peak:
            continue
        inside = point >= 2  # the points behind the last interval are there
        for fine in range(1, step):
            if inside:
                guess = 0.0
                for index in range(6):
                    place = point - 2 + index
                    guess += guesses[fine - 1, index] * coarse[place % 4, place // 4]
                if abs(guess) < bounds[1] * peak:
                    continue
            value = _dot(taps[point % 4 * step + fine], samples, point // 4 + _REACH)
            peak = max(peak, abs(value))
    return peak


@njit(nogil=True, cache=True)
def _annex_2_peak(samples: Float32Array, taps: Float64Array, peak: float) -> float:  # pragma: no cover - compiled
    """Largest output of the Annex 2 filter over samples (hop + _OVERLAP), outputs centred on the hop."""
    hop = len(samples) - _OVERLAP
    width = 512
    sums = np.empty(width, np.float32)  # twelve terms: float32 costs 1e-6 and half the time
    for phase in range(taps.shape[0]):
        for begin in range(0, hop, width):
            count = min(width, hop - begin)
            sums[:] = 0.0
            for tap in range(taps.shape[1]):
                weight = np.float32(taps[phase, tap])
                first = begin + _REACH + 6 - tap
                for index in range(count):
                    sums[index] += weight * samples[first + index]
            for index in range(count):
                peak = max(peak, np.float64(abs(sums[index])))
    return peak


def _decibels(peak: float) -> float | None:
    return 20.0 * math.log10(peak) if peak > 0.0 else None


class TruePeakMeter:
    """Streaming meter: feed blocks of any size, then `finish`; readings do not depend on how the stream was cut.

    Readings are dBTP (dB relative to full scale) over everything given, None for digital silence or nothing. Until
    `finish` they may lack the last 15 000 frames.
    """

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._pending = np.zeros((channels, _BLOCK_FRAMES + _OVERLAP), np.float32)
        self._filled = _OVERLAP  # silence before the first frame, so that outputs before it count
        self._soxr = self._kaiser = self._annex_2 = self._sample = 0.0

    def process(self, block: Float32Array) -> None:
        """Take the next block, float (channels, frames).

        Raises:
            InvalidInput: wrong channel count, or NaN or infinity in the audio.
        """
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise InvalidInput(
                f"Block of shape {block.shape} given to a meter of {self._channels} channels.", field="channels"
            )
        position = 0
        while position < block.shape[1]:
            count = min(block.shape[1] - position, self._pending.shape[1] - self._filled)
            self._pending[:, self._filled : self._filled + count] = block[:, position : position + count]
            self._filled += count
            position += count
            if self._filled == self._pending.shape[1]:
                self._measure()

    def finish(self) -> None:
        """Measure what is pending, and the ringing after the last frame. Further audio would be a new stream."""
        tail = np.zeros((self._channels, _OVERLAP), np.float32)
        self.process(tail)
        if self._filled > _OVERLAP:
            self._pending[:, self._filled :] = 0.0
            self._measure()
        self._pending[:, :_OVERLAP] = 0.0

    def _measure(self) -> None:
        """Measure one full block of pending audio and keep the last _OVERLAP samples for the next."""
        largest = max(float(self._pending.max()), -float(self._pending.min()))
        if not math.isfinite(largest):
            raise InvalidInput("The audio contains NaN or infinity.", field="audio", reason="AUDIO_NOT_FINITE")
        self._sample = max(self._sample, largest)
        frames = np.lib.stride_tricks.sliding_window_view(self._pending, _FFT_FRAMES, axis=1)[:, ::_HOP_FRAMES]
        frames = frames.reshape(-1, _FFT_FRAMES)
        peaks = np.maximum(frames.max(axis=1), -frames.min(axis=1))
        spectra = scipy.fft.rfft(frames, axis=-1)
        self._soxr = self._interpolate(frames, spectra, peaks, _soxr_kernel(), self._soxr)
        self._kaiser = self._interpolate(frames, spectra, peaks, _kaiser_kernel(), self._kaiser)
        annex_2_norm = float(np.abs(ANNEX_2).sum(axis=1).max())
        for frame in frames[peaks * annex_2_norm > self._annex_2]:
            self._annex_2 = float(_annex_2_peak(frame, ANNEX_2, self._annex_2))
        self._pending[:, :_OVERLAP] = self._pending[:, -_OVERLAP:]
        self._filled = _OVERLAP

    @staticmethod
    def _interpolate(
        frames: Float32Array, spectra: NDArray[np.complex64], peaks: Float32Array, kernel: _Kernel, peak: float
    ) -> float:
        reaching = peaks * kernel.l1_norm > peak
        if not reaching.any():
            return peak
        frames, spectra = frames[reaching], spectra[reaching]
        coarse = scipy.fft.irfft(spectra[:, None, :] * kernel.spectra, n=_FFT_FRAMES, axis=-1)
        for frame, values in zip(frames, coarse, strict=True):
            peak = float(_refine(values[:, 2 * _REACH :], frame, kernel.taps, kernel.guesses, kernel.bounds, peak))
        return peak

    @property
    def peak(self) -> float:
        """Largest of the three readings, linear; 0 for silence."""
        return max(self._soxr, self._kaiser, self._annex_2)

    @property
    def true_peak_dbtp(self) -> float | None:
        """Largest of the three readings."""
        return _decibels(self.peak)

    @property
    def soxr_dbtp(self) -> float | None:
        """Reading of soxr VHQ at 16x."""
        return _decibels(self._soxr)

    @property
    def kaiser_dbtp(self) -> float | None:
        """Reading of the Kaiser-windowed sinc at 8x, 64 taps per phase."""
        return _decibels(self._kaiser)

    @property
    def annex2_dbtp(self) -> float | None:
        """Reading of the BS.1770-4 Annex 2 filter."""
        return _decibels(self._annex_2)

    @property
    def sample_peak_dbfs(self) -> float | None:
        """Largest sample, without interpolation."""
        return _decibels(self._sample)


def measure_true_peak(audio: Float32Array | Iterable[Float32Array]) -> TruePeakMeter:
    """A finished meter over an array (channels, frames) or an iterable of blocks."""
    meter: TruePeakMeter | None = None
    blocks = (
        (audio[:, begin : begin + _BLOCK_FRAMES] for begin in range(0, audio.shape[1], _BLOCK_FRAMES))
        if isinstance(audio, np.ndarray)
        else iter(audio)
    )
    for block in blocks:
        meter = meter or TruePeakMeter(block.shape[0])
        meter.process(block)
    meter = meter or TruePeakMeter(1)
    meter.finish()
    return meter


def true_peak_dbtp(audio: Float32Array | Iterable[Float32Array], sample_rate_hertz: int) -> float | None:
    """True peak in dBTP, the largest of the contract's three meters; None for silence or nothing.

    Args:
        audio: float (channels, frames), or an iterable of such blocks.
        sample_rate_hertz: for the sake of a uniform call; all three meters work in ratios of the rate.
    """
    del sample_rate_hertz
    return measure_true_peak(audio).true_peak_dbtp
