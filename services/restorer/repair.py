"""The engine `repair`: what to treat, and the treated stem cell by cell.

A treatment acts only on what the examination shows, and what it does not act on stays bit for bit as it was.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio import declip
from outboard.audio.reporting import Progress
from outboard.audio.resonance import Tamer
from services.restorer.cells import padded_part
from services.restorer.diagnosis import Examination, Examiner, LevelMeter, cell_frames
from services.restorer.settings import REPAIR, Diagnosis, RestorationAction

Audio = NDArray[np.float32]

FEWEST_CLIPPED_SAMPLES = 12  # four flat peaks: fewer are chance
SMALLEST_DC = 1e-3  # of full scale, -60 dBFS
SHORTEST_FOR_DC_SECONDS = 1.0  # in less, a mean is a low note
SLIGHT_SHIMMER_INDEX = 0.03  # up to here nothing is done ...
CLEAR_SHIMMER_INDEX = 0.1  # ... and from here on all of it; released recordings lie at 0


@dataclass(frozen=True)
class Treatment:
    """How much of each treatment is used, 0 to 1."""

    declip: float
    dc: float
    resonance: float

    @property
    def is_none(self) -> bool:
        return not (self.declip or self.dc or self.resonance)


def decide(examined: Examination, seconds: float, amount: float | None) -> tuple[Treatment, dict[str, str]]:
    """How much of each treatment the diagnosis asks for (scaled by a given amount), and why, in a sentence each."""
    found = examined.diagnosis
    most = 1.0 if amount is None else amount
    reasons = {}
    is_clipped = found.clipped_samples >= FEWEST_CLIPPED_SAMPLES
    reasons["declip"] = f"{found.clipped_samples} samples in flat peaks" if is_clipped else "no clipped peaks"
    largest_dc = max((abs(offset) for offset in found.dc_offset), default=0.0)
    has_dc = largest_dc >= SMALLEST_DC and seconds >= SHORTEST_FOR_DC_SECONDS
    reasons["dc"] = (
        f"a constant offset of {largest_dc:.4f}" if has_dc else f"an offset of {largest_dc:.1e} does no harm"
    )
    if largest_dc >= SMALLEST_DC and not has_dc:
        reasons["dc"] = "too short to tell an offset from a low note"
    index = found.shimmer_index
    shimmer = 0.0 if index is None else (index - SLIGHT_SHIMMER_INDEX) / (CLEAR_SHIMMER_INDEX - SLIGHT_SHIMMER_INDEX)
    shimmer = float(np.clip(shimmer, 0.0, 1.0))
    reasons["resonance"] = (
        "nothing sounds between 8 and 12 kHz" if index is None
        else f"lasting narrow peaks, shimmer index {index:.2f}" if shimmer
        else f"shimmer index {index:.2f} is as clean recordings have it"
    )  # fmt: skip
    if amount == 0:
        reasons = dict.fromkeys(reasons, "amount 0 was asked for")
    return Treatment(most * is_clipped, most * has_dc, most * shimmer), reasons


def repaired(
    array: Audio, sample_rate_hertz: int, examined: Examination, treatment: Treatment, progress: Progress
) -> Generator[Audio, None, Diagnosis]:
    """Yields the treated stem cell by cell; returns what is left of its faults."""
    source = _Source(array, examined, treatment)
    tamer = Tamer(examined.survey, sample_rate_hertz, treatment.resonance) if treatment.resonance else None
    examiner = Examiner(sample_rate_hertz, examined.levels, np.zeros(array.shape[0]), examined.power)
    meter = LevelMeter(array.shape[0])
    size = cell_frames(sample_rate_hertz)
    for number, start in enumerate(range(0, array.shape[1], size)):
        frames = min(size, array.shape[1] - start)
        cell = source.read(start, frames)
        correction = None
        if tamer is not None:
            around = tamer.lookaround_frames
            correction = tamer.correction(source.read(start - around, size + 2 * around), number)
        if correction is not None:
            cell = np.asarray(cell + correction[:, :frames], dtype=np.float32)
        if not treatment.is_none:
            examiner.add(cell)
            meter.add(cell)
        yield cell
        progress((start + frames) / array.shape[1])
    if treatment.is_none:
        return examined.diagnosis
    left = examiner.finish().diagnosis
    return replace(left, dc_offset=tuple(float(mean) for mean in meter.means))


@dataclass(frozen=True)
class _Source:
    """The stem with clipped peaks redrawn and DC removed, readable at any place (silence past its ends)."""

    array: Audio
    examined: Examination
    treatment: Treatment

    def read(self, start: int, frames: int) -> Audio:
        """float32 (channels, frames) from `start`, which may be negative."""
        part = self._declipped(start, frames) if self.treatment.declip else padded_part(self.array, start, frames)
        if not self.treatment.dc:
            return part
        offsets = np.array(self.examined.diagnosis.dc_offset)[:, None] * self.treatment.dc
        inside = np.arange(start, start + frames)
        is_stem = (inside >= 0) & (inside < self.array.shape[1])
        return np.where(is_stem, part - offsets, part).astype(np.float32)

    def _declipped(self, start: int, frames: int) -> Audio:
        """Whole cores around what is asked for, so that a sample is the same from wherever it is read."""
        first = start // declip.CORE_FRAMES * declip.CORE_FRAMES
        cores = -(-(start + frames - first) // declip.CORE_FRAMES)
        around = declip.LOOKAROUND_FRAMES
        raw = padded_part(self.array, first - around, cores * declip.CORE_FRAMES + 2 * around)
        drawn, changed = declip.declip(raw, self.examined.levels)
        middle = raw[:, around : raw.shape[1] - around]
        if changed and self.treatment.declip < 1:
            drawn = middle + np.float32(self.treatment.declip) * (drawn - middle)
        return np.ascontiguousarray(drawn[:, start - first : start - first + frames])


def actions(
    treatment: Treatment, reasons: dict[str, str], found: Diagnosis, left: Diagnosis
) -> tuple[RestorationAction, ...]:
    """One action per treatment, with the measure that decided it, before and after."""

    def largest(offsets: tuple[float, ...]) -> float | None:
        return max((abs(offset) for offset in offsets), default=None)

    measures: dict[str, tuple[float | None, float | None]] = {
        "declip": (found.clipped_samples, left.clipped_samples),
        "dc": (largest(found.dc_offset), largest(left.dc_offset)),
        "resonance": (found.shimmer_index, left.shimmer_index),
    }
    return tuple(
        RestorationAction(REPAIR, name, getattr(treatment, name), reasons[name], *measures[name]) for name in measures
    )
