"""The demo song: a small band with a singer, mixed cleanly, then spoiled the way generative models spoil songs.

`synthesise` is what `make run` uses without a song and what tests measure against: the true stems and the clean mix
are known, so separation, restoration and mixing can be judged by the distance to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

from outboard.audio.demo import instruments, pathologies, voice
from outboard.audio.demo.arrangement import Arrangement, arrange
from outboard.audio.demo.instruments import SAMPLE_RATE_HERTZ, Audio

STEM_NAMES = ("vocals", "drums", "bass", "other")
# Level of each stem against the voice while it plays, dB, with the spread over seeds.
STEM_LEVELS_DB = {"vocals": (0.0, 0.0), "drums": (-0.5, 1.5), "bass": (-2.0, 1.5), "other": (-1.0, 1.5)}
CLEAN_PEAK_DBFS = -3.0
PEAK_TO_LOUDNESS_DB = 14.0  # a released but not crushed record; drums are clipped softly until the sum gets there
SONG_PEAK_DBFS = -1.0
# How bad the demo is: the numbers of typical generated songs (side/mid -2 to -6 dB, cutoff 15 kHz, about -12 LUFS).
SONG_SEVERITIES: Mapping[str, float] = {"shimmer": 0.7, "mud": 0.7, "hard_pan": 0.6, "squash": 0.4, "low_pass": 1.0}


@dataclass(frozen=True)
class DemoSong:
    """A song with its truth.

    Attributes:
        stems: vocals, drums, bass, other, each float32 (2, frames) without anything else in it.
        clean: their sum, bit for bit `((vocals + drums) + bass) + other`; peak -3 dBFS; nothing on the master bus.
        song: `clean` with the pathologies of `SONG_SEVERITIES`, peak -1 dBFS.
        sample_rate_hertz: 48000.
        arrangement: what is played (tempo, key, notes).
    """

    stems: dict[str, Audio]
    clean: Audio
    song: Audio
    sample_rate_hertz: int
    arrangement: Arrangement


def synthesise(
    seed: int, duration_seconds: float = 30.0, severities: Mapping[str, float] = SONG_SEVERITIES
) -> DemoSong:
    """Make the demo song of a seed.

    Args:
        seed: any integer from 0; the same seed gives the same bytes on the same machine type.
        duration_seconds: length, more than 0.
        severities: pathologies put on `song`, 0 to 1 each; missing ones are 0.

    Raises:
        ValueError: the duration is not positive.
    """
    if not duration_seconds > 0:
        raise ValueError(f"duration_seconds is {duration_seconds}, must be positive")
    rng = np.random.default_rng(seed)
    arrangement = arrange(rng, duration_seconds)
    frames = max(1, round(duration_seconds * SAMPLE_RATE_HERTZ))
    stems = _balanced(rng, _recorded(rng, arrangement, frames))
    clean = stem_sum(stems)
    song = pathologies.apply(clean, SAMPLE_RATE_HERTZ, seed, severities)
    song = np.asarray(song * np.float32(_gain_to_peak(song, SONG_PEAK_DBFS)), dtype=np.float32)
    return DemoSong(stems, clean, song, SAMPLE_RATE_HERTZ, arrangement)


def stem_sum(stems: Mapping[str, Audio]) -> Audio:
    """Sum of the stems in the fixed order of `STEM_NAMES`, float32."""
    total = stems[STEM_NAMES[0]]
    for name in STEM_NAMES[1:]:
        total = total + stems[name]
    return total


def stem_pathologies(demo: DemoSong, severities: Mapping[str, Mapping[str, float]], seed: int) -> dict[str, Audio]:
    """The stems with pathologies on single ones: `severities` maps stem name -> pathology -> severity from 0 to 1."""
    return {
        name: pathologies.apply(stem, demo.sample_rate_hertz, seed, severities.get(name, {}))
        for name, stem in demo.stems.items()
    }


def _recorded(rng: np.random.Generator, arrangement: Arrangement, frames: int) -> dict[str, Audio]:
    """Play every part and set it in its room; levels are not yet balanced."""
    hall = _Reverb.draw(rng, frames, decay_seconds=float(rng.uniform(1.0, 2.0)), bright_hertz=5_000.0)
    room = _Reverb.draw(rng, frames, decay_seconds=float(rng.uniform(0.3, 0.6)), bright_hertz=8_000.0)
    drums_close, drums_room = instruments.drums(rng, arrangement, frames)
    lead = voice.sing(rng, arrangement, frames)
    lead = _levelled(lead)
    other = instruments.other(rng, arrangement, frames)
    return {
        "vocals": np.stack((lead, lead)) + hall.of(lead, float(rng.uniform(0.08, 0.16))),
        "drums": drums_close + room.of(np.mean(drums_room, axis=0), 1.0),
        "bass": instruments.bass(rng, arrangement, frames),
        "other": other + hall.of(np.mean(other, axis=0), float(rng.uniform(0.06, 0.14))),
    }


def _levelled(lead: Audio) -> Audio:
    """The voice through a gentle leveller (about 2:1 over 50 ms), as every recorded voice is."""
    kernel = np.hanning(4_800).astype(np.float32)
    level = np.sqrt(np.maximum(signal.oaconvolve(lead**2, kernel / kernel.sum(), mode="same"), 0.0)) + 1e-4
    loud = float(np.percentile(level, 95))
    gain = np.minimum(1.0, (loud * 0.5 / level)) ** 0.5
    return np.asarray(lead * gain, dtype=np.float32)


@dataclass(frozen=True)
class _Reverb:
    """A diffuse stereo tail: decaying noise, duller as it dies, started 12 ms late; held as two spectra."""

    spectra: npt.NDArray[np.complex64]
    size: int

    @classmethod
    def draw(cls, rng: np.random.Generator, frames: int, decay_seconds: float, bright_hertz: float) -> _Reverb:
        length = int(decay_seconds * 1.2 * SAMPLE_RATE_HERTZ)
        time = np.arange(length) / SAMPLE_RATE_HERTZ
        noise = rng.standard_normal((2, length))
        sos = signal.butter(1, bright_hertz, fs=SAMPLE_RATE_HERTZ, output="sos")
        low_cut = signal.butter(1, 180.0, "highpass", fs=SAMPLE_RATE_HERTZ, output="sos")
        dull = signal.sosfilt(low_cut, signal.sosfilt(sos, noise, axis=1), axis=1)
        open_part = signal.sosfilt(low_cut, noise, axis=1)
        tail = 0.25 * open_part * np.exp(-13.8 * time / decay_seconds) + dull * np.exp(-6.9 * time / decay_seconds)
        tail /= np.sqrt(np.sum(tail**2, axis=1, keepdims=True))
        late = int(0.012 * SAMPLE_RATE_HERTZ)
        size = fft.next_fast_len(frames + length + late, real=True)
        padded = np.pad(tail, ((0, 0), (late, 0))).astype(np.float32)
        return cls(fft.rfft(padded, size, axis=1), size)

    def of(self, mono: Audio, amount: float) -> Audio:
        """The tail of a mono signal, (2, frames), its energy `amount` (amplitude) of the dry one's."""
        wet = fft.irfft(fft.rfft(mono, self.size)[None, :] * self.spectra, self.size, axis=1)
        return np.asarray(np.float32(amount) * wet[:, : mono.size], dtype=np.float32)


def _balanced(rng: np.random.Generator, stems: dict[str, Audio]) -> dict[str, Audio]:
    """Levels between the stems, drum transients rounded until peak and loudness are a record's, peak at -3 dBFS."""
    for name, (mean_db, spread_db) in STEM_LEVELS_DB.items():
        wanted_db = mean_db + float(rng.uniform(-spread_db, spread_db))
        gain = 10.0 ** ((wanted_db - _active_level_db(stems[name])) / 20.0)
        stems[name] = np.asarray(stems[name] * np.float32(gain), dtype=np.float32)
    for _ in range(4):
        mix = stem_sum(stems)
        excess_db = 20 * np.log10(float(np.max(np.abs(mix))) + 1e-12) - _active_level_db(mix) - PEAK_TO_LOUDNESS_DB
        if excess_db < 0.5:
            break
        peak = float(np.max(np.abs(stems["drums"])))
        knee = peak * 10.0 ** (-min(excess_db, 3.0) / 20.0)
        stems["drums"] = np.asarray(knee * np.tanh(stems["drums"] / knee), dtype=np.float32)
    gain = np.float32(_gain_to_peak(stem_sum(stems), CLEAN_PEAK_DBFS))
    return {name: np.asarray(stem * gain, dtype=np.float32) for name, stem in stems.items()}


def _gain_to_peak(audio: Audio, peak_dbfs: float) -> float:
    peak = float(np.max(np.abs(audio)))
    return 10.0 ** (peak_dbfs / 20.0) / peak if peak > 0 else 1.0


def _active_level_db(audio: Audio) -> float:
    """Loudness of the passages that sound: K-weighted power (BS.1770-4) of blocks above -20 dB of the loudest."""
    shelf = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
    high_pass = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
    weighted = signal.lfilter(*high_pass, signal.lfilter(*shelf, audio, axis=1), axis=1)
    block = min(audio.shape[1], int(0.4 * SAMPLE_RATE_HERTZ))
    count = audio.shape[1] // block
    power = np.sum(np.mean(weighted[:, : count * block].reshape(2, count, block) ** 2, axis=2), axis=0)
    active = power[power > 0.01 * np.max(power)]
    return float(-0.691 + 10 * np.log10(np.mean(active) + 1e-12)) if active.size else -120.0
