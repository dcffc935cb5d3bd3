"""Renders a finished master as files: resample, dither, encode, then decode and measure what was really delivered.

A promise about a file is about what a decoder makes of it. Resampling, dither and lossy coding all move peaks, so each
file is decoded again and read by the contract's three meters; where one of them stands above the ceiling, the gain dips
there for a few milliseconds and the file is encoded anew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from outboard.audio.dither import NoiseShapedDither, TpdfDither
from outboard.audio.files import FileSpec, Tags, decode, encode
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.reporting import part
from outboard.audio.resample import StreamResampler, resampled_frames
from outboard.audio.spool import Spool, blocks
from outboard.audio.true_peak import TruePeakMeter
from outboard.errors import Internal
from services.master.rendition import Rendition
from services.master.settings import DeliverableReport, DeliverableSpec

Progress = Callable[[float], None]
Array = NDArray[np.float32]

LOSSLESS_TOLERANCE_DB = 0.05
LOSSY_TOLERANCE_DB = 0.2
"""What a delivered file may read over its ceiling."""

_WITHIN_DB = 0.01  # an encode this close to the tolerance is not good enough: meters of others round differently
_NEGLIGIBLE_LU = 0.05
_DIPS_SUFFICE_DB = 0.15  # what a lossy coder overshoots by less than this is mended by dips alone
_MOST_ENCODES_FOR_LOUDNESS = 6  # every encode differs by some hundredths anyway: no chase after loudness alone
_MOST_ENCODES_LOSSLESS = 6
_MOST_ENCODES_HIGH_RATE = 3
_MOST_ENCODES_LOW_RATE = 8
_HIGH_RATE_KBPS = 256


@dataclass(frozen=True)
class Target:
    """A file to deliver.

    Attributes:
        spec: kind of file, checked before.
        directory: where it goes.
        ceiling_dbtp: true peak not to exceed; None delivers the signal as it is.
        lufs: loudness of what is delivered; None where unmeasurable.
        seed: of the dither.
        tags: tags and cover art.
        spool_factory: makes an empty spool of that many channels.
    """

    spec: DeliverableSpec
    directory: Path
    ceiling_dbtp: float | None
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
    return LOSSY_TOLERANCE_DB if spec.container == "mp3" else LOSSLESS_TOLERANCE_DB


def deliver(array: Array, sample_rate_hertz: int, target: Target, progress: Progress) -> Delivered:
    """Renders one file.

    Args:
        array: the master, (channels, frames) float32, may be mapped.
        sample_rate_hertz: of the master.
        target: the file; on an exception nothing of it is left.
        progress: told the fraction of the expected work; may raise.
    """
    path = target.directory / target.spec.file_name
    try:
        return _deliver(array, sample_rate_hertz, target, path, progress)
    except BaseException:
        path.unlink(missing_ok=True)
        _candidate(path).unlink(missing_ok=True)
        raise


def _deliver(array: Array, sample_rate_hertz: int, target: Target, path: Path, progress: Progress) -> Delivered:
    spec, ceiling, rate = target.spec, target.ceiling_dbtp, target.spec.sample_rate_hertz
    source = _at_rate(array, sample_rate_hertz, rate, target.spool_factory, part(progress, 0.0, 0.2))
    rendition = Rendition(source, rate, 0.0 if ceiling is None else ceiling, target.spool_factory)
    most = _most_encodes(spec)
    best: _Encode | None = None
    for attempt in range(1, most + 1):
        share = part(progress, 1.0 - 0.8**attempt, 1.0 - 0.8 ** (attempt + 1))
        tried = _encoded(rendition, source, target, _candidate(path), share)
        if best is None or tried.merit > best.merit:
            best = tried
            _candidate(path).replace(path)
        if ceiling is None or attempt == most or (tried.over_db <= 0.0 and not tried.lost_lu):
            break
        if best.over_db <= 0.0 and attempt >= _MOST_ENCODES_FOR_LOUDNESS:
            break
        _mend(rendition, spec, tried)
    _candidate(path).unlink(missing_ok=True)
    progress(1.0)
    if best is None:
        raise Internal("nothing was encoded")
    report = DeliverableReport(
        name=spec.file_name,
        spec=spec,
        frames=best.decoded.shape[1],
        size_bytes=path.stat().st_size,
        sha256=_digest(path),
        integrated_lufs=best.lufs,
        true_peak_dbtp=best.peaks.true_peak_dbtp,
        encodes=attempt,
    )
    return Delivered(path, best.decoded, best.peaks, report, best.over_db <= _WITHIN_DB)


@dataclass(frozen=True)
class _Encode:
    """One encode: what it decodes to, how far it reads over what is good enough, and the loudness that coding took."""

    decoded: Array
    peaks: TruePeakMeter
    lufs: float | None
    over_db: float
    lost_lu: float

    @property
    def merit(self) -> tuple[bool, float]:
        """Higher is better: one that holds the ceiling, then the nearest in loudness; else the least over."""
        return self.over_db <= 0.0, -(abs(self.lost_lu) if self.over_db <= 0.0 else self.over_db)


def _encoded(rendition: Rendition, source: Array, target: Target, path: Path, progress: Progress) -> _Encode:
    spec, rate, frames = target.spec, target.spec.sample_rate_hertz, source.shape[1]
    rendered = _counted(rendition.blocks(part(progress, 0.0, 0.3)), frames, part(progress, 0.3, 0.5))
    encode(path, _quantised(rendered, target, source.shape[0]), rate, _file_spec(spec), tags=target.tags)
    decoded = _decoded(path, frames, target.spool_factory, part(progress, 0.5, 0.7))
    peaks, lufs = _measured(decoded, rate, part(progress, 0.7, 1.0))
    peak, ceiling = peaks.true_peak_dbtp, target.ceiling_dbtp
    over_db = -np.inf
    if peak is not None and ceiling is not None:
        over_db = peak - (ceiling + tolerance_db(spec) - _WITHIN_DB)
    return _Encode(decoded, peaks, lufs, over_db, _lost_to_coding(target, lufs))


def _candidate(path: Path) -> Path:
    """Where an encode waits until it is known to be the best; no deliverable's name begins with a dot."""
    return path.with_name(f".{path.name}")


def _mend(rendition: Rendition, spec: DeliverableSpec, tried: _Encode) -> None:
    """What the next encode does better: peaks down while one is over; loudness back once none is."""
    if tried.over_db <= 0.0:
        rendition.raise_by(tried.lost_lu)
        return
    rendition.dip(tried.decoded)
    rendition.raise_by(min(tried.lost_lu, 0.0))
    if spec.container == "mp3" and tried.over_db > _DIPS_SUFFICE_DB:
        rendition.lower_peaks()


def _is_low_rate(spec: DeliverableSpec) -> bool:
    return spec.container == "mp3" and spec.bitrate_kbps < _HIGH_RATE_KBPS


def _lost_to_coding(target: Target, lufs: float | None) -> float:
    """Loudness that an encoder took, in LU, where it took audibly much: LAME scales by 0.95 at low bit rates."""
    if target.spec.container != "mp3" or target.lufs is None or lufs is None:
        return 0.0
    lost = target.lufs - lufs
    return lost if abs(lost) > _NEGLIGIBLE_LU else 0.0


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
    if spec.container == "mp3" or spec.bit_depth == "32f":
        yield from rendered
        return
    depth = int(spec.bit_depth)
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
    return FileSpec(container=spec.container, bit_depth=spec.bit_depth, bitrate_kbps=spec.bitrate_kbps)


def _most_encodes(spec: DeliverableSpec) -> int:
    if spec.container != "mp3":
        return _MOST_ENCODES_LOSSLESS
    return _MOST_ENCODES_LOW_RATE if _is_low_rate(spec) else _MOST_ENCODES_HIGH_RATE


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
