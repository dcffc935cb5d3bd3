"""A formant-sung lead: glottal pulses and breath through the resonances of a vocal tract.

Source-filter singing after Fant (Acoustic Theory of Speech Production, 1960): a pulse train with vibrato, drift and
jitter, plus breath noise, shaped by five formants per vowel that glide from syllable to syllable; vowels after
Peterson and Barney (1952). Consonants are noise bursts and closures. The filter moves slowly against a frame, so it
is applied in the short-time Fourier domain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import signal

from outboard.audio.demo.arrangement import Arrangement, Syllable
from outboard.audio.demo.instruments import (
    HIGHEST_PARTIAL_HERTZ,
    SAMPLE_RATE_HERTZ,
    Audio,
    band_noise,
    hertz,
    play_table,
    seconds_axis,
    wavetable,
)

CONTROL_HERTZ = 200  # pitch, loudness and formants are drawn at this rate and interpolated
WINDOW = 1024
HOP = 512
FORMANTS_HERTZ = {  # adult male; a high voice stands 16 % above
    "a": (730.0, 1_090.0, 2_440.0, 3_400.0, 4_500.0),
    "e": (530.0, 1_840.0, 2_480.0, 3_500.0, 4_500.0),
    "i": (270.0, 2_290.0, 3_010.0, 3_700.0, 4_700.0),
    "o": (570.0, 840.0, 2_410.0, 3_300.0, 4_400.0),
    "u": (300.0, 870.0, 2_240.0, 3_200.0, 4_300.0),
    "uh": (640.0, 1_190.0, 2_390.0, 3_400.0, 4_500.0),
}
BANDWIDTHS_HERTZ = (90.0, 110.0, 170.0, 250.0, 350.0)
FORMANT_LEVELS = (1.0, 0.75, 0.55, 0.45, 0.3)
# consonant: (low Hz, high Hz, seconds, level)
NOISES = {
    "s": (5_200.0, 14_000.0, 0.09, 0.16),
    "sh": (2_400.0, 9_000.0, 0.09, 0.16),
    "t": (2_500.0, 12_000.0, 0.025, 0.25),
    "k": (1_200.0, 6_000.0, 0.03, 0.2),
    "d": (800.0, 7_000.0, 0.015, 0.15),
}


def sing(rng: np.random.Generator, arrangement: Arrangement, frames: int) -> Audio:
    """The lead, mono and dry, shape (frames,); silent where no section is sung."""
    syllables = [s for s in arrangement.melody if s.note.start_seconds * SAMPLE_RATE_HERTZ < frames]
    if not syllables:
        return np.zeros(frames, dtype=np.float32)
    breathiness = float(rng.uniform(0.02, 0.06))
    pitch, loudness = _pitch_and_loudness(rng, syllables, frames)
    pulses = _pulses(rng, syllables, pitch, frames)
    air = rng.standard_normal(frames).astype(np.float32) * np.float32(breathiness)
    source = np.asarray((pulses + air * (0.4 + 0.6 * np.abs(pulses))) * loudness, dtype=np.float32)
    voiced = _through_formants(source, syllables, 1.16 if arrangement.high_voice else 1.0)
    return np.asarray(voiced + _consonants_and_breaths(rng, syllables, frames), dtype=np.float32)


def _pitch_and_loudness(
    rng: np.random.Generator, syllables: list[Syllable], frames: int
) -> tuple[npt.NDArray[np.float64], Audio]:
    """Frequency in Hz and loudness (0..1) per frame: glides of 40 ms, late vibrato, swells and releases."""
    count = int(np.ceil(frames / SAMPLE_RATE_HERTZ * CONTROL_HERTZ)) + 2
    time = np.arange(count) / CONTROL_HERTZ
    pitch = np.full(count, syllables[0].note.pitch, dtype=np.float64)
    vibrato = np.zeros(count)
    loudness = np.zeros(count)
    rate_hertz, depth_semitones = rng.uniform(4.8, 6.4), rng.uniform(0.2, 0.5)
    for syllable in syllables:
        note = syllable.note
        pitch[time >= note.start_seconds - 0.03] = note.pitch
        inside = (time >= note.start_seconds) & (time < note.start_seconds + note.duration_seconds)
        age = time[inside] - note.start_seconds
        vibrato[inside] = depth_semitones * np.clip((age - 0.2) / 0.3, 0.0, 1.0)
        onset = 0.01 if syllable.consonant in ("t", "k", "d") else 0.04
        release = np.clip((note.duration_seconds - age) / 0.06, 0.0, 1.0)
        swell = 0.85 + 0.15 * np.sin(np.pi * age / note.duration_seconds)
        loudness[inside] = note.velocity * np.clip(age / onset, 0.0, 1.0) * release * swell
        if syllable.consonant in ("m", "l"):
            loudness[inside] *= np.where(age < 0.06, 0.35, 1.0)
    drift = np.cumsum(rng.normal(0.0, 0.012, count))
    pitch += vibrato * np.sin(2 * np.pi * rate_hertz * time + rng.uniform(0, 6.28)) + drift - np.mean(drift)
    kernel = np.hanning(11) / np.sum(np.hanning(11))
    pitch = np.convolve(np.pad(pitch, 5, mode="edge"), kernel, mode="valid")
    loudness = np.convolve(np.pad(loudness, 2, mode="edge"), np.array([0.1, 0.2, 0.4, 0.2, 0.1]), mode="valid")
    at = np.arange(frames) * (CONTROL_HERTZ / SAMPLE_RATE_HERTZ)
    frequency = 440.0 * 2.0 ** ((np.interp(at, np.arange(count), pitch) - 69.0) / 12.0)
    return frequency, np.interp(at, np.arange(count), loudness).astype(np.float32)


def _pulses(
    rng: np.random.Generator, syllables: list[Syllable], frequency: npt.NDArray[np.float64], frames: int
) -> Audio:
    """Glottal pulses whose spectrum falls by about 10 dB an octave, louder notes brighter; jitter of 0.3 %."""
    jitter = np.repeat(rng.normal(1.0, 0.003, frames // 240 + 1), 240)[:frames]
    turns = np.cumsum(frequency * jitter) / SAMPLE_RATE_HERTZ
    starts = [int(max(0.0, s.note.start_seconds - 0.03) * SAMPLE_RATE_HERTZ) for s in syllables]
    pulses = np.zeros(frames, dtype=np.float32)
    for syllable, start, end in zip(syllables, starts, [*starts[1:], frames], strict=True):
        if end <= start:
            continue
        tilt = 1.45 - 0.35 * syllable.note.velocity
        highest = hertz(syllable.note.pitch + 1.5)

        def glottal(partials: npt.NDArray[np.float64], tilt: float = tilt) -> npt.NDArray[np.float64]:
            return partials**-tilt

        # Phases of a causal decay, as a glottal closure gives, instead of a bare impulse.
        table = wavetable(highest, glottal, -0.5 * np.pi * np.ones(int(HIGHEST_PARTIAL_HERTZ)))
        pulses[start:end] = play_table(table, turns[start:end])
    return pulses


def _through_formants(source: Audio, syllables: list[Syllable], stretch: float) -> Audio:
    """Filter with five gliding parallel resonances and a weak all-pass path that keeps the air above 5 kHz."""
    _, times, spectra = signal.stft(source, SAMPLE_RATE_HERTZ, nperseg=WINDOW, noverlap=WINDOW - HOP)
    starts = np.array([s.note.start_seconds for s in syllables])
    knots = np.array([FORMANTS_HERTZ[s.vowel] for s in syllables]) * stretch
    frequency = np.fft.rfftfreq(WINDOW, 1 / SAMPLE_RATE_HERTZ)[:, None]
    response = np.full(spectra.shape, 0.05, dtype=np.complex64)
    for index in range(len(BANDWIDTHS_HERTZ)):
        glide_at = np.stack((starts + 0.02, starts + 0.07), axis=1).ravel()
        previous = np.concatenate((knots[:1, index], knots[:-1, index]))
        glide_to = np.stack((previous, knots[:, index]), axis=1).ravel()
        centre = np.interp(times, glide_at, glide_to)[None, :]
        width = BANDWIDTHS_HERTZ[index] * (1.0 + centre / 4_000.0)
        sign = -1.0 if index % 2 else 1.0
        resonance = (1j * frequency * width) / (centre**2 - frequency**2 + 1j * frequency * width)
        response += (sign * FORMANT_LEVELS[index] * resonance).astype(np.complex64)
    _, shaped = signal.istft(spectra * response, SAMPLE_RATE_HERTZ, nperseg=WINDOW, noverlap=WINDOW - HOP)
    return np.asarray(shaped[: source.size], dtype=np.float32)


def _consonants_and_breaths(rng: np.random.Generator, syllables: list[Syllable], frames: int) -> Audio:
    """Fricatives and bursts just before their vowel; a breath before each phrase."""
    noises = np.zeros(frames, dtype=np.float32)
    last_end = -1.0
    for syllable in syllables:
        note = syllable.note
        if note.start_seconds - last_end > 0.35:
            time = seconds_axis(0.25)
            breath = band_noise(rng, time.size, 700.0, 12_000.0) * np.sin(np.pi * time / 0.25) ** 2 * 0.025
            _add(noises, breath.astype(np.float32), note.start_seconds - 0.3)
        if syllable.consonant in NOISES:
            low, high, seconds, level = NOISES[syllable.consonant]
            time = seconds_axis(seconds * 1.5)
            shape = np.clip(time / 0.01, 0, 1) * np.clip((seconds * 1.5 - time) / (seconds * 0.7), 0, 1)
            noise = band_noise(rng, time.size, low, high) * shape * level * note.velocity
            _add(noises, noise.astype(np.float32), note.start_seconds - seconds)
        last_end = note.start_seconds + note.duration_seconds
    return noises


def _add(target: Audio, sound: Audio, start_seconds: float) -> None:
    start = max(0, int(start_seconds * SAMPLE_RATE_HERTZ))
    part = sound[: max(0, target.size - start)]
    target[start : start + part.size] += part
