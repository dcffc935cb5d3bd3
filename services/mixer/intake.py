"""Brings the stems of a mix to one rate and one length while they arrive.

Supplied stems may differ in rate and length: each is resampled as it comes (soxr VHQ, zero latency) and padded with
silence to the longest one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from outboard.audio.resample import StreamResampler
from outboard.audio.spool import BLOCK_FRAMES, Spool

Audio = NDArray[np.float32]


class Intake:
    """The stems of one mix, on disk.

    Args:
        rates_and_channels: of each stem, by name.
        sample_rate_hertz: of the mix.
        directory: a folder on a disk; None: the system's.
    """

    def __init__(
        self, rates_and_channels: Mapping[str, tuple[int, int]], sample_rate_hertz: int, directory: Path | None
    ) -> None:
        self._spools: dict[str, Spool] = {}
        self._resamplers: dict[str, StreamResampler] = {}
        for name, (rate, channels) in rates_and_channels.items():
            self._spools[name] = Spool(channels, directory)
            if rate != sample_rate_hertz:
                self._resamplers[name] = StreamResampler(rate, sample_rate_hertz, channels)

    def append(self, name: str, block: Audio) -> None:
        """Take the next block (channels, frames) of a stem."""
        resampler = self._resamplers.get(name)
        self._spools[name].append(block if resampler is None else resampler.process(block))

    def finish(self) -> dict[str, Audio]:
        """All stems, mapped, (channels, frames) of the mix's rate and of one length."""
        for name, resampler in self._resamplers.items():
            spool = self._spools[name]
            spool.append(resampler.process(np.zeros((spool.channels, 0), dtype=np.float32), last=True))
        longest = max(spool.frames for spool in self._spools.values())
        for spool in self._spools.values():
            for size in _pieces(longest - spool.frames):
                spool.append(np.zeros((spool.channels, size), dtype=np.float32))
        return {name: spool.array for name, spool in self._spools.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            spool.close()


def _pieces(frames: int) -> Iterator[int]:
    for start in range(0, frames, BLOCK_FRAMES):
        yield min(BLOCK_FRAMES, frames - start)
