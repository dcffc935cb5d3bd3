"""Renders a finished master as files: resample, dither, encode, then decode and measure what was really delivered.

A promise about a file is about what a decoder makes of it. Resampling, dither and lossy coding all move peaks, so each
file is decoded again and read by the contract's three meters; where one of them stands above the ceiling, the gain dips
there for a few milliseconds and the file is encoded anew.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.dither import NoiseShapedDither, TpdfDither
from outboard.audio.files import FileSpec, Tags, decode, encode
from outboard.audio.files.mp3_gain import GRANULE_FRAMES, lower_granules, steps_for
from outboard.audio.limiter import LimiterSettings
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.peak_envelope import STEP_FRAMES
from outboard.audio.peak_guard import read_peaks
from outboard.audio.reporting import part
from outboard.audio.resample import StreamResampler, resampled_frames
from outboard.audio.spool import BLOCK_FRAMES, Spool, blocks
from outboard.audio.true_peak import TruePeakMeter
from outboard.errors import Internal
from services.master.rendition import Rendered, Rendition
from services.master.settings import DeliverableReport, DeliverableSpec

Progress = Callable[[float], None]
Array = NDArray[np.float32]

LOSSLESS_TOLERANCE_DB = 0.05
LOSSY_TOLERANCE_DB = 0.2
"""What a delivered file may read over its ceiling."""

_DECIBELS_PER_LOST_LU = 4.0
_WITHIN_DB = 0.01  # an encode this close to the tolerance is not good enough: meters of others round differently
NEGLIGIBLE_LU = 0.05
"""How far a file's loudness may be off the master's without another encode."""

_MOST_ENCODES_FOR_LOUDNESS = 6  # every encode differs by some hundredths anyway: no chase after loudness alone
_MOST_ENCODES_LOSSLESS = 6
_MOST_ENCODES_HIGH_RATE = 3
_MOST_ENCODES_LOW_RATE = 5
_HIGH_RATE_KBPS = 256
_MOST_ROUNDS_OF_TURNING_DOWN = 6


@dataclass(frozen=True)
class Target:
    """A file to deliver.

    Attributes:
        spec: kind of file, checked before.
        directory: where it goes.
        ceiling_dbtp: true peak not to exceed; None delivers the signal as it is.
        limiter: for what resampling and coding ask for; None delivers the signal as it is.
        lufs: loudness of what is delivered; None where unmeasurable.
        seed: of the dither.
        tags: tags and cover art.
        spool_factory: makes an empty spool of that many channels.
    """

    spec: DeliverableSpec
    directory: Path
    ceiling_dbtp: float | None
    limiter: LimiterSettings | None
    lufs: float | None
    seed: int
    tags: Tags | None
    spool_factory: Callable[[int], Spool]


@dataclass(frozen=True)
class Delivered:
    """A delivered file, what it decodes to, the meter that read that, and the report. `held`: it keeps its ceiling."""

    path: Path
    decoded: Array
    peaks: TruePeakMeter
    report: DeliverableReport
    held: bool


def tolerance_db(spec: DeliverableSpec) -> float:
    """How far over the ceiling a file of this kind may read."""
    return LOSSY_TOLERANCE_DB if spec.is_lossy else LOSSLESS_TOLERANCE_DB


def deliver(array: Array, sample_rate_hertz: int, target: Target, progress: Progress) -> Delivered:
    """Renders one file.

    Args:
        array: the master, (channels, frames) float32, may be mapped.
        sample_rate_hertz: of the master.
        target: the file; on an exception nothing of it is left.
        progress: told the fraction of the expected work; may raise.
    """
    target = replace(target, spec=target.spec.resolved())
    path = target.directory / target.spec.file_name
    try:
        return _deliver(array, sample_rate_hertz, target, path, progress)
    except BaseException:
        path.unlink(missing_ok=True)
        _candidate(path).unlink(missing_ok=True)
        raise


def _deliver(array: Array, sample_rate_hertz: int, target: Target, path: Path, progress: Progress) -> Delivered:
    spec, rate, limiter = target.spec, target.spec.sample_rate_hertz, target.limiter
    source = _at_rate(array, sample_rate_hertz, rate, target.spool_factory, part(progress, 0.0, 0.2))
    known = target.lufs if rate == sample_rate_hertz else None
    rendition = None if limiter is None else Rendition(source, rate, limiter, target.spool_factory, known)
    most = _most_encodes(spec)
    best: _Encode | None = None
    coded_lu = 0.0  # loudness that the coder adds
    for attempt in range(1, most + 1):
        share = part(progress, 1.0 - 0.8**attempt, 1.0 - 0.8 ** (attempt + 1))
        rendered = Rendered(source, target.lufs)
        if rendition is not None:
            rendered = rendition.at(None if target.lufs is None else target.lufs - coded_lu, part(share, 0.0, 0.4))
        tried = _encoded(rendered.array, target, _candidate(path), part(share, 0.4, 0.9))
        if best is None or tried.merit > best.merit:
            best = tried
            _candidate(path).replace(path)
        if rendition is None or target.ceiling_dbtp is None or attempt == most or tried.is_good:
            break
        if best.over_db <= 0.0 and attempt >= _MOST_ENCODES_FOR_LOUDNESS:
            break
        if spec.is_lossy:
            coded_lu = _difference(tried.lufs, rendered.lufs)
        reading = read_peaks(tried.decoded, rate, target.ceiling_dbtp, target.spool_factory, part(share, 0.9, 1.0))
        scale_db = _scale_db(rendered.array, tried.decoded) if spec.is_lossy else None
        rendition.mend(reading, target.ceiling_dbtp, scale_db)
    _candidate(path).unlink(missing_ok=True)
    if best is None:
        raise Internal("nothing was encoded")
    turned_down = 0
    if spec.is_lossy and best.over_db > 0.0:
        best, turned_down = _turned_down(best, target, path)
    progress(1.0)
    report = DeliverableReport(
        name=spec.file_name,
        spec=spec,
        frames=best.decoded.shape[1],
        size_bytes=path.stat().st_size,
        sha256=_digest(path),
        integrated_lufs=best.lufs,
        true_peak_dbtp=best.peaks.true_peak_dbtp,
        encodes=attempt,
        turned_down=turned_down,
    )
    return Delivered(path, best.decoded, best.peaks, report, best.over_db <= _WITHIN_DB)


@dataclass(frozen=True)
class _Encode:
    """One encode: what it decodes to, how far it reads over what is good enough, and how far under its loudness."""

    decoded: Array
    peaks: TruePeakMeter
    lufs: float | None
    over_db: float
    lost_lu: float

    @property
    def is_good(self) -> bool:
        """No further encode is needed."""
        return self.over_db <= 0.0 and abs(self.lost_lu) <= NEGLIGIBLE_LU

    @property
    def merit(self) -> tuple[bool, float]:
        """Higher is better: one that holds the ceiling, then the nearest in loudness; else the least over, unless it
        paid for that with loudness.
        """
        if self.over_db <= 0.0:
            return True, -abs(self.lost_lu)
        return False, -self.over_db - _DECIBELS_PER_LOST_LU * max(abs(self.lost_lu) - NEGLIGIBLE_LU, 0.0)


def _encoded(rendered: Array, target: Target, path: Path, progress: Progress) -> _Encode:
    spec, rate, (channels, frames) = target.spec, target.spec.sample_rate_hertz, rendered.shape
    stream = _counted(blocks(rendered), frames, part(progress, 0.0, 0.5))
    encode(path, _quantised(stream, target, channels), rate, _file_spec(spec), tags=target.tags)
    return _read_back(path, frames, target, part(progress, 0.5, 1.0))


def _read_back(path: Path, frames: int, target: Target, progress: Progress) -> _Encode:
    spec = target.spec
    decoded = _decoded(path, frames, target.spool_factory, part(progress, 0.0, 0.4))
    peaks, lufs = _measured(decoded, spec.sample_rate_hertz, part(progress, 0.4, 1.0))
    peak, ceiling = peaks.true_peak_dbtp, target.ceiling_dbtp
    over_db = -np.inf
    if peak is not None and ceiling is not None:
        over_db = peak - (ceiling + tolerance_db(spec) - _WITHIN_DB)
    return _Encode(decoded, peaks, lufs, over_db, _difference(target.lufs, lufs))


def _turned_down(coded: _Encode, target: Target, path: Path) -> tuple[_Encode, int]:
    """Takes down what no encode kept under the ceiling, in the file itself; and how many granules that took."""
    spec, rate, ceiling = target.spec, target.spec.sample_rate_hertz, target.ceiling_dbtp
    frames = coded.decoded.shape[1]
    lowered = np.zeros(frames // GRANULE_FRAMES + 3, dtype=bool)
    for _ in range(_MOST_ROUNDS_OF_TURNING_DOWN):
        if ceiling is None or coded.over_db <= 0.0:
            break
        envelope = read_peaks(coded.decoded, rate, ceiling, target.spool_factory).envelope[0]
        allowed_db = ceiling + tolerance_db(spec) - _WITHIN_DB
        steps = np.zeros(lowered.size, dtype=np.int64)
        for start in range(0, envelope.size, BLOCK_FRAMES):
            over_db = 20.0 * np.log10(np.maximum(envelope[start : start + BLOCK_FRAMES], 1e-12)) - allowed_db
            np.maximum(steps, steps_for(over_db, start * STEP_FRAMES, STEP_FRAMES, steps.size), out=steps)
        lower_granules(path, steps)
        lowered |= steps > 0
        coded = _read_back(path, frames, target, lambda fraction: None)
    return coded, int(lowered.sum())


def _candidate(path: Path) -> Path:
    """Where an encode waits until it is known to be the best; no deliverable's name begins with a dot."""
    return path.with_name(f".{path.name}")


def _difference(one: float | None, other: float | None) -> float:
    return 0.0 if one is None or other is None else one - other


def _scale_db(rendered: Array, decoded: Array) -> float:
    """The gain of a coder whose noise has nothing to do with the signal: LAME scales by 0.95 at low bit rates."""
    product, power = 0.0, 0.0
    for ours, theirs in zip(blocks(rendered), blocks(decoded), strict=True):
        product += float(np.vdot(ours, theirs))
        power += float(np.vdot(ours, ours))
    return 20.0 * math.log10(product / power) if product > 0.0 and power > 0.0 else 0.0


def _at_rate(
    array: Array, from_hertz: int, to_hertz: int, spool_factory: Callable[[int], Spool], progress: Progress
) -> Array:
    if from_hertz == to_hertz:
        return array
    resampler = StreamResampler(from_hertz, to_hertz, array.shape[0])
    expected = resampled_frames(array.shape[1], from_hertz, to_hertz)
    with spool_factory(array.shape[0]) as spool:
        for block in blocks(array):
            spool.append(resampler.process(block))
            progress(spool.frames / max(expected, 1))
        spool.append(resampler.process(np.zeros((array.shape[0], 0), dtype=np.float32), last=True))
        return spool.array


def _counted(stream: Iterator[Array], frames: int, progress: Progress) -> Iterator[Array]:
    done = 0
    for block in stream:
        yield block
        done += block.shape[1]
        progress(done / frames)


def _quantised(rendered: Iterator[Array], target: Target, channels: int) -> Iterator[Array]:
    spec = target.spec
    if spec.is_lossy or spec.bit_depth == "32f":
        yield from rendered
        return
    depth = int(spec.bit_depth or 0)
    dither = TpdfDither(depth, channels, target.seed)
    if spec.dither == "noise_shaped":
        dither = NoiseShapedDither(depth, channels, target.seed, spec.sample_rate_hertz)
    for block in rendered:
        yield dither.process(block)


def _decoded(path: Path, frames: int, spool_factory: Callable[[int], Spool], progress: Progress) -> Array:
    with decode(path, sample_rate_hertz=None, spool=spool_factory, progress=progress) as file:
        if file.frames != frames:
            raise Internal(f"a deliverable decodes to {file.frames} frames where {frames} were rendered")
        return file.array


def _measured(decoded: Array, rate: int, progress: Progress) -> tuple[TruePeakMeter, float | None]:
    peaks, loudness = TruePeakMeter(decoded.shape[0]), LoudnessMeter(rate, decoded.shape[0])
    done = 0
    for block in blocks(decoded):
        peaks.process(block)
        loudness.process(block)
        done += block.shape[1]
        progress(done / decoded.shape[1])
    peaks.finish()
    return peaks, loudness.integrated_lufs


def _file_spec(spec: DeliverableSpec) -> FileSpec:
    if spec.is_lossy:
        return FileSpec(container=spec.container, bitrate_kbps=spec.bitrate_kbps or 0)
    return FileSpec(container=spec.container, bit_depth=spec.bit_depth or "")


def _most_encodes(spec: DeliverableSpec) -> int:
    if not spec.is_lossy:
        return _MOST_ENCODES_LOSSLESS
    return _MOST_ENCODES_LOW_RATE if (spec.bitrate_kbps or 0) < _HIGH_RATE_KBPS else _MOST_ENCODES_HIGH_RATE


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
