"""The streaming engine: spectra in, cues around each batch of steps, soft masks, stems out.

A batch of 64 steps (1.4 s at 48 kHz) is masked once the five batches after it have come (6.8 s), with the four
before it still at hand. Nothing older is kept, so memory does not depend on the song's length, and all work happens
on whole batches, so the result does not depend on how the stream was cut.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

import numpy as np

from outboard.audio.overlap_add import OverlapAdd, Spectra, StreamingStft, fixed_blocks
from outboard.audio.reporting import EngineInfo
from outboard.audio.stems import FOUR_STEMS, VOCALS
from services.separator.engines import Audio, Separation, SeparationSettings, SongFacts
from services.separator.spectral.cues import Batch, Look, look_near, measure
from services.separator.spectral.fusion import Fusion
from services.separator.spectral.grid import RESOLUTION_RATIO, Grid
from services.separator.spectral.medians import Plane

VERSION = 2
# Batches before and after the masked one that evidence may come from.
CONTEXT_BATCHES = 4

Item = TypeVar("Item")


class SpectralEngine:
    """Weights-free separation: always available."""

    info = EngineInfo(
        "spectral",
        VERSION,
        description="Weights-free: spectral cues fused into soft masks. Fast, and far from a trained model.",
        stem_counts=(2, 4),
    )

    def open(self, sample_rate_hertz: int, channels: int, settings: SeparationSettings, facts: SongFacts) -> Separation:
        return SpectralSeparation(sample_rate_hertz, channels, two_stems=settings.stem_count == 2)


class SpectralSeparation:
    """One song on its way through the engine."""

    info = SpectralEngine.info

    def __init__(self, sample_rate_hertz: int, channels: int, *, two_stems: bool) -> None:
        self._grid = Grid(sample_rate_hertz)
        self._two_stems = two_stems
        window, hop = self._grid.window_frames, self._grid.hop_frames
        self._base = StreamingStft(channels, window, hop)
        self._long = StreamingStft(channels, window * RESOLUTION_RATIO, hop * RESOLUTION_RATIO)
        self._short = StreamingStft(channels, window // RESOLUTION_RATIO, hop // RESOLUTION_RATIO)
        self._fusion = Fusion(self._grid)
        self._synthesis = OverlapAdd((len(self._outputs), channels), window, hop)
        self._certainty = _Certainty()
        self._channels = channels
        self._song_frames = 0

    @property
    def _outputs(self) -> tuple[str, ...]:
        """The stems that are synthesised; what they leave of the song is the caller's residual."""
        return (VOCALS,) if self._two_stems else FOUR_STEMS[:-1]

    def stream(self, blocks: Iterable[Audio]) -> Generator[dict[str, Audio], None, None]:
        """As :meth:`services.separator.engines.Separation.stream`."""
        produced = 0
        for batch, cues in self.evidence(blocks):
            masks = self._fusion.masks(cues)
            self._certainty.add(batch.power, masks)
            wanted = masks[: len(self._outputs)].transpose(1, 0, 2)
            stems = self._synthesis.process(wanted[:, :, None] * batch.spectra[:, None])
            # Only at the end can there be more than the song: silence that flushed the last windows out.
            stems = stems[..., : self._song_frames - produced]
            produced += stems.shape[-1]
            if stems.shape[-1]:
                yield dict(zip(self._outputs, stems, strict=True))

    def evidence(self, blocks: Iterable[Audio]) -> Iterator[tuple[Batch, Plane]]:
        """Each batch of the song with its cues, (cues, steps, bins): what masks are made of, and fitted to."""
        for context, index in with_neighbours(self._looks(blocks), CONTEXT_BATCHES):
            yield context[index].batch, measure(context, index, self._grid)

    def confidence(self) -> float | None:
        return self._certainty.value

    def _arriving(self, blocks: Iterable[Audio]) -> Iterator[Batch]:
        """Spectra of whole batches; silence follows the song until its last sample is out of the synthesis."""
        for block in fixed_blocks(self._counted(blocks), self._grid.batch_frames):
            missing = self._grid.batch_frames - block.shape[1]
            yield self._batch(np.pad(block, ((0, 0), (0, missing))))
        ended_with = self._song_frames % self._grid.batch_frames
        if not 0 < ended_with <= self._grid.batch_frames - self._synthesis.delay_frames:
            yield self._batch(np.zeros((self._channels, self._grid.batch_frames), np.float32))

    def _looks(self, blocks: Iterable[Audio]) -> Iterator[Look]:
        for batches, index in with_neighbours(self._arriving(blocks), 1):
            yield look_near(batches, index, self._grid)

    def _counted(self, blocks: Iterable[Audio]) -> Iterator[Audio]:
        for block in blocks:
            self._song_frames += block.shape[1]
            yield block

    def _batch(self, samples: Audio) -> Batch:
        spectra = self._base.process(samples)
        return Batch(
            spectra=spectra,
            power=_power(spectra),
            long_power=_power(self._long.process(samples)),
            short_power=_power(self._short.process(samples)),
        )


class _Certainty:
    """How clearly the masks decide: the share of the song's energy that the leading stem takes, 0 where all stems
    share alike, 1 where every bin belongs to one stem."""

    def __init__(self) -> None:
        self._led = 0.0
        self._total = 0.0
        self._stems = 0

    def add(self, power: Plane, masks: Plane) -> None:
        self._stems = masks.shape[0]
        self._led += float(np.sum(power * np.max(masks, axis=0), dtype=np.float64))
        self._total += float(np.sum(power, dtype=np.float64))

    @property
    def value(self) -> float | None:
        if not self._total > 0.0:
            return None
        return (self._led / self._total - 1.0 / self._stems) / (1.0 - 1.0 / self._stems)


def with_neighbours(items: Iterable[Item], reach: int) -> Iterator[tuple[list[Item], int]]:
    """Each item with up to ``reach`` items before and after it, and its own place among them; at the ends there are
    fewer.
    """
    held: list[Item] = []
    place = 0
    for item in items:
        held.append(item)
        if len(held) - 1 - place == reach:
            yield list(held), place
            if place == reach:
                held.pop(0)
            else:
                place += 1
    while place < len(held):
        yield list(held), place
        if place == reach:
            held.pop(0)
        else:
            place += 1


def _power(spectra: Spectra) -> Plane:
    """Power summed over channels, (steps, bins)."""
    return np.asarray(np.sum(spectra.real**2 + spectra.imag**2, axis=1), dtype=np.float32)
