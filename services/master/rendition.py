"""One rendering of a master for one file: brought to its loudness under its ceiling, and mended after what was measured
on the file.

Resampling and coding take loudness (noise loses 0.4 LU from 48 to 44.1 kHz; LAME scales by 0.95 at low bit rates) and
add peaks. Loudness is put back as gain in front of a limiter; peaks are taken twice:

- *Dips* of a few milliseconds lie where the file read over its ceiling. They are all that a lossless file needs.
- *Headroom* is for lossy files. The noise of a coder falls otherwise with every encode, so that the next offence is
  near the last one and not at it: where a file was over, the limiter's ceiling comes down for some tenths of a second,
  by a share of what was over. Passages that the coder leaves alone keep all of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from outboard.audio.limiter import LimiterSettings, apply_reduction, reduction_curve, render, smooth_reduction
from outboard.audio.loudness import LoudnessMeter, integrated_loudness
from outboard.audio.peak_envelope import STEP_FRAMES, peak_envelope, read_padded
from outboard.audio.peak_guard import DIP_MS, PeakReading, deepen
from outboard.audio.reporting import part
from outboard.audio.spool import Spool, blocks

Array = NDArray[np.float32]
Progress = Callable[[float], None]

_CLOSE_ENOUGH_LU = 0.015
_MOST_RENDERS = 4
_LEAST_SLOPE = 0.25
_MOST_GAIN_DB = 3.0  # beyond that it is not what a file cost, and has its reason
_REGION_SECONDS = 0.4
_HEADROOM_SHARE = 0.6
_BLOCK_STEPS = 32768


@dataclass(frozen=True)
class Rendered:
    """A rendering, (channels, frames), and its loudness."""

    array: Array
    lufs: float | None


class Rendition:
    """The master at a file's rate, with the gain, limiting and dips that the file has needed so far.

    Args:
        source: (channels, frames) float32 at the file's rate, may be mapped.
        sample_rate_hertz: of the file.
        limiter: its ceiling is the file's, with room for what dither adds.
        spool_factory: makes an empty spool of that many channels.
        known_lufs: of the source, where it is known.
    """

    def __init__(
        self,
        source: Array,
        sample_rate_hertz: int,
        limiter: LimiterSettings,
        spool_factory: Callable[[int], Spool],
        known_lufs: float | None = None,
    ) -> None:
        self._source = source
        self._known_lufs = known_lufs
        self._rate = sample_rate_hertz
        self._limiter = limiter
        self._spools = spool_factory
        self._gain_db = 0.0
        self._scale_db = 0.0
        self._headroom: Array | None = None
        self._peaks: Array | None = None
        self._dips: Array | None = None

    def at(self, lufs: float | None, progress: Progress) -> Rendered:
        """Renders to a loudness; None: with the gain so far."""
        tried: list[tuple[float, float]] = []
        for trial in range(1, _MOST_RENDERS + 1):
            done = self._rendered(part(progress, (trial - 1) / _MOST_RENDERS, trial / _MOST_RENDERS))
            if lufs is None or done.lufs is None or abs(lufs - done.lufs) <= _CLOSE_ENOUGH_LU or trial == _MOST_RENDERS:
                break
            tried.append((self._gain_db, done.lufs))
            wanted = min(self._gain_db + (lufs - done.lufs) / _slope(tried), _MOST_GAIN_DB)
            if wanted == self._gain_db:
                break
            self._gain_db = wanted
        progress(1.0)
        return done

    def mend(self, reading: PeakReading, ceiling_dbtp: float, scale_db: float | None) -> None:
        """Takes down what a file read over its ceiling.

        Args:
            reading: of the decoded file.
            ceiling_dbtp: the file's.
            scale_db: what the coder scales by, which is taken back in front of it; None for a lossless file.
        """
        if scale_db is None:
            with self._spools(1) as deeper:
                self._dips = deepen(self._dips, reading, ceiling_dbtp, deeper)
            return
        # The next encode comes out higher by as much as is newly known of the scale.
        allowed = ceiling_dbtp - (self._scale_db - scale_db)
        self._scale_db = scale_db
        with self._spools(1) as wider, self._spools(1) as deeper:
            self._headroom = _widened(self._headroom, reading, allowed, self._rate, wider)
            self._dips = deepen(self._dips, reading, allowed, deeper)

    def _rendered(self, progress: Progress) -> Rendered:
        if not self._is_changed():
            if self._known_lufs is None:
                self._known_lufs = integrated_loudness(blocks(self._source), self._rate)
            return Rendered(self._source, self._known_lufs)
        meter = LoudnessMeter(self._rate, self._source.shape[0])
        dips, frame = None, 0
        if self._dips is not None:
            with self._spools(1) as spool:
                dips = smooth_reduction(self._dips, self._rate, DIP_MS, spool)
        with self._spools(self._source.shape[0]) as spool:
            for block in self._levelled(progress):
                done = block if dips is None else apply_reduction(block, frame, 0.0, dips)
                frame += block.shape[1]
                meter.process(done)
                spool.append(done)
            return Rendered(spool.array, meter.integrated_lufs)

    def _is_changed(self) -> bool:
        return bool(self._gain_db or self._scale_db) or self._dips is not None or self._headroom is not None

    def _levelled(self, progress: Progress) -> Iterator[Array]:
        if self._gain_db <= 0.0 and self._headroom is None:
            flat = np.zeros((1, 1), dtype=np.float32)
            yield from render(self._source, self._gain_db - self._scale_db, flat, progress)
            return
        curve = reduction_curve(self._envelope(), self._rate, self._gain_db, self._limiter, self._spools)
        yield from render(self._source, self._gain_db - self._scale_db, curve, progress)

    def _envelope(self) -> Array:
        """The source's peaks, each as much higher as its passage needs headroom."""
        if self._peaks is None:
            with self._spools(1) as spool:
                self._peaks = peak_envelope(self._source, spool)
        if self._headroom is None:
            return self._peaks
        with self._spools(1) as raised:
            for start in range(0, self._peaks.shape[1], _BLOCK_STEPS):
                steps = slice(start, start + _BLOCK_STEPS)
                raised.append(self._peaks[:, steps] * 10.0 ** (self._headroom[:, steps] / 20.0))
            return raised.array


def _slope(tried: list[tuple[float, float]]) -> float:
    """Loudness over gain between the last two trials: 1 where nothing is limited, less where much is."""
    if len(tried) < 2 or tried[-1][0] == tried[-2][0]:
        return 1.0
    return min(max((tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0]), _LEAST_SLOPE), 1.0)


def _widened(headroom_db: Array | None, reading: PeakReading, ceiling_dbtp: float, rate: int, spool: Spool) -> Array:
    """Adds to each passage's headroom its share of the most that the reading stands over the ceiling there."""
    reach = round(_REGION_SECONDS * rate / STEP_FRAMES) // 2
    envelope = reading.envelope
    for start in range(0, envelope.shape[1], _BLOCK_STEPS):
        stop = min(start + _BLOCK_STEPS, envelope.shape[1])
        around = read_padded(envelope, start - reach, stop + reach).astype(np.float64)
        over = np.maximum(20.0 * np.log10(np.maximum(around, 1e-12)) - ceiling_dbtp, 0.0)
        most = ndimage.maximum_filter1d(over, 2 * reach + 1, axis=1, mode="constant", cval=0.0)
        added = _HEADROOM_SHARE * most[:, reach : reach + stop - start]
        if headroom_db is not None:
            added += headroom_db[:, start:stop]
        spool.append(added)
    return spool.array
