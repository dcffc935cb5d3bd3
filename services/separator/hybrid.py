"""The HTDemucs family as separation engines: windows of a song to a model, its answers to stems.

    blocks ─► 44.1 kHz stereo ─► windows ─► model(s) ─► joined ─► sources to stems ─► the song's rate and channels

Who computes the model is of no concern here: inference is a callable that returns futures. A few windows are on their
way at any time, answers are joined in their order, and memory is that of those windows, however long the song is.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import EngineInfo
from outboard.audio.resample import StreamResampler
from outboard.audio.stems import INSTRUMENTAL, VOCALS
from outboard.errors import DeadlineExceeded
from services.separator.engines import Audio, SeparationSettings, SongFacts, general_stem, stems_of
from services.separator.windows import Cutter, Joiner, Normalisation, Window

SAMPLE_RATE_HERTZ = 44_100
SEGMENT_FRAMES = 343_980
OVERLAP = 0.25
LONGEST_SHIFT_FRAMES = SAMPLE_RATE_HERTZ // 2
_CHANNELS = 2
# How often a caller who waits for the model can look for a cancel.
_WAIT_SECONDS = 0.2
HUNG_SECONDS = 3600.0
"""Time without an answer to a song's next window after which the model is taken to hang. It is long: windows wait
behind those of other songs, and no queue may fail a song."""

Infer = Callable[[str, Mapping[str, NDArray[Any]]], Future[Mapping[str, NDArray[Any]]]]
"""A model's name and its inputs by name to a future of its outputs by name (``outboard.models.inference``)."""


@dataclass(frozen=True)
class Network:
    """One model behind the door: its name there and the sources that it gives, in order."""

    name: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Deployment:
    """Where networks are computed.

    Attributes:
        infer: computes one batch.
        backend, device, precision: for reports; an empty precision is the engine's own.
        windows_in_flight: how many windows of one song are on their way at once.
        segment_frames: of the models' windows.
    """

    infer: Infer
    backend: str
    device: str
    precision: str
    windows_in_flight: int = 2
    segment_frames: int = SEGMENT_FRAMES


class HybridEngine:
    """One model of the family, or a bag of networks of which each gives some of the sources.

    Args:
        info: name, version, description, stems; what is not known before it is looked at comes from ``look``.
        networks: all of the bag.
        look: fills availability, digest, backend into the info; cheap, since it is asked often.
        deploy: the deployment for a speed ("exact", "balanced", "fast").
    """

    def __init__(
        self,
        info: EngineInfo,
        networks: tuple[Network, ...],
        look: Callable[[EngineInfo], EngineInfo],
        deploy: Callable[[str], Deployment],
    ) -> None:
        self._info = info
        self._networks = networks
        self._look = look
        self._deploy = deploy

    @property
    def info(self) -> EngineInfo:
        """What it is, and whether it can be had at this moment."""
        return self._look(self._info)

    def open(
        self, sample_rate_hertz: int, channels: int, settings: SeparationSettings, facts: SongFacts
    ) -> HybridSeparation:
        """Starts a song; the first window loads the model."""
        stems = stems_of(settings)
        networks = _needed(self._networks, stems, settings)
        return HybridSeparation(self.info, networks, stems, self._deploy(settings.speed), _Form(
            sample_rate_hertz, channels), settings, facts)  # fmt: skip


@dataclass(frozen=True)
class _Form:
    sample_rate_hertz: int
    channels: int


def _needed(networks: tuple[Network, ...], stems: tuple[str, ...], settings: SeparationSettings) -> tuple[Network, ...]:
    """Which networks of a bag the stems take.

    Folded, the general stem is what the others leave of the song. For two stems that saves three networks of four; for
    more it saves one, at the price of not knowing how well the stems sum by themselves, which only "fast" pays.
    """
    if settings.residual == "raw" or len(networks) == 1 or (len(stems) > 2 and settings.speed != "fast"):
        return networks
    general = general_stem(stems)
    return tuple(
        network for network in networks if any(source in stems and source != general for source in network.sources)
    )


class HybridSeparation:
    """One song."""

    def __init__(
        self,
        info: EngineInfo,
        networks: tuple[Network, ...],
        stems: tuple[str, ...],
        deployment: Deployment,
        form: _Form,
        settings: SeparationSettings,
        facts: SongFacts,
    ) -> None:
        self.info = replace(
            info,
            backend=deployment.backend,
            device=deployment.device,
            precision=deployment.precision or info.precision,
        )
        self._networks = networks
        self._sources = tuple(source for network in networks for source in network.sources)
        self._parts = _parts(self._sources, stems)
        self._deployment = deployment
        self._form = form
        self._lanes = self._shifted_lanes(settings, facts)

    def confidence(self) -> float | None:
        """The networks say nothing of their own; how their stems sum to the song is measured by the caller."""
        return None

    def stream(self, blocks: Iterable[Audio]) -> Generator[dict[str, Audio], None, None]:
        """Stems in lockstep, with blocks of no frames while the model computes."""
        into = StreamResampler(self._form.sample_rate_hertz, SAMPLE_RATE_HERTZ, self._form.channels)
        out = _Output(self._form, tuple(self._parts))
        try:
            for block in blocks:
                out.expect(block.shape[1])
                yield from self._advance(into.process(block), out)
            empty = np.zeros((self._form.channels, 0), np.float32)
            yield from self._advance(into.process(empty, last=True), out, last=True)
            for lane in self._lanes:
                lane.finish()
            yield from self._finished(out, last=True)
        finally:
            for lane in self._lanes:
                lane.cancel()

    def _advance(self, song: Audio, out: _Output, *, last: bool = False) -> Iterator[dict[str, Audio]]:
        stereo = np.repeat(song, _CHANNELS, axis=0) if song.shape[0] == 1 else song
        for lane in self._lanes:
            for window in lane.cutter.put(stereo, last):
                while lane.is_full:
                    yield from self._await(lane, out)
                lane.send(window)
        while last and any(lane.in_flight for lane in self._lanes):
            yield from self._await(next(lane for lane in self._lanes if lane.in_flight), out)

    def _await(self, lane: _Lane, out: _Output) -> Iterator[dict[str, Audio]]:
        """Waits for a lane's oldest window, joins it, and gives what is finished in all lanes."""
        began = time.monotonic()
        while not lane.is_ready(_WAIT_SECONDS):
            if time.monotonic() - began > HUNG_SECONDS:
                text = f"the model gave no answer to a window within {HUNG_SECONDS:g} s"
                raise DeadlineExceeded(text, reason="MODEL_SERVER_TIMEOUT")
            yield out.nothing()
        lane.receive()
        yield from self._finished(out)

    def _finished(self, out: _Output, *, last: bool = False) -> Iterator[dict[str, Audio]]:
        frames = min(lane.finished_frames for lane in self._lanes)
        if not frames and not last:
            return
        total = self._lanes[0].take(frames)
        for lane in self._lanes[1:]:
            total = total + lane.take(frames)
        sources = total / np.float32(len(self._lanes))
        yield out.process(_stems(sources, self._sources, self._parts), last)

    def _shifted_lanes(self, settings: SeparationSettings, facts: SongFacts) -> list[_Lane]:
        overlap = OVERLAP if settings.overlap is None else settings.overlap
        generator = np.random.default_rng(settings.seed or 0)
        leads = [int(lead) for lead in generator.integers(0, LONGEST_SHIFT_FRAMES + 1, settings.shifts or 0)]
        known = None
        if facts.mean is not None and facts.deviation is not None:
            known = Normalisation(facts.mean, facts.deviation)
        return [_Lane(self._networks, self._deployment, overlap, lead, known) for lead in leads or [0]]


class _Lane:
    """One pass over the song: windows that are on their way to the model, and the answers that came back."""

    def __init__(
        self,
        networks: tuple[Network, ...],
        deployment: Deployment,
        overlap: float,
        lead: int,
        known: Normalisation | None,
    ) -> None:
        segment = deployment.segment_frames
        self._networks = networks
        self._deployment = deployment
        self.cutter = Cutter(_CHANNELS, segment, overlap, lead, known)
        sources = sum(len(network.sources) for network in networks)
        self._joiner = Joiner((sources, _CHANNELS), segment, overlap, lead)
        self.in_flight: deque[tuple[Window, list[Future[Mapping[str, NDArray[Any]]]]]] = deque()
        self._done: list[Audio] = [np.zeros((sources, _CHANNELS, 0), np.float32)]

    @property
    def is_full(self) -> bool:
        return len(self.in_flight) >= self._deployment.windows_in_flight

    @property
    def finished_frames(self) -> int:
        return sum(piece.shape[-1] for piece in self._done)

    def send(self, window: Window) -> None:
        mix = np.ascontiguousarray(window.mix[np.newaxis])
        futures = [self._deployment.infer(network.name, {"mix": mix}) for network in self._networks]
        self.in_flight.append((window, futures))

    def is_ready(self, seconds: float) -> bool:
        """Whether the oldest window is done, or a network of it has failed, after at most so long."""
        done, waiting = wait(self.in_flight[0][1], timeout=seconds, return_when=FIRST_EXCEPTION)
        return not waiting or any(_has_failed(future) for future in done)

    def receive(self) -> None:
        """Joins the oldest window's answers; raises what the model raised."""
        window, futures = self.in_flight.popleft()
        try:
            # One that has failed first: the others of a bag may still be waiting for their turn.
            futures.sort(key=_has_failed, reverse=True)
            answers = [future.result()["stems"][0] for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        self._done.append(self._joiner.add(window, np.concatenate(answers)))

    def finish(self) -> None:
        self._done.append(self._joiner.finish())

    def take(self, frames: int) -> Audio:
        joined = np.concatenate(self._done, axis=-1)
        self._done = [joined[..., frames:].copy()]
        return joined[..., :frames]

    def cancel(self) -> None:
        """Takes what has not begun out of the model's queue."""
        for _, futures in self.in_flight:
            for future in futures:
                future.cancel()


def _has_failed(future: Future[Any]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


class _Output:
    """Stems at the song's rate, with its channels and exactly its frames."""

    def __init__(self, form: _Form, stems: tuple[str, ...]) -> None:
        self._stems = stems
        self._form = form
        self._resampler = StreamResampler(SAMPLE_RATE_HERTZ, form.sample_rate_hertz, len(stems) * form.channels)
        self._expected = 0
        self._given = 0

    def expect(self, frames: int) -> None:
        self._expected += frames

    def nothing(self) -> dict[str, Audio]:
        return {name: np.zeros((self._form.channels, 0), np.float32) for name in self._stems}

    def process(self, stems: Audio, last: bool) -> dict[str, Audio]:
        """Takes [stems, 2, frames] at the model's rate."""
        if self._form.channels == 1:
            stems = stems.mean(axis=1, keepdims=True, dtype=np.float32)
        flat = self._resampler.process(stems.reshape(stems.shape[0] * stems.shape[1], stems.shape[2]), last)
        # There and back, rounding can make a frame too many or too few of the last ones.
        flat = flat[:, : self._expected - self._given]
        if last:
            flat = np.pad(flat, ((0, 0), (0, self._expected - self._given - flat.shape[1])))
        self._given += flat.shape[1]
        split = flat.reshape(len(self._stems), self._form.channels, flat.shape[1])
        return {name: np.ascontiguousarray(split[i]) for i, name in enumerate(self._stems)}


def _parts(sources: tuple[str, ...], stems: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Which sources each stem is the sum of; a stem that the sources do not make is left out."""
    if INSTRUMENTAL in stems:
        rest = tuple(source for source in sources if source != VOCALS)
        return {VOCALS: (VOCALS,), INSTRUMENTAL: rest} if rest else {VOCALS: (VOCALS,)}
    parts: dict[str, tuple[str, ...]] = {name: (name,) for name in stems if name in sources}
    if "other" in parts:
        parts["other"] += tuple(source for source in sources if source not in stems)
    return parts


def _stems(audio: Audio, sources: tuple[str, ...], parts: Mapping[str, tuple[str, ...]]) -> Audio:
    """[sources, 2, frames] to [stems, 2, frames]."""
    summed = [np.sum(audio[[sources.index(source) for source in wanted]], axis=0) for wanted in parts.values()]
    return np.stack(summed).astype(np.float32, copy=False)
