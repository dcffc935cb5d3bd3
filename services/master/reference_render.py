"""Renders a match: the mix through the equalisers of mid and side, split into bands whose gains follow their levels.

One forward transform per block serves equalisation and band split alike (their responses are multiplied beforehand);
the bands add up to the equalised mix exactly where no gain moves. Gains follow the levels that were measured around
each moment (60 ms, centred), so they lead as much as they lag, and nothing is delayed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from outboard.audio.filter_bank import FilterBank, band_taps
from outboard.audio.fir import DEFAULT_TAPS, linear_phase_taps
from outboard.audio.song_profile import FLOOR_DB, STEPS_PER_SECOND, splits_for
from outboard.audio.spool import Spool, blocks
from outboard.audio.stereo import left_right, mid_side
from services.master.settings import DynamicsBand, ReferenceMatch

Array = NDArray[np.float32]
Levels = NDArray[np.float64]

_ROUNDING = np.hanning(9)[1:-1] / np.hanning(9)[1:-1].sum()  # over 70 ms: corners of the gain must not be heard
_CHUNK_STEPS = 65536


def render_match(
    array: Array,
    sample_rate_hertz: int,
    found: ReferenceMatch,
    levels: Array,
    spool: Spool,
    progress: Callable[[float], None],
) -> None:
    """Appends the matched mix to the spool, unlimited.

    Args:
        array: (1 or 2, frames), may be mapped.
        sample_rate_hertz: of it.
        found: the numbers.
        levels: (bands, steps) dBFS every 10 ms, as `ProfileMeter` measured them on the same array.
        spool: as many channels as the array.
        progress: told the fraction done; may raise.
    """
    stereo = array.shape[0] == 2
    bank = FilterBank(_kernels(found, sample_rate_hertz, stereo), array.shape[0])
    gains = [_BandGain(band, row, sample_rate_hertz) for band, row in zip(found.dynamics, levels, strict=True)]
    frame = 0
    for piece in _pieces(array, bank, stereo):
        moving = np.stack([gain.factors(frame, piece.shape[2]) for gain in gains])
        out = np.einsum("bcf,bf->cf", piece, moving)
        spool.append(left_right(out) if stereo else out)
        frame += piece.shape[2]
        progress(frame / array.shape[1])


def _pieces(array: Array, bank: FilterBank, stereo: bool) -> Iterator[Array]:
    for block in blocks(array):
        yield from bank.process(mid_side(block).astype(np.float32) if stereo else block)
    yield from bank.process(np.zeros((array.shape[0], 0), np.float32), last=True)


def _kernels(found: ReferenceMatch, rate: int, stereo: bool) -> NDArray[np.float64]:
    """(bands, channels, taps): every band's filter through each channel's equaliser."""
    taps = 2 * round(0.5 * DEFAULT_TAPS * rate / 48_000) + 1
    hertz = [band.frequency_hertz for band in found.bands]
    curves = [[band.mid_gain_db for band in found.bands]]
    if stereo:
        curves.append([band.side_gain_db for band in found.bands])
    equalisers = [linear_phase_taps(hertz, curve, rate, taps=taps) for curve in curves]
    splits = band_taps(splits_for(rate), rate)
    return np.array([[scipy.signal.fftconvolve(split, taps) for taps in equalisers] for split in splits])


class _BandGain:
    """The gain of one band over time, centred so that the band's mean power stays what it was."""

    def __init__(self, band: DynamicsBand, levels: Array, rate: int) -> None:
        self._levels, self._step = levels, rate // STEPS_PER_SECOND
        self._ramp = (np.arange(self._step, dtype=np.float32) / self._step)[None, :]
        self._mean_db = band.mean_db
        self._points = [point.level_db for point in band.points]
        self._gains = [point.gain_db for point in band.points]
        self._makeup_db = self._power_change_db() if band.points else 0.0

    def _power_change_db(self) -> float:
        before = after = 1e-30
        for start in range(0, self._levels.shape[0], _CHUNK_STEPS):
            chunk = self._levels[start : start + _CHUNK_STEPS].astype(np.float64)
            power = np.where(chunk > FLOOR_DB, 10.0 ** (chunk / 10.0), 0.0)
            before += float(power.sum())
            after += float((power * 10.0 ** (self._curve(chunk) / 10.0)).sum())
        return float(10.0 * np.log10(after / before))

    def _curve(self, levels_db: Levels) -> Levels:
        return np.asarray(np.interp(levels_db - self._mean_db, self._points, self._gains))

    def factors(self, frame: int, frames: int) -> Array:
        """(frames,) factors from `frame` on."""
        if not self._points:
            return np.ones(frames, np.float32)
        halo = len(_ROUNDING) // 2
        offset = frame - self._step // 2  # counted from the centre of the first step
        first, last = offset // self._step, (offset + frames) // self._step + 1
        held = np.clip(np.arange(first - halo, last + halo + 1), 0, self._levels.shape[0] - 1)
        gains = np.convolve(self._curve(self._levels[held].astype(np.float64)), _ROUNDING, mode="valid")
        factors = (10.0 ** ((gains - self._makeup_db) / 20.0)).astype(np.float32)
        # Straight lines from the centre of each step to that of the next.
        lines = factors[:-1, None] + np.diff(factors)[:, None] * self._ramp
        begin = offset - first * self._step
        return np.asarray(lines.ravel()[begin : begin + frames])
