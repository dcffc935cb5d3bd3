"""Streaming short-time Fourier transform and its overlap-add inverse, exact to rounding and independent of chunking.

Frame ``j`` covers samples ``[j*hop - (window - hop), j*hop + hop)`` of the stream, so it is known as soon as ``(j +
1) * hop`` samples have come, and every sample is covered by ``window / hop`` frames from the very first one on. With
the square root of a periodic Hann window on both sides, the products add up to ``window / (2 * hop)`` at every
sample (Hann's constant-overlap-add property for hops of at most half a window), so ``OverlapAdd(StreamingStft(x)) ==
x`` to float32 rounding, delayed by ``window - hop`` samples, which :class:`OverlapAdd` drops: an impulse at sample
``n`` stays at sample ``n``.

Sources: Griffin & Lim 1984 (weighted overlap-add); shapes are ``(channels, frames)`` for audio and ``(steps,
channels, bins)`` for spectra.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Audio = NDArray[np.float32]
Spectra = NDArray[np.complex64]


def square_root_hann(window_frames: int) -> Audio:
    """Square root of the periodic Hann window, shape (window_frames,), in 0..1."""
    phase = np.pi * np.arange(window_frames) / window_frames
    return np.sin(phase).astype(np.float32)


def nearest_window(seconds: float, sample_rate_hertz: int) -> int:
    """The power of two of frames that is next to so many seconds."""
    return int(2 ** round(np.log2(seconds * sample_rate_hertz)))


def spectra_by_position(padded: Audio, window: Audio, hop_frames: int) -> Spectra:
    """Spectra of a piece read by position, (steps, channels, bins): frame ``j`` begins at sample ``j * hop_frames``."""
    windows = np.lib.stride_tricks.sliding_window_view(padded, window.size, axis=1)[:, ::hop_frames]
    spectra: Spectra = scipy.fft.rfft(windows.transpose(1, 0, 2) * window, axis=-1)
    return spectra


def added_by_position(spectra: Spectra, window: Audio, hop_frames: int, frames: int, first: int = 0) -> Audio:
    """The inverse of :func:`spectra_by_position`, (channels, frames), whole where all frames reach that cover a sample.

    Args:
        spectra: (steps, channels, bins), of the frames from number `first` on.
        window: the square root of a Hann window, as before.
        hop_frames: as before.
        frames: of the piece.
        first: number of the first spectrum's frame.
    """
    pieces = scipy.fft.irfft(spectra, n=window.size, axis=-1) * (window * np.float32(2.0 * hop_frames / window.size))
    total = np.zeros((spectra.shape[1], frames), dtype=np.float32)
    for step in range(pieces.shape[0]):
        start = (first + step) * hop_frames
        total[:, start : start + window.size] += pieces[step]
    return total


def fixed_blocks(blocks: Iterable[Audio], size: int) -> Iterator[Audio]:
    """Cuts a stream anew into blocks of exactly ``size`` frames; the last may be shorter. Empty blocks vanish.

    Whatever computes on these blocks gives the same bytes however the stream was cut on its way here.

    Args:
        blocks: float32 arrays of shape (channels, any number of frames), in order.
        size: frames of each block that is yielded, at least 1.
    """
    held: list[Audio] = []
    held_frames = 0
    for block in blocks:
        offset = 0
        while offset < block.shape[1]:
            piece = block[:, offset : offset + size - held_frames]
            offset += piece.shape[1]
            # Copied: the caller may reuse its buffer before the block is full.
            held.append(np.array(piece, dtype=np.float32))
            held_frames += piece.shape[1]
            if held_frames == size:
                yield held[0] if len(held) == 1 else np.concatenate(held, axis=1)
                held, held_frames = [], 0
    if held:
        yield held[0] if len(held) == 1 else np.concatenate(held, axis=1)


class StreamingStft:
    """Spectra of a stream, one per hop.

    Args:
        channels: of the stream.
        window_frames: even.
        hop_frames: a divisor of ``window_frames``, at most half of it.
    """

    def __init__(self, channels: int, window_frames: int, hop_frames: int) -> None:
        _check_geometry(window_frames, hop_frames)
        self.window_frames = window_frames
        self.hop_frames = hop_frames
        self._window = square_root_hann(window_frames)
        self._tail: Audio = np.zeros((channels, window_frames - hop_frames), np.float32)

    def process(self, block: Audio) -> Spectra:
        """Spectra that ``block`` completes.

        Args:
            block: (channels, frames); frames a multiple of the hop.

        Returns:
            complex64 of shape (frames / hop, channels, window / 2 + 1).
        """
        if block.shape[1] % self.hop_frames:
            raise ValueError(f"a block must hold whole hops of {self.hop_frames} frames, not {block.shape[1]} frames")
        joined = np.concatenate([self._tail, block], axis=1)
        self._tail = joined[:, block.shape[1] :].copy()
        return spectra_by_position(joined, self._window, self.hop_frames)


class OverlapAdd:
    """The inverse of :class:`StreamingStft` for any leading shape of parallel streams.

    Args:
        shape: leading shape of what is yielded, such as (stems, channels).
        window_frames, hop_frames: as in the transform.
    """

    def __init__(self, shape: tuple[int, ...], window_frames: int, hop_frames: int) -> None:
        _check_geometry(window_frames, hop_frames)
        self.window_frames = window_frames
        self.hop_frames = hop_frames
        self._window = square_root_hann(window_frames) * np.float32(2.0 * hop_frames / window_frames)
        self._tail: Audio = np.zeros((*shape, window_frames - hop_frames), np.float32)
        self._to_drop = window_frames - hop_frames

    @property
    def delay_frames(self) -> int:
        """By how much the input must outlast the output: feed this many frames of silence after the stream's end."""
        return self.window_frames - self.hop_frames

    def process(self, spectra: Spectra) -> Audio:
        """Samples that are finished once ``spectra`` are added.

        Args:
            spectra: complex of shape (steps, *shape, bins).

        Returns:
            float32 of shape (*shape, up to steps * hop); the delay is already dropped.
        """
        steps = spectra.shape[0]
        pieces = scipy.fft.irfft(spectra, n=self.window_frames, axis=-1).astype(np.float32, copy=False) * self._window
        finished = steps * self.hop_frames
        total = np.zeros((*self._tail.shape[:-1], finished + self._tail.shape[-1]), np.float32)
        total[..., : self._tail.shape[-1]] = self._tail
        for step in range(steps):
            start = step * self.hop_frames
            total[..., start : start + self.window_frames] += pieces[step]
        self._tail = total[..., finished:].copy()
        dropped = min(self._to_drop, finished)
        self._to_drop -= dropped
        return total[..., dropped:finished]


def _check_geometry(window_frames: int, hop_frames: int) -> None:
    if window_frames < 2 or window_frames % 2 or hop_frames < 1:
        raise ValueError(f"window {window_frames} must be even and hop {hop_frames} positive")
    if window_frames % hop_frames or 2 * hop_frames > window_frames:
        raise ValueError(f"hop {hop_frames} must divide window {window_frames} and be at most half of it")
