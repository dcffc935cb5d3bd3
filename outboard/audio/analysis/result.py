"""What an analysis says about a piece of audio."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BandLevel:
    """Level of one band against a pink-like target, see `outboard.audio.analysis.bands`."""

    low_hertz: float
    high_hertz: float
    level_db: float
    target_db: float
    deviation_db: float


@dataclass(frozen=True)
class StereoBand:
    """Width and place of a third of an octave, see `outboard.audio.analysis.stereo`."""

    low_hertz: float
    high_hertz: float
    mid_side_ratio_db: float
    lean: float


@dataclass(frozen=True)
class Analysis:
    """Every metric of one piece of audio; None where it cannot be measured, never a made-up number.

    Attributes:
        frames: length; one frame is a sample of every channel.
        sample_rate_hertz: sampling rate.
        channels: 1 or 2.
        integrated_lufs: gated programme loudness (ITU-R BS.1770-4); None under 400 ms and for silence.
        max_momentary_lufs: highest loudness of 400 ms.
        max_short_term_lufs: highest loudness of 3 s; None under 3 s.
        loudness_range_lu: EBU Tech 3342; None under 3 s.
        true_peak_dbtp: highest of the contract's three true-peak meters; None for silence.
        sample_peak_dbfs: highest absolute sample; None for silence.
        rms_dbfs: root mean square over all channels, 0 dBFS being a square wave at full scale; None for silence.
        crest_factor_db: sample peak over RMS.
        band_levels: six bands from 20 Hz to 16 kHz, fewer where the sampling rate ends earlier; empty for silence.
        correlation: of left and right, -1 to 1; None for mono and where a channel is silent.
        mid_side_ratio_db: energy of side over mid, (L-R)/2 over (L+R)/2; None where either is silent.
        width: 2 E(side) / (E(mid) + E(side)): 0 mono, 1 uncorrelated channels, 2 antiphase; 0 for one channel.
        low_correlation: correlation of left and right under 120 Hz.
        bandwidth_hertz: where the mean spectrum falls 80 dB below its highest point for good.
        tempo_bpm: beats per minute; None under 6 s or where nothing pulses.
        key: such as "A minor"; None where no key stands out.
        key_confidence: how far the key stands out from the next best, 0 to 1.
        shimmer_index: metallic ringing at 8 to 12 kHz, see `shimmer`.
        mud_index: congestion at 200 to 500 Hz, see `mud`.
        spectral_hole_ratio: share of the time-frequency plane that was emptied, see `holes`.
        hard_panning_index: sides too loud and bands pushed to an edge, see `stereo`.
        flat_dynamics_index: dynamics pressed flat, see `levels`.
        clipped_samples: samples of all channels in runs of 3 or more at full scale (over 0.9998) of one sign.
        dc_offset: mean of each channel, as a fraction of full scale.
        mean: mean of the mono sum (L+R)/2.
        deviation: standard deviation of the mono sum (as `torch.std`: divided by frames - 1), with which Demucs models
            normalise; None under two frames.
        noise_floor_dbfs: level that is exceeded in 95 % of the frames of 85 ms; None where they are silent.
        stereo_bands: width and place by thirds of an octave from 150 Hz; silent ones left out, empty for one channel.
        third_octaves: the same levels against the same target as `band_levels`, by thirds of an octave from 31.5 Hz to
            16 kHz (IEC 61260-1); those that begin over Nyquist are left out; empty for silence.
        onsets_per_second: how many sounds begin, see `onsets`; None under 1 s and for silence.
        vocal_dominance: share of the whole that moves like a voice in the middle, 0 to 1, see `voice`; None for
            silence.
    """

    frames: int
    sample_rate_hertz: int
    channels: int
    integrated_lufs: float | None
    max_momentary_lufs: float | None
    max_short_term_lufs: float | None
    loudness_range_lu: float | None
    true_peak_dbtp: float | None
    sample_peak_dbfs: float | None
    rms_dbfs: float | None
    crest_factor_db: float | None
    band_levels: tuple[BandLevel, ...]
    correlation: float | None
    mid_side_ratio_db: float | None
    width: float | None
    low_correlation: float | None
    bandwidth_hertz: float | None
    tempo_bpm: float | None
    key: str | None
    key_confidence: float | None
    shimmer_index: float | None
    mud_index: float | None
    spectral_hole_ratio: float | None
    hard_panning_index: float | None
    flat_dynamics_index: float | None
    clipped_samples: int
    dc_offset: tuple[float, ...]
    mean: float | None
    deviation: float | None
    noise_floor_dbfs: float | None
    stereo_bands: tuple[StereoBand, ...] = ()
    third_octaves: tuple[BandLevel, ...] = ()
    onsets_per_second: float | None = None
    vocal_dominance: float | None = None
