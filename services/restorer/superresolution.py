"""The engines `audiosr` and `audiosr_speech`: a network draws the upper band of a stem that was cut off.

    stem ─► 48 kHz ─► windows of 10.24 s, low-passed at the cutoff found, at one level ─► network ─► in step, at level
                                                                                                        │
    stem ◄─ its rate ◄─ high-pass ◄─ difference above the cutoff ◄─ windows cross-faded ◄───────────────┘

Windows lie at fixed places of the stem and have a key of their own (of the seed, the place and the channel), so the
result does not depend on how the stem came or on what else is computed. What is added is a difference above the cutoff
(`outboard.audio.band_splice`): at any sample rate the stem below it stays as it was.

A network that fails is tried once more in windows of 5.12 s; after that the caller has what remains to be done.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from outboard.audio.band_replication import cell_frames
from outboard.audio.band_splice import (
    HOP_FRAMES,
    SAMPLE_RATE_HERTZ,
    SEAM_HERTZ,
    WINDOW_FRAMES,
    Seam,
    cross_faded,
    high_pass_taps,
    in_step,
    low_pass_taps,
)
from outboard.audio.fir import StreamConvolver
from outboard.audio.overlap_add import OverlapAdd, Spectra, StreamingStft
from outboard.audio.reporting import EngineInfo, Progress, forward, part
from outboard.audio.resample import StreamResampler
from outboard.audio.spool import Spool, blocks
from services.restorer.attempts import Failure, failure_of
from services.restorer.bandwidth import BandwidthPlan, held, step_powers
from services.restorer.cells import padded_part

Audio = NDArray[np.float32]

ATTEMPTS = (491_520, 245_760)
"""Frames of the windows, first and second attempt: 10.24 s, as the network was trained, and 5.12 s."""
OVERLAP_FRAMES = 60 * HOP_FRAMES
WINDOWS_IN_FLIGHT = 4
HUNG_SECONDS = 3600.0
"""Time without an answer after which a network is taken to hang. It is long: a slow day must not decide about sound."""
DEFAULT_STEPS = 50
DEFAULT_GUIDANCE = 3.5
NARROWEST_HERTZ = 1_000.0  # of a new band
_LEVEL = 0.5  # highest sample of a window, as in training
_SILENT = 1e-4  # highest sample of a window that is not worth drawing for
_POLL_SECONDS = 0.25
_SHARE_OF_NETWORK = 0.85  # of the work, for progress


@dataclass(frozen=True)
class Drawing:
    """How a window is drawn.

    Attributes:
        key: of its noise, 0 to 2**63 - 1.
        cutoff_hertz: up to where it stays as it is.
        diffusion_steps, guidance_scale: of the sampler.
    """

    key: int
    cutoff_hertz: float
    diffusion_steps: int
    guidance_scale: float


Draw = Callable[[Audio, Drawing], "Future[Audio]"]
"""One window of mono at 48 kHz, (frames,), to one with an upper band."""


@dataclass(frozen=True)
class DrawingEngine:
    """A network: what is told of it, and what computes."""

    info: EngineInfo
    draw: Draw


@dataclass(frozen=True)
class Sampling:
    """What a request says of the noise and the sampler."""

    seed: int = 0
    diffusion_steps: int = DEFAULT_STEPS
    guidance_scale: float = DEFAULT_GUIDANCE


def has_room(cutoff_hertz: float, sample_rate_hertz: int) -> bool:
    """Whether a new band fits between the cutoff and half of the sample rate."""
    return cutoff_hertz + NARROWEST_HERTZ <= min(sample_rate_hertz, SAMPLE_RATE_HERTZ) / 2.0


def rendered(
    array: Audio,
    sample_rate_hertz: int,
    engine: DrawingEngine,
    how: BandwidthPlan,
    power: float,
    sampling: Sampling,
    directory: Path | None,
    progress: Progress,
    attempts: tuple[int, ...] = ATTEMPTS,
) -> tuple[Spool, float] | tuple[None, tuple[Failure, ...]]:
    """The stem with its new band, and the amount used in the end, 0 to 1.

    Returns nothing but what went wrong, once per attempt, where all attempts failed.

    Args:
        array: float32 (channels, frames), may be a memory map.
        sample_rate_hertz: of the stem.
        engine: what draws.
        how: what is done.
        power: mean power of the stem.
        sampling: seed and settings.
        directory: for spools.
        progress: called while windows are computed; may raise to cancel.
        attempts: frames of the windows.

    Raises:
        ResourceExhausted: STORAGE_FULL; and what `progress` raises. Both are no matter of the engine.
    """
    failures: list[Failure] = []
    onwards = forward(progress)
    for frames in attempts:
        with Spool(array.shape[0], directory) as additions, Spool(array.shape[0], directory) as at_rate:
            source = _at_48_khz(array, sample_rate_hertz, at_rate)
            work = _Windows(source, engine.draw, how, sampling, frames)
            failure = work.collect(additions, array.shape[1], sample_rate_hertz, part(onwards, 0, _SHARE_OF_NETWORK))
            if failure is None:
                size = cell_frames(sample_rate_hertz)
                powers = [
                    step_powers(padded_part(additions.array, start, size)) for start in range(0, array.shape[1], size)
                ]
                last = part(onwards, _SHARE_OF_NETWORK, 1.0)
                return held(array, additions, powers, how, power, size, directory, last)
        failures.append(failure)
        if failure.is_answer:
            break
    return None, tuple(failures)


def _at_48_khz(array: Audio, sample_rate_hertz: int, spool: Spool) -> Audio:
    """The stem at the network's rate; itself where it has that rate."""
    if sample_rate_hertz == SAMPLE_RATE_HERTZ:
        return array
    resampler = StreamResampler(sample_rate_hertz, SAMPLE_RATE_HERTZ, array.shape[0])
    for block in blocks(array):
        spool.append(resampler.process(block))
    spool.append(resampler.process(np.zeros((array.shape[0], 0), np.float32), last=True))
    return spool.array


class _Failed(Exception):
    """The engine's own failure, to be told from what progress and the disk raise."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Windows:
    """All windows of a stem at 48 kHz.

    Args:
        source: (channels, frames).
        draw: the network.
        how: where the stem ends, and how much is added.
        sampling: seed and settings.
        frames: of a window, a multiple of the hop.
    """

    def __init__(self, source: Audio, draw: Draw, how: BandwidthPlan, sampling: Sampling, frames: int) -> None:
        self._source = source
        self._draw = draw
        self._cutoff_hertz = cutoff_hertz = how.cutoff_hertz
        self._amount = np.float32(how.amount)
        self._sampling = sampling
        self._frames = frames
        self._taps = low_pass_taps(cutoff_hertz)
        self._seam = Seam(cutoff_hertz)
        self._advance = frames - OVERLAP_FRAMES
        self._count = max(1, -(-(source.shape[1] - OVERLAP_FRAMES) // self._advance))

    def collect(self, into: Spool, frames: int, sample_rate_hertz: int, progress: Progress) -> Failure | None:
        """Puts what is to be added to the stem, at its own rate, into a spool; or says why it could not be had."""
        channels = self._source.shape[0]
        taps = high_pass_taps(self._cutoff_hertz)
        convolver, convolver_half = StreamConvolver(taps, channels), taps.size // 2
        resampler = StreamResampler(SAMPLE_RATE_HERTZ, sample_rate_hertz, channels)
        nothing = np.zeros((channels, 0), np.float32)
        given = 0
        try:
            for piece in self._differences(progress):
                kept = piece[:, : self._source.shape[1] - given]
                kept *= self._amount * self._gate(given, kept.shape[1], convolver_half)
                given += kept.shape[1]
                into.append(resampler.process(convolver.process(kept)))
        except _Failed as failed:
            return failure_of(failed.error)
        into.append(resampler.process(convolver.process(nothing, last=True), last=True))
        # Back and forth between two rates can round to a frame less.
        into.append(np.zeros((channels, max(0, frames - into.frames)), np.float32))
        return None

    def _gate(self, start: int, frames: int, silent: int) -> Audio:
        """Gains that leave out what the last filter would smear over the ends of the stem, where it is cut off: that
        cut would sound below the cutoff too.
        """
        places = np.arange(start, start + frames)
        distance = np.minimum(places, self._source.shape[1] - 1 - places) - silent
        rising = np.clip(distance / HOP_FRAMES, 0.0, 1.0)
        gains: Audio = (0.5 - 0.5 * np.cos(np.pi * rising)).astype(np.float32)
        return gains

    def _differences(self, progress: Progress) -> Iterator[Audio]:
        """What is added, before the last filter, in order."""
        overlap_add = OverlapAdd((self._source.shape[0],), WINDOW_FRAMES, HOP_FRAMES)
        steps = self._frames // HOP_FRAMES
        common = OVERLAP_FRAMES // HOP_FRAMES
        # A spectrum that reaches back over the beginning of a window is the last window's alone.
        reach = WINDOW_FRAMES // HOP_FRAMES - 1
        ramp = np.clip((np.arange(common) - reach + 0.5) / (common - reach), 0.0, 1.0).astype(np.float32)
        old: Spectra | None = None
        reaching_back: Spectra | None = None
        for number, (drawn, original) in enumerate(self._drawn(progress)):
            new, own = _spectra(drawn), _spectra(original)
            if old is not None and reaching_back is not None:
                new[:common] = cross_faded(old, new[:common], ramp)
                own[:reach] = reaching_back
            is_last = number == self._count - 1
            done = steps if is_last else steps - common
            yield overlap_add.process(self._seam.difference(new[:done], own[:done]))
            old = new[done:]
            reaching_back = own[done : done + reach]
        yield overlap_add.process(np.zeros((reach, self._source.shape[0], WINDOW_FRAMES // 2 + 1), np.complex64))

    def _drawn(self, progress: Progress) -> Iterator[tuple[Audio, Audio]]:
        """Every window as it was drawn, in step, and as it is; several are on their way at once."""
        waiting: deque[tuple[Audio, list[Future[Audio] | None], list[float]]] = deque()
        try:
            for number in range(self._count):
                waiting.append(self._asked(number))
                if len(waiting) >= WINDOWS_IN_FLIGHT:
                    yield self._answered(waiting, number, progress)
            while waiting:
                yield self._answered(waiting, self._count, progress)
        finally:
            for _, futures, _ in waiting:
                for future in futures:
                    if future is not None:
                        future.cancel()

    def _asked(self, number: int) -> tuple[Audio, list[Future[Audio] | None], list[float]]:
        half = self._taps.size // 2
        start = number * self._advance
        around = padded_part(self._source, start - half, self._frames + 2 * half)
        low = signal.oaconvolve(around, self._taps[None, :], mode="valid", axes=1).astype(np.float32)
        futures: list[Future[Audio] | None] = []
        levels = []
        for channel, audio in enumerate(low):
            peak = float(np.max(np.abs(audio)))
            levels.append(peak / _LEVEL)
            if peak < _SILENT:
                futures.append(None)
                continue
            drawing = Drawing(
                _key(self._sampling.seed, number, channel, self._frames),
                self._cutoff_hertz - SEAM_HERTZ,
                self._sampling.diffusion_steps,
                self._sampling.guidance_scale,
            )
            try:
                futures.append(self._draw((audio / levels[-1]).astype(np.float32), drawing))
            except Exception as error:
                raise _Failed(error) from error
        return around[:, half : half + self._frames], futures, levels

    def _answered(
        self, waiting: deque[tuple[Audio, list[Future[Audio] | None], list[float]]], number: int, progress: Progress
    ) -> tuple[Audio, Audio]:
        original, futures, levels = waiting[0]
        drawn = np.zeros_like(original)
        for channel, (future, level) in enumerate(zip(futures, levels, strict=True)):
            if future is None:
                continue
            answer = _result(future, lambda: progress(max(0, number - len(waiting)) / self._count))
            if answer.shape != original[channel].shape or not np.all(np.isfinite(answer)):
                text = f"the network gave {answer.shape} of audio that does not fit, or is not finite"
                raise _Failed(ValueError(text))
            drawn[channel] = level * answer
        waiting.popleft()
        return in_step(drawn, original, self._cutoff_hertz), original


def _result(future: Future[Audio], alive: Callable[[], None]) -> Audio:
    """What a future gives; meanwhile whoever waits is asked whether to go on."""
    waited = 0.0
    while not future.done():
        alive()
        wait([future], timeout=_POLL_SECONDS)
        waited += _POLL_SECONDS
        if waited > HUNG_SECONDS:
            raise _Failed(TimeoutError(f"no answer within {HUNG_SECONDS:.0f} s"))
    try:
        return future.result()
    except Exception as error:
        raise _Failed(error) from error


def _spectra(window: Audio) -> Spectra:
    """(steps, channels, bins) of a window, silence before it."""
    return StreamingStft(window.shape[0], WINDOW_FRAMES, HOP_FRAMES).process(window)


def _key(seed: int, number: int, channel: int, frames: int) -> int:
    """63 bits that differ for every window of every seed."""
    words = f"{seed}/{frames}/{number}/{channel}".encode()
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big") >> 1
