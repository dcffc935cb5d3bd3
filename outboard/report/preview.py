"""Before and after in one file: alternating every few seconds at the same loudness.

Louder sounds better, so the louder of the two is turned down to the softer one's integrated loudness (ITU-R BS.1770-4)
before they are compared. The two are in step and alike, so the crossfades are of equal gain (raised cosine): a song
against itself passes unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.files import FileSpec, Tags, encode, to_stereo
from outboard.audio.loudness import integrated_loudness
from outboard.audio.spool import BLOCK_FRAMES, blocks

SEGMENT_SECONDS = 5.0
CROSSFADE_SECONDS = 0.03
PEAK_CEILING_DBFS = -1.0
"""Both sides are lowered together when either would be louder than this: the coder needs room, and clipping is no
comparison."""

PREVIEW_SPEC = FileSpec(container="mp3", bitrate_kbps=320, mp3_effort=7)
"""At this bit rate the lighter effort is no audible loss, and the user waits half as long."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class Level:
    """What is heard of one side: integrated loudness (unset where unmeasurable), and the largest sample (linear)."""

    lufs: float | None
    sample_peak: float


@dataclass(frozen=True)
class PreviewReport:
    """How the comparison was made: loudness as it came (unset where unmeasurable) and the gain each side was given."""

    before_lufs: float | None
    after_lufs: float | None
    before_gain_db: float
    after_gain_db: float
    segment_seconds: float
    frames: int


def write_preview(
    path: Path,
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    sample_rate_hertz: int,
    *,
    segment_seconds: float = SEGMENT_SECONDS,
    spec: FileSpec = PREVIEW_SPEC,
    tags: Tags | None = None,
    levels: tuple[Level, Level] | None = None,
    progress: Progress | None = None,
) -> PreviewReport:
    """Writes the comparison, which begins with `before` and is as long as the song.

    Args:
        path: the file to write.
        before, after: (1 or 2, frames) of equal length and rate; memory maps are read block by block.
        sample_rate_hertz: of both.
        segment_seconds: time between changes; a song shorter than two of these changes once, in its middle.
        spec: the kind of file.
        tags: as for `encode`.
        levels: of `before` and `after`, where they are known; unset: measured here.
        progress: told the fraction done, 0 to 1; may raise.

    Raises:
        InvalidInput: AUDIO_EMPTY for 0 frames.
        ResourceExhausted: STORAGE_FULL; no file is left.
    """
    if before.shape[1] != after.shape[1]:
        raise ValueError(f"the two differ in length: {before.shape[1]} and {after.shape[1]} frames")
    if levels is None:
        measured = _measure(before, sample_rate_hertz, progress or _ignore, 0.0)
        levels = measured, _measure(after, sample_rate_hertz, progress or _ignore, 0.2)
    report = _report(*levels, before.shape[1], sample_rate_hertz, segment_seconds)
    mixed = _alternating(before, after, sample_rate_hertz, report, progress or _ignore)
    encode(path, mixed, sample_rate_hertz, spec, tags)
    return report


def weight_of_after(start: int, frames: int, segment_frames: int, crossfade_frames: int) -> NDArray[np.float32]:
    """How much of `after` is heard in frames start .. start + frames: 0, 1, or between them in a crossfade.

    Changes are centred on the multiples of `segment_frames` (but 0), each `crossfade_frames` long at most.
    """
    position = np.arange(start, start + frames, dtype=np.float64) + 0.5
    change = np.maximum(1.0, np.rint(position / segment_frames))  # the nearest change
    length = max(1, min(crossfade_frames, segment_frames))
    passed = np.clip((position - change * segment_frames) / length + 0.5, 0.0, 1.0)
    rising = 0.5 - 0.5 * np.cos(np.pi * passed)
    weight: NDArray[np.float32] = np.where(change % 2 == 1, rising, 1.0 - rising).astype(np.float32)
    return weight


def _report(before: Level, after: Level, frames: int, sample_rate_hertz: int, segment_seconds: float) -> PreviewReport:
    before_gain_db = after_gain_db = 0.0
    if before.lufs is not None and after.lufs is not None:
        before_gain_db = min(0.0, after.lufs - before.lufs)
        after_gain_db = min(0.0, before.lufs - after.lufs)
    peak = max(before.sample_peak * _factor(before_gain_db), after.sample_peak * _factor(after_gain_db))
    headroom_db = min(0.0, PEAK_CEILING_DBFS - 20.0 * float(np.log10(peak))) if peak > 0.0 else 0.0
    return PreviewReport(
        before_lufs=before.lufs,
        after_lufs=after.lufs,
        before_gain_db=before_gain_db + headroom_db,
        after_gain_db=after_gain_db + headroom_db,
        segment_seconds=min(segment_seconds, frames / 2 / sample_rate_hertz),
        frames=frames,
    )


def _measure(array: NDArray[np.float32], sample_rate_hertz: int, progress: Progress, begun: float) -> Level:
    """Integrated loudness of what both ears get, and the sample peak, in one pass."""
    peak = 0.0

    def heard() -> Iterator[NDArray[np.float32]]:
        nonlocal peak
        for index, block in enumerate(blocks(array)):
            peak = max(peak, float(np.abs(block).max()))
            yield np.ascontiguousarray(to_stereo(block))
            progress(begun + 0.2 * min(1.0, (index + 1) * BLOCK_FRAMES / array.shape[1]))

    lufs = integrated_loudness(heard(), sample_rate_hertz)
    return Level(lufs, peak)


def _alternating(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    sample_rate_hertz: int,
    report: PreviewReport,
    progress: Progress,
) -> Iterator[NDArray[np.float32]]:
    segment_frames = max(1, round(report.segment_seconds * sample_rate_hertz))
    crossfade_frames = round(CROSSFADE_SECONDS * sample_rate_hertz)
    before_gain = np.float32(_factor(report.before_gain_db))
    after_gain = np.float32(_factor(report.after_gain_db))
    start = 0
    for one, other in zip(blocks(before), blocks(after), strict=True):
        frames = one.shape[1]
        weight = weight_of_after(start, frames, segment_frames, crossfade_frames)
        old, new = to_stereo(one) * before_gain, to_stereo(other) * after_gain
        yield old + weight * (new - old)
        start += frames
        progress(0.4 + 0.6 * start / report.frames)


def _factor(decibels: float) -> float:
    return float(10.0 ** (decibels / 20.0))


def _ignore(fraction: float) -> None:
    """Stands where nobody wants to know the progress."""
