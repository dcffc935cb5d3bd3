"""The engine `repair`: what to treat, and the treated stem cell by cell.

A treatment acts only on what the examination shows, and what it does not act on stays bit for bit as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outboard.audio import declip
from outboard.audio.de_esser import DeEsser, DeEsserSettings
from outboard.audio.hole_filling import HoleFiller
from outboard.audio.mp3_mending import CodecMender
from outboard.audio.reporting import Progress
from outboard.audio.resonance import Tamer
from outboard.audio.tone_removal import ToneRemover
from services.restorer.cells import padded_part
from services.restorer.diagnosis import Examination, cell_frames
from services.restorer.settings import REPAIR, Diagnosis, RestorationAction
from services.restorer.sibilance import CLEAN_DB, SEVERE_DB
from services.restorer.voice import VOICES

Audio = NDArray[np.float32]

FEWEST_CLIPPED_SAMPLES = 12  # four flat peaks: fewer are chance
SMALLEST_DC = 1e-3  # of full scale, -60 dBFS
SHORTEST_FOR_DC_SECONDS = 1.0  # in less, a mean is a low note
SLIGHT_SHIMMER_INDEX = 0.03  # up to here nothing is done ...
CLEAR_SHIMMER_INDEX = 0.1  # ... and from here on all of it; released recordings lie at 0
SLIGHT_TONE_INDEX, CLEAR_TONE_INDEX = 0.0, 0.1  # 80 and 75 dB below the stem; clean stems have none at all
SLIGHT_HOLE_RATIO, CLEAR_HOLE_RATIO = 0.035, 0.045  # clean stems lie below 0.005, beating synthesisers below 0.031
# Of 64 to 128 kbit/s at least the half is zeros, of softer stems a third; what is coded better needs nothing.
SLIGHT_CODEC_RATIO, CLEAR_CODEC_RATIO = 0.2, 0.3
SLIGHT_SIBILANCE_INDEX, CLEAR_SIBILANCE_INDEX = 0.1, 0.3
_NOT_WANTED = "amount 0 was asked for"


@dataclass(frozen=True)
class Treatment:
    """How much of each treatment but declipping is used, 0 to 1."""

    dc: float
    codec: float
    tones: float
    holes: float
    resonance: float
    sibilance: float

    @property
    def is_none(self) -> bool:
        parts = (self.dc, self.codec, self.tones, self.holes, self.resonance, self.sibilance)
        return not any(parts)


def decide_declipping(examined: Examination, amount: float | None) -> tuple[float, str]:
    """How much of the missing crests is drawn, 0 to 1, and why, in a sentence."""
    if amount == 0:
        return 0.0, _NOT_WANTED
    count = examined.diagnosis.clipped_samples
    if count < FEWEST_CLIPPED_SAMPLES:
        return 0.0, "no clipped peaks"
    return (1.0 if amount is None else amount), f"{count} samples in flat peaks"


def decide(examined: Examination, seconds: float, amount: float | None, role: str) -> tuple[Treatment, dict[str, str]]:
    """How much of each treatment but declipping the diagnosis asks for (scaled by a given amount), and why, in a
    sentence each.
    """
    found = examined.diagnosis
    most = 1.0 if amount is None else amount
    reasons = {}
    largest_dc = max((abs(offset) for offset in found.dc_offset), default=0.0)
    has_dc = largest_dc >= SMALLEST_DC and seconds >= SHORTEST_FOR_DC_SECONDS
    reasons["dc"] = (
        f"a constant offset of {largest_dc:.4f}" if has_dc else f"an offset of {largest_dc:.1e} does no harm"
    )
    if largest_dc >= SMALLEST_DC and not has_dc:
        reasons["dc"] = "too short to tell an offset from a low note"
    codec, reasons["codec"] = _codec(found.codec_hole_ratio)
    tones, reasons["tones"] = _tones(found)
    holes, reasons["holes"] = _holes(found.spectral_hole_ratio)
    if codec and holes:
        holes, reasons["holes"] = 0.0, f"{reasons['holes']}: the codec's, filled where it rounded them away"
    shimmer, reasons["resonance"] = _shimmer(found.shimmer_index)
    sibilance, reasons["sibilance"] = _sibilance(found.sibilance_index, role)
    if amount == 0:
        reasons = dict.fromkeys(reasons, _NOT_WANTED)
    shares = (has_dc, codec, tones, holes, shimmer, sibilance)
    return Treatment(*(most * share for share in shares)), reasons


def _tones(found: Diagnosis) -> tuple[float, str]:
    if found.grid_tone_index is None:
        return 0.0, "too little sounds to tell steady tones from notes"
    if not found.grid_spacing_hertz:
        return 0.0, "no steady tones on a fixed grid"
    words = f"{found.grid_tones} steady tones on a grid of {found.grid_spacing_hertz:.2f} Hz"
    share = _share(found.grid_tone_index, SLIGHT_TONE_INDEX, CLEAR_TONE_INDEX)
    return share, words + ("" if share else ", too soft to be heard")


def _shimmer(index: float | None) -> tuple[float, str]:
    if index is None:
        return 0.0, "nothing sounds between 8 and 12 kHz"
    share = _share(index, SLIGHT_SHIMMER_INDEX, CLEAR_SHIMMER_INDEX)
    words = (
        "lasting narrow peaks, shimmer index {:.2f}" if share else "shimmer index {:.2f} is as clean recordings have it"
    )
    return share, words.format(index)


def _codec(ratio: float | None) -> tuple[float, str]:
    if ratio is None:
        return 0.0, "no trace of an MP3 coder"
    share = _share(ratio, SLIGHT_CODEC_RATIO, CLEAR_CODEC_RATIO)
    return share, f"an MP3 coder rounded {ratio:.0%} of its lines to zero" + ("" if share else ", as good ones do")


def _holes(ratio: float | None) -> tuple[float, str]:
    if ratio is None:
        return 0.0, "nothing sounds in which there could be holes"
    share = _share(ratio, SLIGHT_HOLE_RATIO, CLEAR_HOLE_RATIO)
    return share, f"{ratio:.1%} of what sounds is holes" + ("" if share else ", as clean recordings have it")


def _sibilance(index: float | None, role: str) -> tuple[float, str]:
    if role not in VOICES:
        return 0.0, "not a voice"
    if index is None:
        return 0.0, "no sibilants"
    share = _share(index, SLIGHT_SIBILANCE_INDEX, CLEAR_SIBILANCE_INDEX)
    return share, f"sibilance index {index:.2f}" + ("" if share else " is as clean voices have it")


def _share(value: float, slight: float, clear: float) -> float:
    return float(np.clip((value - slight) / (clear - slight), 0.0, 1.0))


def declipped(
    array: Audio, sample_rate_hertz: int, levels: NDArray[np.float64], amount: float, progress: Progress
) -> Iterator[Audio]:
    """Yields the stem with its missing crests drawn, cell by cell.

    Args:
        array: float32 (channels, frames).
        sample_rate_hertz: of the stem.
        levels: highest absolute sample of each channel, at which it was clipped.
        amount: of what is drawn, over 0 to 1.
        progress: gets the fraction done after each cell.
    """
    size = cell_frames(sample_rate_hertz)
    whole = -(-size // declip.CORE_FRAMES) * declip.CORE_FRAMES
    around = declip.LOOKAROUND_FRAMES
    for start in range(0, array.shape[1], whole):
        raw = padded_part(array, start - around, whole + 2 * around)
        drawn, changed = declip.declip(raw, levels)
        middle = raw[:, around : around + whole]
        if changed and amount < 1:
            drawn = middle + np.float32(amount) * (drawn - middle)
        yield np.ascontiguousarray(drawn[:, : array.shape[1] - start])
        progress(min(1.0, (start + whole) / array.shape[1]))


def repaired(
    array: Audio, sample_rate_hertz: int, examined: Examination, treatment: Treatment, progress: Progress
) -> Iterator[Audio]:
    """The treated stem, cell by cell."""
    done = 0
    cells = _mended(array, sample_rate_hertz, examined, treatment)
    for cell in _de_essed(cells, array.shape[0], sample_rate_hertz, examined, treatment):
        yield cell
        done += cell.shape[1]
        progress(done / array.shape[1])


def _mended(array: Audio, sample_rate_hertz: int, examined: Examination, treatment: Treatment) -> Iterator[Audio]:
    """Cells without DC, tones, holes and resonances."""
    source = _Source.of(array, sample_rate_hertz, examined, treatment)
    tamer = Tamer(examined.survey, sample_rate_hertz, treatment.resonance) if treatment.resonance else None
    filler = HoleFiller(sample_rate_hertz, examined.power, treatment.holes) if treatment.holes else None
    size = cell_frames(sample_rate_hertz)
    mender = CodecMender(examined.codec, size, treatment.codec) if treatment.codec and examined.codec else None
    for number, start in enumerate(range(0, array.shape[1], size)):
        frames = min(size, array.shape[1] - start)
        cell = source.read(start, frames)
        corrections = []
        if mender is not None:
            around = mender.lookaround_frames
            corrections.append(mender.correction(padded_part(array, start - around, size + 2 * around), start))
        if tamer is not None:
            around = tamer.lookaround_frames
            corrections.append(tamer.correction(source.read(start - around, size + 2 * around), number))
        if filler is not None:
            around = filler.lookaround_frames
            corrections.append(filler.correction(source.read(start - around, size + 2 * around)))
        for correction in corrections:
            if correction is not None:
                cell = np.asarray(cell + correction[:, :frames], dtype=np.float32)
        yield cell


def _de_essed(
    cells: Iterator[Audio], channels: int, sample_rate_hertz: int, examined: Examination, treatment: Treatment
) -> Iterator[Audio]:
    """Cells of the same sizes, sibilants turned down by as much as the diagnosis finds too much."""
    if not treatment.sibilance:
        yield from cells
        return
    excess_db = treatment.sibilance * (examined.diagnosis.sibilance_index or 0.0) * (SEVERE_DB - CLEAN_DB)
    # The de-esser holds a sibilant against the loudest of late, itself included: it never reads more than 0 dB.
    settings = DeEsserSettings(threshold_db=-3.0 - excess_db, ratio=8.0, range_db=-excess_db)
    de_esser = DeEsser(settings, sample_rate_hertz, channels)
    late = de_esser.latency_frames
    kept = np.zeros((channels, 0), np.float32)
    sizes: list[int] = []
    for cell in cells:
        sizes.append(cell.shape[1])
        out = de_esser.process(cell)
        kept = np.concatenate([kept, out[:, late:]], axis=1)
        late = max(0, late - out.shape[1])
        while sizes and kept.shape[1] >= sizes[0]:
            yield np.ascontiguousarray(kept[:, : sizes[0]])
            kept = kept[:, sizes.pop(0) :]
    flushed = de_esser.process(np.zeros((channels, de_esser.latency_frames), np.float32))
    kept = np.concatenate([kept, flushed[:, late:]], axis=1)
    for size in sizes:
        yield np.ascontiguousarray(kept[:, :size])
        kept = kept[:, size:]


@dataclass(frozen=True)
class _Source:
    """The stem without DC and tones, readable at any place (silence past its ends)."""

    array: Audio
    examined: Examination
    treatment: Treatment
    remover: ToneRemover | None = None

    @classmethod
    def of(cls, array: Audio, sample_rate_hertz: int, examined: Examination, treatment: Treatment) -> _Source:
        """What the treatment asks for."""
        source = cls(array, examined, treatment)
        if not treatment.tones or examined.tones is None:
            return source
        tones = examined.tones
        remover = ToneRemover(
            source.read, array.shape[1], sample_rate_hertz, tones.grid_hertz, treatment.tones, tones.most_amplitude
        )
        return replace(source, remover=remover)

    def read(self, start: int, frames: int) -> Audio:
        """float32 (channels, frames) from `start`, which may be negative."""
        part = self._with_tones(start, frames)
        if self.remover is None:
            return part
        inside = slice(max(0, -start), max(0, min(frames, self.array.shape[1] - start)))
        part[:, inside] -= self.remover.tones(start, frames)[:, inside]
        return part

    def _with_tones(self, start: int, frames: int) -> Audio:
        part = padded_part(self.array, start, frames)
        if not self.treatment.dc:
            return part
        offsets = np.array(self.examined.diagnosis.dc_offset)[:, None] * self.treatment.dc
        inside = np.arange(start, start + frames)
        is_stem = (inside >= 0) & (inside < self.array.shape[1])
        return np.where(is_stem, part - offsets, part).astype(np.float32)


def actions(
    treatment: Treatment, reasons: dict[str, str], found: Diagnosis, left: Diagnosis
) -> tuple[RestorationAction, ...]:
    """One action per treatment but declipping, with the measure that decided it, before and after."""

    def largest(offsets: tuple[float, ...]) -> float | None:
        return max((abs(offset) for offset in offsets), default=None)

    measures: dict[str, tuple[float | None, float | None]] = {
        "dc": (largest(found.dc_offset), largest(left.dc_offset)),
        "codec": (found.codec_hole_ratio, left.codec_hole_ratio),
        "tones": (found.grid_tone_index, left.grid_tone_index),
        "holes": (found.spectral_hole_ratio, left.spectral_hole_ratio),
        "resonance": (found.shimmer_index, left.shimmer_index),
        "sibilance": (found.sibilance_index, left.sibilance_index),
    }
    return tuple(
        RestorationAction(REPAIR, name, getattr(treatment, name), reasons[name], *measures[name]) for name in measures
    )
