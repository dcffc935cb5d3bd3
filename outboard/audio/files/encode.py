"""Encodes a stream of float blocks into a file: WAV, FLAC or MP3, in bounded memory, with the same bytes every time."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from outboard.audio.files.flac import FlacWriter
from outboard.audio.files.mp3 import BITRATES_KBPS, Mp3Writer, mp3_rate_hertz
from outboard.audio.files.tags import Tags
from outboard.audio.files.wav import WavWriter
from outboard.audio.resample import StreamResampler
from outboard.errors import Internal, InvalidInput, ResourceExhausted

CONTAINERS = ("wav", "flac", "mp3")
BIT_DEPTHS = ("16", "24", "32f")
_WAV_BLOCK_FRAMES = 65536


@dataclass(frozen=True)
class FileSpec:
    """What kind of file to write.

    Args:
        container: wav, flac or mp3.
        bit_depth: 16, 24 or 32f (float; WAV only); says nothing for MP3.
        bitrate_kbps: of MP3, constant.
        mp3_effort: LAME's quality setting, from 0 (slowest) to 9; 3 is LAME's own choice, 7 takes half the time.

    Raises:
        InvalidInput: INVALID_ARGUMENT for an unknown value, OPTIONS_CONFLICT for 32f in FLAC.
    """

    container: str = "wav"
    bit_depth: str = "24"
    bitrate_kbps: int = 320
    mp3_effort: int = 3

    def __post_init__(self) -> None:
        _must_be_one_of("container", self.container, CONTAINERS)
        _must_be_one_of("bit_depth", self.bit_depth, BIT_DEPTHS)
        if self.container == "mp3":
            _must_be_one_of("bitrate_kbps", self.bitrate_kbps, BITRATES_KBPS)
            _must_be_one_of("mp3_effort", self.mp3_effort, tuple(range(10)))
        if self.container == "flac" and self.bit_depth == "32f":
            raise InvalidInput(
                "FLAC holds no floats: bit_depth 32f is for wav; flac takes 16 or 24",
                reason="OPTIONS_CONFLICT",
                field="bit_depth",
            )


@dataclass(frozen=True)
class EncodedFile:
    """What was written: decoded, the file has `frames` frames at `sample_rate_hertz`.

    `clipped_samples` counts integer samples that lay beyond full scale.
    """

    frames: int
    sample_rate_hertz: int
    channels: int
    size_bytes: int
    clipped_samples: int


class _Writer(Protocol):
    clipped_samples: int

    def write(self, block: NDArray[np.float32]) -> None: ...

    def finish(self) -> None: ...


def encode(
    path: Path,
    blocks: Iterable[NDArray[np.float32]],
    sample_rate_hertz: int,
    spec: FileSpec,
    tags: Tags | None = None,
) -> EncodedFile:
    """Writes the blocks as one file that appears under its name only when it is whole.

    Integer formats are rounded, not dithered: blocks come dithered to the grid of the bit depth and get through
    exactly. MP3 is coded at 32, 44.1 or 48 kHz; other rates are converted (88.2 to 44.1 kHz, 96 to 48 kHz). However the
    blocks are cut, the bytes are the same.

    Args:
        path: where; an existing file is replaced.
        blocks: float32 of shape (1 or 2, frames), not empty in all.
        sample_rate_hertz: of the blocks.
        spec: the kind of file.
        tags: text and cover to write into it.

    Raises:
        InvalidInput: AUDIO_EMPTY, when the blocks hold no frame.
        ResourceExhausted: STORAGE_FULL; no file is left.
    """
    path = Path(path)
    part = path.with_name(f".{path.name[:64]}.{secrets.token_hex(8)}.part")
    try:
        with part.open("xb+") as file:
            written = _encode(file, blocks, sample_rate_hertz, spec, tags or Tags())
        os.replace(part, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ResourceExhausted("the disk for the encoded file is full", reason="STORAGE_FULL") from error
        raise
    finally:
        part.unlink(missing_ok=True)
    return written


def _encode(
    file: IO[bytes], blocks: Iterable[NDArray[np.float32]], sample_rate_hertz: int, spec: FileSpec, tags: Tags
) -> EncodedFile:
    stream = iter(blocks)
    first = next((block for block in stream if block.shape[1]), None)
    if first is None:
        raise InvalidInput("there is no audio to encode (0 frames)", reason="AUDIO_EMPTY", field="audio")
    channels = first.shape[0]
    if channels not in (1, 2):
        raise ValueError(f"files have 1 or 2 channels, not {channels}")
    whole: Iterator[NDArray[np.float32]] = chain([first], stream)
    rate, block_frames, writer = _writer(file, sample_rate_hertz, channels, spec, tags)
    if rate != sample_rate_hertz:
        whole = _resampled(whole, StreamResampler(sample_rate_hertz, rate, channels))
    frames = 0
    for block in recut(whole, channels, block_frames):
        if not np.isfinite(block).all():
            raise Internal("audio to be encoded has samples that are NaN or infinite")
        writer.write(block)
        frames += block.shape[1]
    writer.finish()
    size_bytes = file.seek(0, os.SEEK_END)
    return EncodedFile(frames, rate, channels, size_bytes, writer.clipped_samples)


def _writer(
    file: IO[bytes], sample_rate_hertz: int, channels: int, spec: FileSpec, tags: Tags
) -> tuple[int, int, _Writer]:
    """The rate that the file gets, the block size that its coder wants, and the coder."""
    if spec.container == "wav":
        wav = WavWriter(file, sample_rate_hertz, channels, spec.bit_depth, tags)
        return sample_rate_hertz, _WAV_BLOCK_FRAMES, wav
    if spec.container == "flac":
        flac = FlacWriter(file, sample_rate_hertz, channels, spec.bit_depth, tags)
        return sample_rate_hertz, flac.block_frames, flac
    rate = mp3_rate_hertz(sample_rate_hertz)
    mp3 = Mp3Writer(file, rate, channels, spec.bitrate_kbps, spec.mp3_effort, tags)
    return rate, mp3.block_frames, mp3


def recut(blocks: Iterable[NDArray[np.float32]], channels: int, block_frames: int) -> Iterator[NDArray[np.float32]]:
    """Cuts a stream of blocks anew: every block has `block_frames` frames, the last what remains (if anything)."""
    held = np.empty((channels, block_frames), dtype=np.float32)
    filled = 0
    for block in blocks:
        if block.ndim != 2 or block.shape[0] != channels:
            raise ValueError(f"expected blocks of shape ({channels}, frames), got {block.shape}")
        start = 0
        while start < block.shape[1]:
            taken = min(block_frames - filled, block.shape[1] - start)
            held[:, filled : filled + taken] = block[:, start : start + taken]
            start, filled = start + taken, filled + taken
            if filled == block_frames:
                yield held.copy()
                filled = 0
    if filled:
        yield held[:, :filled].copy()


def _resampled(blocks: Iterable[NDArray[np.float32]], resampler: StreamResampler) -> Iterator[NDArray[np.float32]]:
    for block in blocks:
        yield resampler.process(block)
    yield resampler.process(np.empty((resampler.channels, 0), dtype=np.float32), last=True)


def _must_be_one_of(field: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        choice = ", ".join(str(each) for each in allowed)
        raise InvalidInput(f"{field} is {value}; allowed are {choice}", field=field)
