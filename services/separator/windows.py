"""A stream cut into the windows of a fixed-length model, and the model's answers joined again, as Demucs does it.

Window i starts at ``i * stride - lead`` of the song and has ``segment`` frames, or what is left of the song. A short
one is centred: the frames before it fill the left half of what it lacks, silence the right one; its answer is cut back
to its own frames. Answers are weighted with a triangle and divided by the sum of the weights, so a frame is finished as
soon as the next window starts behind it. ``lead`` frames of silence before the song are the shift trick.

Source: ``demucs.apply.apply_model`` (split, transition power 1) and ``TensorChunk.padded``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]
# As upstream: a silent song must not be divided by zero.
_SMALLEST_DEVIATION = 1e-8


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of the mono song, or of as much of it as is known."""

    mean: float
    deviation: float

    def apply(self, audio: Audio) -> Audio:
        """To mean 0 and deviation 1."""
        return (audio - np.float32(self.mean)) / np.float32(self.deviation + _SMALLEST_DEVIATION)

    def undo(self, audio: Audio) -> Audio:
        """Back to the song's level."""
        return audio * np.float32(self.deviation + _SMALLEST_DEVIATION) + np.float32(self.mean)


@dataclass(frozen=True)
class Window:
    """What the model gets, and where its answer belongs.

    Attributes:
        mix: float32 [channels, segment], normalised, silence where the song is not.
        normalisation: that was applied.
        start: in frames of the song; negative while there is lead.
        frames: that belong to the window.
        skipped: frames of the answer before those.
    """

    mix: Audio
    normalisation: Normalisation
    start: int
    frames: int
    skipped: int


class Cutter:
    """Cuts windows out of a stream.

    Args:
        channels: of the stream.
        segment: frames of the model's window.
        overlap: of neighbouring windows, 0 to below 1.
        lead: frames of silence before the song.
        known: the whole song's normalisation; without it each window is normalised by the song up to its end.
    """

    def __init__(self, channels: int, segment: int, overlap: float, lead: int, known: Normalisation | None) -> None:
        self._segment = segment
        self._stride = stride_of(segment, overlap)
        self._known = known
        self._next = -lead
        self._held: Audio = np.zeros((channels, 0), np.float32)
        self._held_from = 0
        self._running = _RunningMoments()

    def put(self, block: Audio, last: bool = False) -> Iterator[Window]:
        """Takes (channels, any number of) frames and gives the windows that they complete."""
        self._held = np.concatenate([self._held, block], axis=1)
        end = self._held_from + self._held.shape[1]
        while self._next + self._segment <= end:
            yield self._window(self._segment)
        while last and self._next < end:
            yield self._window(end - self._next)

    def _window(self, frames: int) -> Window:
        start, lacking = self._next, self._segment - frames
        self._running.extend(self._song(self._running.frames, start + frames))
        normalisation = self._known or self._running.normalisation()
        first = start - lacking // 2
        mix = np.zeros((self._held.shape[0], self._segment), np.float32)
        song = normalisation.apply(self._song(max(first, 0), first + self._segment))
        offset = max(first, 0) - first
        mix[:, offset : offset + song.shape[1]] = song
        self._next += self._stride
        self._forget(self._next - self._segment // 2)
        return Window(mix, normalisation, start, frames, lacking // 2)

    def _song(self, start: int, end: int) -> Audio:
        return self._held[:, max(start - self._held_from, 0) : max(end - self._held_from, 0)]

    def _forget(self, before: int) -> None:
        surplus = min(before, self._running.frames) - self._held_from
        if surplus > 0:
            self._held = self._held[:, surplus:].copy()
            self._held_from += surplus


class Joiner:
    """Joins the answers to a cutter's windows.

    Args:
        shape: of an answer without its frames, such as (stems, channels).
        segment, overlap, lead: as of the cutter.
    """

    def __init__(self, shape: tuple[int, ...], segment: int, overlap: float, lead: int) -> None:
        self._stride = stride_of(segment, overlap)
        self._weight = triangle(segment)
        self._sum: Audio = np.zeros((*shape, 0), np.float32)
        self._weights: Audio = np.zeros(0, np.float32)
        self._sum_from = -lead

    def add(self, window: Window, answer: Audio) -> Audio:
        """Takes the model's [*shape, segment] for the next window; returns the frames that are finished now.

        Frames of the lead are dropped: what comes out of all calls, and then of :meth:`finish`, is the song.
        """
        kept = window.normalisation.undo(answer[..., window.skipped : window.skipped + window.frames])
        weight = self._weight[: window.frames]
        missing = window.frames - self._weights.size
        if missing > 0:
            self._sum = np.concatenate([self._sum, np.zeros((*self._sum.shape[:-1], missing), np.float32)], axis=-1)
            self._weights = np.concatenate([self._weights, np.zeros(missing, np.float32)])
        self._sum[..., : window.frames] += weight * kept
        self._weights[: window.frames] += weight
        return self._take(self._stride)

    def finish(self) -> Audio:
        """What is left after the last window."""
        return self._take(self._weights.size)

    def _take(self, frames: int) -> Audio:
        done = self._sum[..., :frames] / self._weights[:frames]
        self._sum, self._weights = self._sum[..., frames:].copy(), self._weights[frames:].copy()
        before = min(max(-self._sum_from, 0), done.shape[-1])
        self._sum_from += done.shape[-1]
        return done[..., before:]


class _RunningMoments:
    """Mean and deviation (divided by frames - 1) of the mono sum of a growing stretch of song."""

    def __init__(self) -> None:
        self.frames = 0
        self._sum = 0.0
        self._squares = 0.0

    def extend(self, audio: Audio) -> None:
        mono = audio.mean(axis=0, dtype=np.float64)
        self.frames += mono.size
        self._sum += float(mono.sum())
        # Not `mono @ mono`: a library's dot product wakes a thread per core, and waits for them on a busy machine.
        self._squares += float(np.sum(np.square(mono)))

    def normalisation(self) -> Normalisation:
        count = max(self.frames, 1)
        mean = self._sum / count
        variance = (self._squares - count * mean * mean) / max(count - 1, 1)
        return Normalisation(mean, float(np.sqrt(max(variance, 0.0))))


def stride_of(segment: int, overlap: float) -> int:
    """Frames from one window's start to the next one's."""
    return int((1.0 - overlap) * segment)


def triangle(segment: int) -> Audio:
    """Weights of a window's frames: rising to 1 in the middle, and down again; never 0."""
    rising = np.arange(1, segment // 2 + 1, dtype=np.float32)
    falling = np.arange(segment - segment // 2, 0, -1, dtype=np.float32)
    weight: Audio = np.concatenate([rising, falling])
    weight /= weight.max()
    return weight
