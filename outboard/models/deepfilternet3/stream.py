"""DeepFilterNet3 on a stream of audio: in blocks of its own, whatever the caller's; aligned to the sample.

The work of a block is 100 hops, a second, with the state of the last one; so neither memory nor result depends on the
length of the audio or on how it was cut. The network is two hops late and the transform one; the beginning of what
comes out is left off by as much, and silence is fed at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from outboard.audio.resample import StreamResampler
from outboard.errors import FailedPrecondition
from outboard.models.checkpoint import read_state
from outboard.models.deepfilternet3.features import (
    BANDS,
    BINS,
    FILTERED_BINS,
    HOP_FRAMES,
    LOOKAHEAD_HOPS,
    SAMPLE_RATE_HERTZ,
    Analyser,
    Features,
    Synthesiser,
)
from outboard.models.registry import find, install_hint
from outboard.models.weights import WeightsFolder
from outboard.models.weights_files import sha256

if TYPE_CHECKING:
    from outboard.models.deepfilternet3.network import Network

NAME = "deepfilternet3"
CHECKPOINT = "checkpoints/model_120.ckpt.best"
BLOCK_HOPS = 100

Audio = NDArray[np.float32]


def denoised(
    blocks: Iterable[Audio],
    channels: int,
    sample_rate_hertz: int,
    attenuation_limit_db: float | None = None,
    *,
    root: Path | None = None,
    block_hops: int = BLOCK_HOPS,
) -> Iterator[Audio]:
    """The voice without the noise.

    At another rate than 48 kHz what is taken away is computed at 48 kHz and brought back to the stem's rate: what the
    network leaves alone stays as it was, up to the half of a higher rate.

    Args:
        blocks: float32 (channels, frames), of any sizes.
        channels: 1 or more; each is treated by itself, with the same weights.
        sample_rate_hertz: 8000 to 192000.
        attenuation_limit_db: most that anything is lowered, above 0; None: no limit.
        root: folder of models; that of the settings unless given.
        block_hops: hops of 10 ms computed at once, at least 3: fewer need less memory, and give the same but for
            rounding.

    Yields:
        as many frames in all as came in, aligned.

    Raises:
        FailedPrecondition: MODEL_WEIGHTS_MISSING and its kin, ENGINE_UNAVAILABLE.
    """
    stream = _Stream(load(root), channels, attenuation_limit_db)
    if sample_rate_hertz == SAMPLE_RATE_HERTZ:
        return _at_48_khz(blocks, channels, stream, block_hops)
    return _at_another_rate(blocks, channels, sample_rate_hertz, stream, block_hops)


def _at_another_rate(
    blocks: Iterable[Audio], channels: int, sample_rate_hertz: int, stream: _Stream, block_hops: int
) -> Iterator[Audio]:
    """The blocks less what the network takes away at 48 kHz."""
    up = StreamResampler(sample_rate_hertz, SAMPLE_RATE_HERTZ, channels)
    down = StreamResampler(SAMPLE_RATE_HERTZ, sample_rate_hertz, channels)
    nothing = np.zeros((channels, 0), np.float32)
    originals = [nothing]  # what has not been given back yet, at both rates
    resampled = [nothing]

    def raised() -> Iterator[Audio]:
        for block in blocks:
            originals.append(np.asarray(block, np.float32))
            resampled.append(up.process(block))
            yield resampled[-1]
        resampled.append(up.process(nothing, last=True))
        yield resampled[-1]

    def given(taken: Audio) -> Audio:
        waiting = np.concatenate(originals, axis=1)
        count = min(taken.shape[1], waiting.shape[1])
        originals[:] = [waiting[:, count:]]
        return waiting[:, :count] + taken[:, :count]

    for part in _at_48_khz(raised(), channels, stream, block_hops):
        before = np.concatenate(resampled, axis=1)
        resampled[:] = [before[:, part.shape[1] :]]
        yield given(down.process(part - before[:, : part.shape[1]]))
    yield given(down.process(nothing, last=True))
    # Back and forth between two rates can round to a frame less.
    yield np.concatenate(originals, axis=1)


def _at_48_khz(blocks: Iterable[Audio], channels: int, stream: _Stream, block_hops: int) -> Iterator[Audio]:
    late, given, taken = HOP_FRAMES, 0, 0
    for piece, is_last in _with_end(_recut(blocks, channels, block_hops * HOP_FRAMES)):
        taken += piece.shape[1]
        for out in stream.finished(piece) if is_last else (stream.fed(piece),):
            part = out[:, late:][:, : taken - given]
            late = max(0, late - out.shape[1])
            given += part.shape[1]
            yield part


def load(root: Path | None = None) -> Network:
    """The network with the weights that are here; once per process and file.

    Raises:
        FailedPrecondition: as :func:`denoised`.
    """
    # Weights first: they are missed far more often than packages, and loading torch takes seconds.
    checkpoint = WeightsFolder(find(NAME), root).require(CHECKPOINT)
    return _loaded(checkpoint, sha256(checkpoint))


@functools.lru_cache(maxsize=1)
def _loaded(checkpoint: Path, _digest: str) -> Network:
    state = read_state(checkpoint)
    try:
        import torch

        from outboard.models.deepfilternet3.network import Network
    except ModuleNotFoundError as error:
        raise FailedPrecondition(install_hint((error.name or "torch",)), reason="ENGINE_UNAVAILABLE") from error
    return Network(state, "cuda" if torch.cuda.is_available() else "cpu")


def _with_end(pieces: Iterator[Audio]) -> Iterator[tuple[Audio, bool]]:
    """Every piece, and whether it is the last."""
    before = next(pieces, None)
    for piece in pieces:
        if before is not None:
            yield before, False
        before = piece
    if before is not None:
        yield before, True


def _recut(blocks: Iterable[Audio], channels: int, size: int) -> Iterator[Audio]:
    """Blocks of `size` frames; the last one shorter, if anything is left."""
    held = np.zeros((channels, 0), np.float32)
    for block in blocks:
        held = np.concatenate([held, block], axis=1) if held.shape[1] else np.asarray(block, np.float32)
        while held.shape[1] >= size:
            yield held[:, :size]
            held = held[:, size:]
    if held.shape[1]:
        yield held


class _Stream:
    """One stream through the network."""

    def __init__(self, network: Network, channels: int, attenuation_limit_db: float | None) -> None:
        self._network = network
        self._memory = network.start(channels)
        self._analyser = Analyser(channels)
        self._synthesiser = Synthesiser(channels)
        self._kept = np.float32(0.0 if attenuation_limit_db is None else 10.0 ** (-attenuation_limit_db / 20.0))

    def fed(self, audio: Audio) -> Audio:
        """What comes out for the next (channels, whole hops)."""
        return self._computed(self._analyser.feed(audio))

    def finished(self, audio: Audio) -> Iterator[Audio]:
        """What comes out for the last piece, of any length, and for the silence after it."""
        padding = -audio.shape[1] % HOP_FRAMES + LOOKAHEAD_HOPS * HOP_FRAMES
        yield self.fed(np.pad(audio, ((0, 0), (0, padding))))
        # As upstream does it: past the end it is not the audio but its features that are nothing.
        shape = (audio.shape[0], LOOKAHEAD_HOPS)
        yield self._computed(
            (
                np.zeros((*shape, BINS), np.complex64),
                np.zeros((*shape, BANDS), np.float32),
                np.zeros((*shape, FILTERED_BINS), np.complex64),
            )
        )

    def _computed(self, features: Features) -> Audio:
        raw, enhanced = self._network.enhanced(features, self._memory)
        if self._kept:
            enhanced = raw * self._kept + enhanced * (1 - self._kept)
        return self._synthesiser.feed(enhanced)
