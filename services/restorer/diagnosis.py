"""What is wrong with a stem: two passes over it in fixed cells, whatever its length.

The first pass finds levels (peak, mean, power) and refuses NaN and infinities. Then the loudest part of the stem is
searched for the grid of an MP3 coder. The second pass counts clipped samples and surveys resonances, tones on a grid
and holes, which need the levels of the whole stem, and what the coder rounded away, and looks at spectra: where they
end, sibilants, and the noise beneath.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from outboard.audio.cutoff import Cutoff, CutoffMeter
from outboard.audio.declip import count_clipped
from outboard.audio.grid_tones import GridTones, GridToneSurveyor
from outboard.audio.hole_filling import HoleSurveyor
from outboard.audio.mp3_filter_bank import GRANULE_FRAMES
from outboard.audio.mp3_grid import SEARCH_FRAMES, find_grid
from outboard.audio.mp3_mending import CodecSurveyor, CodecTrace
from outboard.audio.resonance import HOPS_PER_CELL, Survey, Surveyor, window_frames
from outboard.audio.spectrum import SpectrumBatch, SpectrumStream
from outboard.errors import InvalidInput
from services.restorer.noise import BandNoise, NoiseMeter
from services.restorer.settings import Diagnosis
from services.restorer.sibilance import SibilanceMeter

Audio = NDArray[np.float32]
Progress = Callable[[float], None]


def cell_frames(sample_rate_hertz: int) -> int:
    """Frames of the fixed cells in which a stem is read: 65536 at 44.1 and 48 kHz."""
    return window_frames(sample_rate_hertz) // 4 * HOPS_PER_CELL


@dataclass(frozen=True)
class Known:
    """What is not looked for again in a stem that something was done to.

    Attributes:
        codec_grid: where that of an MP3 coder lies; None: there is none.
        codec_top: the number of lines that it coded; None: not known yet.
        no_tones: what was found of tones on a grid, where that is none; None: they are looked for.
    """

    codec_grid: int | None = None
    codec_top: int | None = None
    no_tones: GridTones | None = None


@dataclass(frozen=True)
class Examination:
    """A diagnosis with what the treatments need.

    Attributes:
        diagnosis: what is told.
        levels: highest absolute sample of each channel.
        power: mean power over channels.
        survey: of resonances.
        tones: on a fixed grid; None where they cannot be told.
        cutoff: the spectrum's end; None for silence.
        voice_power: of the frames at 300 Hz to 3 kHz, against which sibilants are held.
        codec: what an MP3 coder left behind; None where its grid was not found.
        noise: beneath the stem, by band; None where it cannot be told.
    """

    diagnosis: Diagnosis
    levels: NDArray[np.float64]
    power: float
    survey: Survey
    tones: GridTones | None = None
    cutoff: Cutoff | None = None
    voice_power: float = 0.0
    codec: CodecTrace | None = None
    noise: BandNoise | None = None

    @property
    def known(self) -> Known:
        """What stays as it is, whatever is done to the stem."""
        no_tones = self.tones if self.tones is not None and self.tones.spacing_hertz is None else None
        return Known(self.codec.grid, self.codec.top, no_tones) if self.codec else Known(no_tones=no_tones)


@dataclass
class Examiner:
    """Second pass, fed cell by cell.

    Args:
        levels: highest absolute sample of each channel.
        means: of each channel.
        power: mean power over channels.
        known: of the stem before anything was done to it.
    """

    sample_rate_hertz: int
    levels: NDArray[np.float64]
    means: NDArray[np.float64]
    power: float
    known: Known = Known()

    def __post_init__(self) -> None:
        self._surveyor = Surveyor(self.sample_rate_hertz, self.levels.size, self.power)
        self._tones = None
        if self.known.no_tones is None:
            self._tones = GridToneSurveyor(self.sample_rate_hertz, self.levels.size, self.power)
        self._clipped = 0
        self._noise = NoiseMeter(self.sample_rate_hertz)
        self._spectra = SpectrumStream(self.sample_rate_hertz, self.levels.size)
        self._cutoff = CutoffMeter(self._spectra.bin_hertz, self._spectra.size // 2 + 1)
        self._holes = HoleSurveyor(self.sample_rate_hertz, self.levels.size, self.power)
        self._sibilance = SibilanceMeter()
        grid, top = self.known.codec_grid, self.known.codec_top
        self._codec = None if grid is None else CodecSurveyor(grid, top)

    def add(self, cell: Audio) -> None:
        """Examine the next cell; the last one may be shorter."""
        self._clipped += count_clipped(cell, self.levels)
        self._noise.add(cell)
        if self._codec is not None:
            self._codec.add(cell)
        self._look(self._spectra.process(cell))
        missing = self._surveyor.cell_frames - cell.shape[1]
        whole = np.pad(cell, ((0, 0), (0, missing))) if missing else cell
        self._surveyor.add(whole)
        if self._tones is not None:
            self._tones.add(cell)
        self._holes.add(whole)

    def finish(self) -> Examination:
        """What was found in all of it."""
        tones = self._tones.finish() if self._tones is not None else self.known.no_tones
        survey = self._surveyor.finish(tones.hertz if tones else ())
        self._look(self._spectra.finish())
        cutoff = self._cutoff.finish()
        codec = self._codec.finish() if self._codec is not None else None
        diagnosis = Diagnosis(
            bandwidth_hertz=cutoff.hertz if cutoff else None,
            bandwidth_slope_db_per_octave=cutoff.slope_db_per_octave if cutoff else None,
            brick_wall=cutoff is not None and cutoff.is_wall,
            spectral_hole_ratio=self._holes.finish(),
            shimmer_index=survey.index,
            grid_tone_index=tones.index if tones else None,
            grid_tones=len(tones.hertz) if tones else 0,
            grid_spacing_hertz=tones.spacing_hertz if tones else None,
            noise_floor_dbfs=self._noise.floor_dbfs(),
            noise_stationarity=self._noise.stationarity(),
            sibilance_index=self._sibilance.sibilance_index,
            clipped_samples=self._clipped,
            dc_offset=tuple(float(mean) for mean in self.means),
            codec_hole_ratio=codec.hole_ratio if codec else None,
        )
        voice_power = self._sibilance.voice_power
        noise = self._noise.bands()
        return Examination(diagnosis, self.levels, self.power, survey, tones, cutoff, voice_power, codec, noise)

    def _look(self, batches: Iterator[SpectrumBatch]) -> None:
        for batch in batches:
            self._cutoff.take(batch)
            self._sibilance.take(batch)


def cells(array: Audio, sample_rate_hertz: int) -> Iterator[Audio]:
    """The stem in cells, float32 and contiguous; the last may be shorter."""
    size = cell_frames(sample_rate_hertz)
    for start in range(0, array.shape[1], size):
        yield np.ascontiguousarray(array[:, start : start + size], dtype=np.float32)


@dataclass
class LevelMeter:
    """First pass: peak and sum of each channel, power, and where the loudest block begins."""

    channels: int

    def __post_init__(self) -> None:
        self.peaks = np.zeros(self.channels)
        self._sums = np.zeros(self.channels)
        self._energy = 0.0
        self._frames = 0
        self._most = 0.0
        self.loudest_frame = 0

    def add(self, cell: Audio) -> None:
        """Measure the next block.

        Raises:
            InvalidInput: AUDIO_NOT_FINITE.
        """
        peaks = np.max(np.abs(cell), axis=1)
        if not np.all(np.isfinite(peaks)):
            raise InvalidInput("the stem holds NaN or infinite samples", reason="AUDIO_NOT_FINITE", field="chunk")
        self.peaks = np.maximum(self.peaks, peaks)
        self._sums += np.sum(cell, axis=1, dtype=np.float64)
        energy = float(np.sum(np.square(cell, dtype=np.float64)))
        if energy > self._most:
            self.loudest_frame, self._most = self._frames, energy
        self._energy += energy
        self._frames += cell.shape[1]

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean of each channel."""
        return self._sums / max(1, self._frames)

    @property
    def power(self) -> float:
        """Mean power over all samples, without what DC adds."""
        total = self._energy / max(1, self._frames * self.channels)
        return max(0.0, total - float(np.mean(self.means**2)))


def examine(
    array: Audio, sample_rate_hertz: int, progress: Progress | None = None, earlier: Examination | None = None
) -> Examination:
    """Both passes over a stem.

    Args:
        array: float32 (channels, frames).
        sample_rate_hertz: of the stem.
        progress: gets the fraction done after each cell.
        earlier: of the same stem before something was done to it: where it has no coder's grid, it has none now, and
            holes are counted among the lines that the coder coded, not among what was added above; where it had no
            tones on a grid, none are looked for.
    """
    meter = LevelMeter(array.shape[0])
    done, total = 0, max(1, 2 * array.shape[1])
    for cell in cells(array, sample_rate_hertz):
        meter.add(cell)
        done = _advance(progress, done, cell.shape[1], total)
    if earlier is None:
        size = cell_frames(sample_rate_hertz)
        loudest = max(0, min(meter.loudest_frame, array.shape[1] - size))
        known = Known(_codec_grid(array[:, loudest : loudest + size], loudest))
    else:
        known = earlier.known
    examiner = Examiner(sample_rate_hertz, meter.peaks, meter.means, meter.power, known)
    for cell in cells(array, sample_rate_hertz):
        examiner.add(cell)
        done = _advance(progress, done, cell.shape[1], total)
    return examiner.finish()


def _codec_grid(cell: Audio, start: int) -> int | None:
    """The grid of an MP3 coder in the loudest part of a cell that begins at `start`; None where there is none."""
    hop = SEARCH_FRAMES // 2
    places = range(0, cell.shape[1] - SEARCH_FRAMES + 1, hop)
    if not places:
        return None
    first = max(places, key=lambda place: float(np.sum(np.square(cell[:, place : place + SEARCH_FRAMES]))))
    found = find_grid(np.asarray(cell[:, first : first + SEARCH_FRAMES], dtype=np.float32))
    return None if found is None else (start + first + found) % GRANULE_FRAMES


def _advance(progress: Progress | None, done: int, frames: int, total: int) -> int:
    if progress is not None:
        progress((done + frames) / total)
    return done + frames


def diagnose(array: Audio, sample_rate_hertz: int) -> Diagnosis:
    """What is wrong with a stem.

    Args:
        array: float32 (channels, frames), may be a memory map.
        sample_rate_hertz: of the stem.

    Raises:
        InvalidInput: AUDIO_NOT_FINITE.
    """
    return examine(array, sample_rate_hertz).diagnosis
