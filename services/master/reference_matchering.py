"""The engine `matchering`: spectrum and level of mid and side are matched to a reference song (Sergree, GPL-3.0).

Only its matching is used: its limiter knows no true peak and its files no other rate, so the result comes back
unlimited, as floats. Matchering holds whole songs in memory (about 7 kB a millisecond of stereo); it is the one stage
whose memory grows with the song. It is imported when first used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outboard.audio.resample import resample
from outboard.audio.spool import Spool, blocks

if TYPE_CHECKING:
    from services.master.reference import Reference


def match_by_matchering(
    array: NDArray[np.float32],
    sample_rate_hertz: int,
    references: Sequence[Reference],
    spool_factory: Callable[[int], Spool],
) -> NDArray[np.float32]:
    """The mix with the references' spectrum and level, unlimited; several references count one after the other as one
    song.

    Args:
        array: (1 or 2, frames), neither silent nor shorter than two analysis frames of matchering (8192).

    Returns:
        (channels, frames) float32, mapped.
    """
    with warnings.catch_warnings():  # its resampler imports from a namespace that SciPy is about to drop
        warnings.simplefilter("ignore", DeprecationWarning)
        import matchering
        from matchering import stages

    config = matchering.Config(internal_sample_rate=sample_rate_hertz, max_length=1e9)
    goal = np.concatenate(
        [_stereo(resample(song.array, song.sample_rate_hertz, sample_rate_hertz)) for song in references], axis=1
    )
    _, matched, _ = stages.main(
        np.ascontiguousarray(_stereo(array).T, dtype=np.float64),
        np.ascontiguousarray(goal.T, dtype=np.float64),
        config,
        need_default=False,
        need_no_limiter=True,
    )
    with spool_factory(array.shape[0]) as spool:
        for block in blocks(np.asarray(matched).T):
            spool.append(block if array.shape[0] == 2 else block.mean(axis=0, keepdims=True))
        return spool.array


def _stereo(array: NDArray[np.floating]) -> NDArray[np.floating]:
    return array if array.shape[0] == 2 else np.repeat(array[:1], 2, axis=0)
