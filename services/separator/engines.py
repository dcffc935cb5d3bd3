"""What a separation engine is, the settings and the report of separation, and the engine that separates nothing."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import EngineInfo, Warning
from outboard.audio.stems import DEFAULT_STEM_COUNT, INSTRUMENTAL, STEMS_BY_COUNT

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class SeparationSettings:
    """How to separate; fields as in the message of the same name, ``None`` where the engine decides.

    Attributes:
        engine: name; empty for the best available.
        stem_count: 2 (vocals, instrumental), 4 (vocals, drums, bass, other), 5 (plus piano) or 6 (plus guitar);
            unset: `outboard.audio.stems.DEFAULT_STEM_COUNT`.
        overlap: of neighbouring model windows, 0 to 0.75; engines without model windows ignore it.
        shifts: random shifts averaged, 0 to 10; engines without model windows ignore it.
        seed: of everything random.
        residual: "fold" adds what the stems lack of the song to the last general stem; "raw" leaves the engine's
            output as it is.
        speed: "exact", "balanced" or "fast" arithmetic, for engines that know the difference.
    """

    engine: str = ""
    stem_count: int | None = None
    overlap: float | None = None
    shifts: int | None = None
    seed: int | None = None
    residual: str = "fold"
    speed: str = "balanced"


@dataclass(frozen=True)
class SongFacts:
    """What is known of the whole song before its first sample; ``None`` where it is not.

    Attributes:
        mean, deviation: of the mono sum, as a fraction of full scale.
        integrated_lufs: programme loudness.
        bandwidth_hertz: where the spectrum ends.
    """

    mean: float | None = None
    deviation: float | None = None
    integrated_lufs: float | None = None
    bandwidth_hertz: float | None = None


@dataclass(frozen=True)
class SeparationReport:
    """What was done; fields as in the message of the same name.

    Attributes:
        engine: the one that ran.
        stems: names, in order.
        frames: of every stem.
        residual_db: the engine's residual relative to the song before folding; unset for silence or where it sums
            exactly.
        confidence: 0 to 1. Of masks: the mean share of the leading one over the song's energy, rescaled so that equal
            shares give 0. Of models: 1 less the amplitude of what their stems lack of the song, relative to it. Unset
            where nothing is known.
        stem_levels_db: power of each stem relative to the song's; stems that are silent are left out.
        warnings: what a person should know.
    """

    engine: EngineInfo
    stems: tuple[str, ...]
    frames: int
    residual_db: float | None = None
    confidence: float | None = None
    stem_levels_db: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[Warning, ...] = ()


class Separation(Protocol):
    """One song on its way through an engine. ``info`` is what runs: the engine, as this song's settings have it."""

    @property
    def info(self) -> EngineInfo: ...

    def stream(self, blocks: Iterable[Audio]) -> Generator[dict[str, Audio], None, None]:
        """Stems in lockstep: every yielded dict has all stems, equally long; in all as many frames as the song.

        The general stem (other, instrumental) may be left out: it is then what the others leave of the song. Dicts of
        no frames may come while the engine waits for something, so that its caller can look whether to go on.
        """
        ...

    def confidence(self) -> float | None:
        """How sure the engine was so far, 0 to 1."""
        ...


class Engine(Protocol):
    """One way of separating."""

    @property
    def info(self) -> EngineInfo: ...

    def open(self, sample_rate_hertz: int, channels: int, settings: SeparationSettings, facts: SongFacts) -> Separation:
        """Starts a song."""
        ...


class PassThrough:
    """Separates nothing: the whole song is ``other`` (or ``instrumental``). Shows what everything around an engine
    costs.
    """

    info = EngineInfo(
        "passthrough",
        1,
        description="Separates nothing: the whole song becomes other (or instrumental).",
        stem_counts=(2, 4),
    )

    def open(self, sample_rate_hertz: int, channels: int, settings: SeparationSettings, facts: SongFacts) -> Separation:
        return _PassThroughSeparation(stems_of(settings))


class _PassThroughSeparation:
    info = PassThrough.info

    def __init__(self, stems: tuple[str, ...]) -> None:
        self._stems = stems

    def stream(self, blocks: Iterable[Audio]) -> Generator[dict[str, Audio], None, None]:
        for block in blocks:
            stems = {name: np.zeros_like(block) for name in self._stems}
            stems[general_stem(self._stems)] = block.copy()
            yield stems

    def confidence(self) -> float | None:
        return None


def stems_of(settings: SeparationSettings) -> tuple[str, ...]:
    """The names of the stems that settings ask for, in order."""
    return STEMS_BY_COUNT[settings.stem_count or DEFAULT_STEM_COUNT]


def general_stem(stems: tuple[str, ...]) -> str:
    """The stem that takes what no other stem claims."""
    return INSTRUMENTAL if INSTRUMENTAL in stems else "other"
