"""Separation of a song into stems that sum to it, while the song is still arriving.

The pipeline: check the settings, cut the stream into fixed blocks, let an engine split them, fold what the stems
lack of the song into ``other`` (or ``instrumental``), and keep the figures of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from outboard.audio.overlap_add import fixed_blocks
from outboard.audio.reporting import EngineInfo, Warning
from outboard.errors import FailedPrecondition, InvalidInput
from outboard.presets.separation import count_fault, separation_faults
from services.separator.engines import (
    Audio,
    Engine,
    PassThrough,
    SeparationReport,
    SeparationSettings,
    SongFacts,
    general_stem,
    stems_of,
)
from services.separator.spectral.engine import SpectralEngine

# Frames between two looks at cancellation, and the size in which the song enters the engine.
BLOCK_FRAMES = 65_536
# Below this the engine has no context to judge by.
SHORT_SECONDS = 2.0
# Samples at or beyond full scale, in a row and channel, that count as one clipped place.
CLIPPED_RUN = 3
LOW_CONFIDENCE = 0.25

# Those that need nothing, the preferred first.
ENGINES: Mapping[str, Engine] = {engine.info.name: engine for engine in (SpectralEngine(), PassThrough())}


def list_engines(engines: Mapping[str, Engine] = ENGINES) -> tuple[EngineInfo, ...]:
    """All engines, the preferred first."""
    return tuple(engine.info for engine in engines.values())


def choose_engine(settings: SeparationSettings, engines: Mapping[str, Engine] = ENGINES) -> Engine:
    """The engine that settings name, or the first available that offers the number of stems.

    Raises:
        InvalidInput: ENGINE_UNKNOWN, the engine does not offer that many stems, or a setting is out of range.
        FailedPrecondition: the engine, or the only one that offers that many stems, cannot run here;
            MODEL_WEIGHTS_MISSING and its kin where that is why.
    """
    _check(settings)
    count = len(stems_of(settings))
    if not settings.engine:
        for engine in engines.values():
            if engine.info.available and count in engine.info.stem_counts:
                return engine
        for engine in engines.values():
            if count in engine.info.stem_counts:
                raise _unavailable(engine.info)
        raise InvalidInput(f"no engine here separates into {count} stems", field="settings.stem_count")
    if settings.engine not in engines:
        raise InvalidInput(
            f"engine {settings.engine!r} is unknown; known are {', '.join(engines)}",
            reason="ENGINE_UNKNOWN",
            field="settings.engine",
        )
    engine = engines[settings.engine]
    if fault := count_fault(settings.engine, count, engine.info.stem_counts):
        raise InvalidInput(fault, field="settings.stem_count")
    if not engine.info.available:
        raise _unavailable(engine.info)
    return engine


def _unavailable(info: EngineInfo) -> FailedPrecondition:
    return FailedPrecondition(
        f"the engine {info.name!r} is not available: {info.unavailable_reason}",
        reason=info.unavailable_error or "ENGINE_UNAVAILABLE",
    )


def separate(
    blocks: Iterable[Audio],
    sample_rate_hertz: int,
    settings: SeparationSettings,
    facts: SongFacts | None = None,
    progress: Callable[[float], None] | None = None,
    *,
    frames: int | None = None,
    engines: Mapping[str, Engine] = ENGINES,
) -> Generator[dict[str, Audio], None, SeparationReport]:
    """Splits a song into stems.

    Args:
        blocks: float32 of shape (channels, any number of frames), in order; 1 or 2 channels. The caller refuses NaN
            and infinity.
        sample_rate_hertz: 8000 to 192000.
        settings: how.
        facts: of the whole song, where they are known.
        progress: called with the done fraction at least every 65536 frames of work; may raise to cancel.
            Without ``frames`` the fraction stays 0 until the end.
        frames: the song's length, where it is known.
        engines: to choose from.

    Yields:
        All stems by name in the order of the report, equally long; in all exactly as many frames as came in. Their
        sum is the song to float32 rounding (unless ``residual`` is "raw").

    Returns:
        The report.

    Raises:
        InvalidInput: as in :func:`choose_engine`.
    """
    engine = choose_engine(settings, engines)
    stems = stems_of(settings)
    song = _Song(blocks, progress or (lambda fraction: None), frames)
    figures = _Figures(stems)
    if not song.channels:
        song.finish()
        return figures.report(engine.info, sample_rate_hertz, None)
    separation = engine.open(sample_rate_hertz, song.channels, settings, facts or SongFacts())
    with closing(separation.stream(iter(song))) as stream:
        for parts in stream:
            mixture = song.take(next(iter(parts.values())).shape[1])
            if mixture.shape[1]:
                yield figures.add(mixture, parts, _folded(parts, mixture, stems, settings.residual))
    song.finish()
    return figures.report(separation.info, sample_rate_hertz, separation.confidence())


def _check(settings: SeparationSettings) -> None:
    said = {key: value for key, value in asdict(settings).items() if value is not None}
    if faults := separation_faults(said, "settings"):
        raise InvalidInput(faults[0].description, violations=faults)


def _folded(parts: dict[str, Audio], mixture: Audio, stems: tuple[str, ...], residual: str) -> dict[str, Audio]:
    """The stems in the report's order; folded, the general stem is what the others leave of the song, so the sum is
    exact.
    """
    general = general_stem(stems)
    if residual == "raw" and general in parts:
        return {name: parts[name] for name in stems}
    rest = mixture.astype(np.float64)
    for name in stems:
        if name != general:
            rest -= parts[name]
    return {name: rest.astype(np.float32) if name == general else parts[name] for name in stems}


class _Song:
    """The song in fixed blocks, of which those that the stems have not reached yet are remembered."""

    def __init__(self, blocks: Iterable[Audio], progress: Callable[[float], None], frames: int | None) -> None:
        self._blocks = fixed_blocks(blocks, BLOCK_FRAMES)
        self._progress = progress
        self._frames = frames
        self._waiting: list[Audio] = []
        self._taken = 0
        self._first = next(self._blocks, None)
        self.channels = 0 if self._first is None else self._first.shape[0]

    def __iter__(self) -> Iterator[Audio]:
        block = self._first
        while block is not None:
            self._progress(min(self._taken / self._frames, 1.0) if self._frames else 0.0)
            self._waiting.append(block)
            yield block
            block = next(self._blocks, None)

    def take(self, frames: int) -> Audio:
        """The next ``frames`` frames of the song, as the stems come out."""
        pieces: list[Audio] = [np.zeros((self.channels, 0), np.float32)]
        needed = frames
        while needed:
            head = self._waiting[0]
            pieces.append(head[:, :needed])
            needed -= pieces[-1].shape[1]
            if pieces[-1].shape[1] == head.shape[1]:
                self._waiting.pop(0)
            else:
                self._waiting[0] = head[:, pieces[-1].shape[1] :]
        self._taken += frames
        # While the engine empties its look-ahead no block is asked for any more, but work goes on.
        self._progress(min(self._taken / self._frames, 1.0) if self._frames else 0.0)
        return np.concatenate(pieces, axis=1)

    def finish(self) -> None:
        self._progress(1.0)


class _Figures:
    """Sums for the report."""

    def __init__(self, stems: tuple[str, ...]) -> None:
        self._stems = stems
        self._energy = dict.fromkeys(stems, 0.0)
        self._song_energy = 0.0
        self._residual_energy = 0.0
        self._frames = 0
        self._clipped = 0
        self._was_full: NDArray[np.bool_] = np.zeros((1, CLIPPED_RUN), np.bool_)

    def add(self, mixture: Audio, raw: dict[str, Audio], parts: dict[str, Audio]) -> dict[str, Audio]:
        """Counts a block and hands its stems on. ``raw`` is what the engine gave, ``parts`` what the caller gets."""
        self._frames += mixture.shape[1]
        self._song_energy += _energy(mixture)
        for name, part in parts.items():
            self._energy[name] += _energy(part)
        if len(raw) == len(self._stems):
            self._residual_energy += _energy(mixture - np.sum(list(raw.values()), axis=0, dtype=np.float64))
        self._clipped += self._clipped_places(mixture)
        return parts

    def _clipped_places(self, mixture: Audio) -> int:
        """How many runs at full scale become long enough to count in this block; some began in the one before."""
        before = np.broadcast_to(self._was_full, (mixture.shape[0], CLIPPED_RUN))
        is_full = np.concatenate([before, np.abs(mixture) >= 1.0], axis=1)
        self._was_full = is_full[:, -CLIPPED_RUN:].copy()
        windows = is_full.shape[1] - CLIPPED_RUN + 1
        runs = np.logical_and.reduce([is_full[:, i : windows + i] for i in range(CLIPPED_RUN)])
        return int(np.count_nonzero(runs[:, 1:] & ~runs[:, :-1]))

    def report(self, engine: EngineInfo, sample_rate_hertz: int, confidence: float | None) -> SeparationReport:
        levels = {
            name: 10.0 * float(np.log10(energy / self._song_energy))
            for name, energy in self._energy.items()
            if energy > 0.0 and self._song_energy > 0.0
        }
        residual = self._residual_energy / self._song_energy if self._song_energy > 0.0 else 0.0
        if confidence is None and residual > 0.0:
            # An engine that knows nothing of its own doubts: stems that are right sum to the song.
            confidence = max(0.0, 1.0 - float(np.sqrt(residual)))
        return SeparationReport(
            engine=engine,
            stems=self._stems,
            frames=self._frames,
            residual_db=10.0 * float(np.log10(residual)) if residual > 0.0 else None,
            confidence=confidence,
            stem_levels_db=levels,
            warnings=self._warnings(sample_rate_hertz, confidence),
        )

    def _warnings(self, sample_rate_hertz: int, confidence: float | None) -> tuple[Warning, ...]:
        found: list[Warning] = []
        if self._frames < SHORT_SECONDS * sample_rate_hertz:
            seconds = self._frames / sample_rate_hertz
            found.append(Warning("SHORT_INPUT", f"{seconds:.2f} s of audio give too little context to separate well"))
        if self._clipped:
            found.append(
                Warning("CLIPPING", f"the song is clipped in {self._clipped} places, which smears over all stems")
            )
        if confidence is not None and confidence < LOW_CONFIDENCE:
            found.append(
                Warning("LOW_CONFIDENCE", f"the stems could hardly be told apart (confidence {confidence:.2f})")
            )
        return tuple(found)


def _energy(block: NDArray[np.floating]) -> float:
    return float(np.sum(np.square(block, dtype=np.float64)))
