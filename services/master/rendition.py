"""One rendering of a master for one file, and how it is mended after what was measured on the file.

Lossless files need short dips at most. A lossy coder adds noise that overshoots anew with every encode, at other places
each time: dips alone would chase it. The rendition is therefore limited once more, a few tenths of a decibel lower,
which takes the peaks and not the loudness; what loudness that (and the coder itself) costs is put back as gain in
front.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from outboard.audio.limiter import LimiterSettings, apply_reduction, reduction_curve, render, smooth_reduction
from outboard.audio.peak_envelope import peak_envelope
from outboard.audio.peak_guard import DIP_MS, deepen, read_peaks
from outboard.audio.spool import Spool, blocks

Array = NDArray[np.float32]
Progress = Callable[[float], None]

_FIRST_HEADROOM_DB = 0.4
_MORE_HEADROOM_DB = 0.15
_LOUDNESS_PER_HEADROOM = 0.75  # LU lost per dB, on loud songs


class Rendition:
    """The master at a file's rate, with the gain, limiting and dips that the file has needed so far.

    Args:
        source: (channels, frames) float32 at the file's rate, may be mapped.
        sample_rate_hertz: of the file.
        ceiling_dbtp: true peak not to exceed.
        spool_factory: makes an empty spool of that many channels.
    """

    def __init__(
        self, source: Array, sample_rate_hertz: int, ceiling_dbtp: float, spool_factory: Callable[[int], Spool]
    ) -> None:
        self._source = source
        self._rate = sample_rate_hertz
        self._ceiling = ceiling_dbtp
        self._spools = spool_factory
        self._gain_db = 0.0
        self._headroom_db = 0.0
        self._peaks: Array | None = None
        self._dips: Array | None = None

    def blocks(self, progress: Progress) -> Iterator[Array]:
        """The rendition, block by block."""
        dips = None
        if self._dips is not None:
            with self._spools(1) as spool:
                dips = smooth_reduction(self._dips, self._rate, DIP_MS, spool)
        frame = 0
        for block in self._levelled(progress):
            yield block if dips is None else apply_reduction(block, frame, 0.0, dips)
            frame += block.shape[1]

    def raise_by(self, gain_db: float) -> None:
        """Adds gain in front, for loudness that was lost."""
        self._gain_db += gain_db

    def lower_peaks(self) -> None:
        """Limits lower than before, and puts back about as much loudness as that takes."""
        step = _MORE_HEADROOM_DB if self._headroom_db else _FIRST_HEADROOM_DB
        self._headroom_db += step
        self._gain_db += _LOUDNESS_PER_HEADROOM * step

    def dip(self, decoded: Array) -> None:
        """Dips where the decoded file reads over the ceiling."""
        reading = read_peaks(decoded, self._rate, self._ceiling, self._spools)
        with self._spools(1) as deeper:
            self._dips = deepen(self._dips, reading, self._ceiling, deeper)

    def _levelled(self, progress: Progress) -> Iterator[Array]:
        if not self._headroom_db:
            flat = np.zeros((1, 1), dtype=np.float32)
            yield from blocks(self._source) if not self._gain_db else render(self._source, self._gain_db, flat)
            return
        if self._peaks is None:
            with self._spools(1) as spool:
                self._peaks = peak_envelope(self._source, spool, progress)
        settings = LimiterSettings(ceiling_dbtp=self._ceiling - self._headroom_db)
        curve = reduction_curve(self._peaks, self._rate, self._gain_db, settings, self._spools)
        yield from render(self._source, self._gain_db, curve, progress)
