"""The analysis of a whole piece, in one pass over its samples plus an excerpt for tempo and key.

Nothing that is kept grows with the song but a few numbers per second, so a memory map of any length will do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from outboard.audio.analysis.bands import LongTermSpectrum
from outboard.audio.analysis.holes import HoleMeter
from outboard.audio.analysis.levels import LevelMeter
from outboard.audio.analysis.mud import MudMeter
from outboard.audio.analysis.music import tempo_and_key
from outboard.audio.analysis.onsets import OnsetMeter
from outboard.audio.analysis.result import Analysis
from outboard.audio.analysis.shimmer import ShimmerMeter
from outboard.audio.analysis.stereo import StereoSpectrum
from outboard.audio.analysis.voice import VoiceMeter
from outboard.audio.loudness import LoudnessMeter
from outboard.audio.spectrum import SpectrumBatch, SpectrumStream
from outboard.audio.true_peak import TruePeakMeter
from outboard.errors import InvalidInput

Float32Array = NDArray[np.float32]
Progress = Callable[[float], None]

_BLOCK_FRAMES = 65536
_RATES_HERTZ = (4000, 384000)
_MUSIC_SHARE = 0.1  # of the work, as progress is reported


class _SpectralMeters:
    """Everything that is measured on spectra, fed from one stream of them."""

    def __init__(self, sample_rate_hertz: int, channels: int) -> None:
        self._stream = SpectrumStream(sample_rate_hertz, channels)
        bin_hertz, bins = self._stream.bin_hertz, self._stream.size // 2 + 1
        self.long_term = LongTermSpectrum(bin_hertz, bins)
        self.shimmer = ShimmerMeter(bin_hertz, bins)
        self.mud = MudMeter()
        self.holes = HoleMeter(bin_hertz)
        self.onsets = OnsetMeter(bin_hertz, bins)
        self.voice = VoiceMeter(bin_hertz, bins, sample_rate_hertz)
        self.stereo = StereoSpectrum(bin_hertz, bins) if channels == 2 else None

    def process(self, block: Float32Array) -> None:
        for batch in self._stream.process(block):
            self._take(batch)

    def finish(self) -> None:
        for batch in self._stream.finish():
            self._take(batch)

    def _take(self, batch: SpectrumBatch) -> None:
        self.long_term.take(batch)
        self.shimmer.take(batch)
        self.mud.take(batch)
        self.holes.take(batch)
        self.onsets.take(batch)
        self.voice.take(batch)
        if self.stereo:
            self.stereo.take(batch)


def analyze(
    audio: Float32Array,
    sample_rate_hertz: int,
    *,
    known_peaks: TruePeakMeter | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Measure everything.

    Args:
        audio: float (channels, frames), one or two channels, any length; may be a memory map.
        sample_rate_hertz: 4 to 384 kHz.
        known_peaks: a finished meter that has read this very audio, where the caller has one: a third of the work.
        progress: called with the fraction done after every 65536 frames; may raise to stop.

    Raises:
        InvalidInput: shape, channel count or rate out of range, or NaN or infinity in the audio.
    """
    _check(audio, sample_rate_hertz)
    channels, frames = audio.shape
    levels = LevelMeter(sample_rate_hertz, channels)
    loudness = LoudnessMeter(sample_rate_hertz, channels)
    peaks = known_peaks or TruePeakMeter(channels)
    spectral = _SpectralMeters(sample_rate_hertz, channels)
    for begin in range(0, frames, _BLOCK_FRAMES):
        block = np.ascontiguousarray(audio[:, begin : begin + _BLOCK_FRAMES], dtype=np.float32)
        _refuse_not_finite(block)
        levels.process(block)
        loudness.process(block)
        if not known_peaks:
            peaks.process(block)
        spectral.process(block)
        if progress:
            progress((begin + block.shape[1]) / frames * (1.0 - _MUSIC_SHARE))
    if not known_peaks:
        peaks.finish()
    spectral.finish()
    tick = functools.partial(progress, 1.0 - _MUSIC_SHARE) if progress else lambda: None
    tempo_bpm, key, key_confidence = tempo_and_key(audio, sample_rate_hertz, tick)
    if progress:
        progress(1.0)
    mean_square = levels.mean_square
    rms_dbfs = 10.0 * math.log10(mean_square) if mean_square > 0.0 else None
    sample_peak = peaks.sample_peak_dbfs
    mid, side = levels.mid_and_side
    stereo = spectral.stereo
    return Analysis(
        frames=frames,
        sample_rate_hertz=sample_rate_hertz,
        channels=channels,
        integrated_lufs=loudness.integrated_lufs,
        max_momentary_lufs=loudness.max_momentary_lufs,
        max_short_term_lufs=loudness.max_short_term_lufs,
        loudness_range_lu=loudness.loudness_range_lu,
        true_peak_dbtp=peaks.true_peak_dbtp,
        sample_peak_dbfs=sample_peak,
        rms_dbfs=rms_dbfs,
        crest_factor_db=sample_peak - rms_dbfs if sample_peak is not None and rms_dbfs is not None else None,
        band_levels=spectral.long_term.band_levels,
        correlation=levels.correlation,
        mid_side_ratio_db=10.0 * math.log10(side / mid) if side > 0.0 and mid > 0.0 else None,
        width=2.0 * side / (mid + side) if mid + side > 0.0 else None,
        low_correlation=stereo.low_correlation if stereo else None,
        bandwidth_hertz=spectral.long_term.bandwidth_hertz,
        tempo_bpm=tempo_bpm,
        key=key,
        key_confidence=key_confidence,
        shimmer_index=spectral.shimmer.shimmer_index,
        mud_index=spectral.mud.mud_index,
        spectral_hole_ratio=spectral.holes.spectral_hole_ratio,
        hard_panning_index=stereo.hard_panning_index if stereo else 0.0,
        flat_dynamics_index=levels.flat_dynamics_index,
        clipped_samples=levels.clipped_samples,
        dc_offset=levels.dc_offset,
        mean=levels.mono_mean,
        deviation=levels.mono_deviation,
        noise_floor_dbfs=spectral.long_term.noise_floor_dbfs,
        stereo_bands=stereo.stereo_bands if stereo else (),
        third_octaves=spectral.long_term.third_octaves,
        onsets_per_second=spectral.onsets.per_second(frames / sample_rate_hertz),
        vocal_dominance=spectral.voice.vocal_dominance,
    )


def _check(audio: Float32Array, sample_rate_hertz: int) -> None:
    if audio.ndim != 2 or audio.shape[0] not in (1, 2):
        raise InvalidInput(f"Audio of shape {audio.shape} given; one or two channels are analysed.", field="audio")
    low, high = _RATES_HERTZ
    if not low <= sample_rate_hertz <= high:
        raise InvalidInput(
            f"Sample rate {sample_rate_hertz} Hz given; {low} to {high} Hz are analysed.", field="sample_rate_hertz"
        )


def _refuse_not_finite(block: Float32Array) -> None:
    # A sum over a block is finite exactly when its samples are, short of values near the float32 limit.
    if not np.isfinite(block.sum(dtype=np.float64)):
        raise InvalidInput("The audio contains NaN or infinity.", field="audio", reason="AUDIO_NOT_FINITE")
