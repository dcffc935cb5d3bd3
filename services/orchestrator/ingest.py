"""Reads an uploaded file: decoded in a child process, brought to 48 kHz stereo, stored as float WAV, and measured.

Everything here blocks and belongs in a worker thread; `progress` is called every block and may raise to stop it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.audio.files import decode
from outboard.audio.spool import Spool, blocks
from outboard.audio.wave_header import HEADER_BYTES, float_wave_header
from outboard.rpc import convert
from outboard.v1 import analysis_pb2
from services.orchestrator.results import ObjectDraft, plain

PIPELINE_RATE_HERTZ = 48000
PIPELINE_CHANNELS = 2
MAXIMUM_COVER_BYTES = 2 * 1024**2
"""Largest cover picture that the contract lets a master carry."""
ENGINE_NAME = "decode"
ENGINE_VERSION = 1
"""Raised whenever decoding, resampling or the analysis gives other numbers."""

_DECODE_SHARE = 0.3  # of the time that reading an input takes; the rest is analysis
Progress = Callable[[float], None]


def ingest_file(
    path: Path, target: ObjectDraft, *, field: str, spool_directory: Path | None, progress: Progress
) -> tuple[dict[str, Any], bytes]:
    """Decodes and measures a file, and writes its audio to `target`.

    Returns:
        The facts to keep with the result, and the cover picture (empty where there is none).

    Raises:
        InvalidInput: the file is no audio that can be used; see `outboard.audio.files.decode`.
    """
    decoded = decode(
        path,
        sample_rate_hertz=PIPELINE_RATE_HERTZ,
        spool=lambda channels: Spool(channels, spool_directory),
        field=field,
        progress=lambda fraction: progress(_DECODE_SHARE * fraction),
    )
    with decoded:
        array = as_stereo(decoded.array)
        frames = array.shape[1]
        target.write_blocking(float_wave_header(frames, PIPELINE_CHANNELS, PIPELINE_RATE_HERTZ))
        for block in blocks(array):
            target.write_blocking(np.ascontiguousarray(block.T, dtype="<f4").data)
            progress(_DECODE_SHARE)
        analysis = measure(array, lambda fraction: progress(_DECODE_SHARE + (1.0 - _DECODE_SHARE) * fraction))
    cover = decoded.tags.cover.data if decoded.tags.cover else b""
    warnings = [{"code": warning.code, "message": warning.message} for warning in decoded.warnings]
    if len(cover) > MAXIMUM_COVER_BYTES:
        warnings.append({"code": "COVER_LEFT_OUT", "message": "the cover picture is larger than 2 MiB: left out"})
        cover = b""
    facts = {
        "audio": layout(frames),
        "analysis": plain(analysis),
        "tags": dict(decoded.tags.text),
        "source": {
            "sample_rate_hertz": decoded.source_sample_rate_hertz,
            "channels": decoded.source_channels,
            "container": decoded.container,
            "codec": decoded.codec,
        },
        "warnings": warnings,
    }
    return facts, cover


def as_stereo(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """One channel on both sides, as a view; two channels as they are."""
    return np.broadcast_to(array, (PIPELINE_CHANNELS, array.shape[1])) if array.shape[0] == 1 else array


def layout(frames: int) -> dict[str, int]:
    """What a result says of its audio objects."""
    return {"frames": frames, "channels": PIPELINE_CHANNELS, "sample_rate_hertz": PIPELINE_RATE_HERTZ}


def measure(array: NDArray[np.float32], progress: Progress) -> analysis_pb2.Analysis:
    """The analysis of an array of shape (2, frames) at the pipeline's rate."""
    # Imported here: it costs a second that a mesh whose songs are done already should not take to start.
    from outboard.audio.analysis import analyze

    return convert.to_message(analyze(array, PIPELINE_RATE_HERTZ, progress=progress), analysis_pb2.Analysis)


def measure_stored(path: Path, frames: int, progress: Progress) -> analysis_pb2.Analysis:
    """The analysis of a stored float WAV of the pipeline's layout."""
    return measure(mapped(path, frames), progress)


def mapped(path: Path, frames: int) -> NDArray[np.float32]:
    """A stored float WAV of the pipeline's layout as an array of shape (2, frames), mapped and not loaded."""
    shape = (frames, PIPELINE_CHANNELS)
    samples: NDArray[np.float32] = np.memmap(path, dtype="<f4", mode="r", offset=HEADER_BYTES, shape=shape)
    return samples.T
