"""Drums, bass and chord instruments of the demo song: short synthesised notes, placed in time.

Everything is additive or noise based and band-limited by construction, so that stems reach 20 kHz without aliasing.
Notes are rendered once per pitch and round-robin variant, then placed with their own velocity, as a sampler would.
All sounds are float32 at `SAMPLE_RATE_HERTZ`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import signal

from outboard.audio.demo.arrangement import Arrangement, Hit, Note

Audio = npt.NDArray[np.float32]

SAMPLE_RATE_HERTZ = 48_000
TABLE_SIZE = 4096
HIGHEST_PARTIAL_HERTZ = 19_500.0
VARIANTS = 3  # round robins per drum and velocity, so that no two strokes are quite the same


def hertz(pitch: float) -> float:
    """Frequency of a MIDI pitch (69 = 440 Hz)."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))


def seconds_axis(duration_seconds: float) -> Audio:
    """Time of every frame of a sound, float32 seconds."""
    count = max(1, int(duration_seconds * SAMPLE_RATE_HERTZ))
    return (np.arange(count) / SAMPLE_RATE_HERTZ).astype(np.float32)


def band_noise(rng: np.random.Generator, frames: int, low_hertz: float, high_hertz: float) -> Audio:
    """White noise limited to a band (second-order Butterworth edges), unit deviation, shape (frames,)."""
    noise = rng.standard_normal(frames).astype(np.float32)
    sos = signal.butter(2, [low_hertz, min(high_hertz, 23_000.0)], "bandpass", fs=SAMPLE_RATE_HERTZ, output="sos")
    shaped = signal.sosfilt(sos, noise).astype(np.float32)
    return np.asarray(shaped / (float(np.std(shaped)) + 1e-9), dtype=np.float32)


def pan_gains(position: float) -> tuple[float, float]:
    """Constant-power gains for a position from -1 (left) to 1 (right), 0 dB at the centre."""
    angle = (position + 1.0) * np.pi / 4.0
    return float(np.sqrt(2.0) * np.cos(angle)), float(np.sqrt(2.0) * np.sin(angle))


def place(bus: Audio, sound: Audio, start_seconds: float, gain: float, position: float) -> None:
    """Add a mono sound to a stereo bus (2, frames) in place; what lies past the end is cut."""
    start = int(start_seconds * SAMPLE_RATE_HERTZ)
    part = sound[: max(0, bus.shape[1] - start)]
    left, right = pan_gains(position)
    bus[0, start : start + part.size] += np.float32(gain * left) * part
    bus[1, start : start + part.size] += np.float32(gain * right) * part


# ---- drums ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrumKit:
    """The sound of one kit: tuning and decay of each drum."""

    kick_hertz: float
    kick_decay_seconds: float
    snare_hertz: float
    snare_decay_seconds: float
    hat_decay_seconds: float
    hat_low_hertz: float
    hat_position: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> DrumKit:
        """A kit at random."""
        return cls(
            kick_hertz=float(rng.uniform(45.0, 62.0)),
            kick_decay_seconds=float(rng.uniform(0.12, 0.3)),
            snare_hertz=float(rng.uniform(165.0, 230.0)),
            snare_decay_seconds=float(rng.uniform(0.09, 0.2)),
            hat_decay_seconds=float(rng.uniform(0.03, 0.08)),
            hat_low_hertz=float(rng.uniform(5_000.0, 7_500.0)),
            hat_position=float(rng.choice((-1.0, 1.0)) * rng.uniform(0.2, 0.45)),
        )


def kick(rng: np.random.Generator, kit: DrumKit) -> Audio:
    """A sine falling from about five times its pitch in 30 ms, with a beater click."""
    time = seconds_axis(kit.kick_decay_seconds * 4)
    sweep = kit.kick_hertz * (1.0 + 4.0 * np.exp(-time / 0.012) + 0.6 * np.exp(-time / 0.05))
    body = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE_HERTZ) * np.exp(-time / kit.kick_decay_seconds)
    click = band_noise(rng, time.size, 1_500.0, 9_000.0) * np.exp(-time / 0.004) * 0.22
    return np.asarray(np.tanh(1.6 * body) + click, dtype=np.float32)


def snare(rng: np.random.Generator, kit: DrumKit) -> Audio:
    """Two drum modes and the rattle of the wires."""
    time = seconds_axis(kit.snare_decay_seconds * 5)
    bend = 1.0 + 0.25 * np.exp(-time / 0.015)
    phase = 2 * np.pi * np.cumsum(kit.snare_hertz * bend) / SAMPLE_RATE_HERTZ
    modes = np.sin(phase) + 0.6 * np.sin(1.59 * phase) + 0.3 * np.sin(2.3 * phase)
    wires = band_noise(rng, time.size, 1_200.0, 14_000.0) * np.exp(-time / kit.snare_decay_seconds)
    crack = band_noise(rng, time.size, 2_000.0, 18_000.0) * np.exp(-time / 0.006)
    return np.asarray(0.55 * modes * np.exp(-time / 0.07) + 0.32 * wires + 0.35 * crack, dtype=np.float32)


def cymbal(rng: np.random.Generator, low_hertz: float, decay_seconds: float, metal: float) -> Audio:
    """Noise and inharmonic partials of a plate; `metal` is the share of the partials."""
    time = seconds_axis(min(3.0, decay_seconds * 6))
    noise = band_noise(rng, time.size, low_hertz, 19_000.0)
    plate = np.zeros_like(time)
    for frequency in rng.uniform(low_hertz * 0.7, 16_000.0, 24):
        sounding = time[: int(time.size * rng.uniform(0.3, 1.0))]
        plate[: sounding.size] += np.sin(sounding * float(2 * np.pi * frequency) + float(rng.uniform(0, 6.28)))
    plate *= np.exp(-time / decay_seconds)
    strike = band_noise(rng, time.size, 3_000.0, 18_000.0) * np.exp(-time / 0.002)
    body = noise * np.exp(-time / decay_seconds) * (1 - metal) + metal * 0.3 * plate
    return np.asarray(0.25 * body + 0.12 * strike, dtype=np.float32)


def tom(rng: np.random.Generator, frequency_hertz: float) -> Audio:
    """A falling sine with a soft stick noise."""
    time = seconds_axis(0.7)
    sweep = frequency_hertz * (1.0 + 0.5 * np.exp(-time / 0.04))
    body = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE_HERTZ) * np.exp(-time / 0.18)
    stick = band_noise(rng, time.size, 800.0, 9_000.0) * np.exp(-time / 0.008)
    return np.asarray(body + 0.2 * stick, dtype=np.float32)


def drums(rng: np.random.Generator, arrangement: Arrangement, frames: int) -> tuple[Audio, Audio]:
    """The kit, dry: (close microphones, what goes to the room reverb), each (2, frames)."""
    kit = DrumKit.draw(rng)
    recipes: dict[str, tuple[Callable[[], Audio], float, float, float]] = {
        # drum: (recipe, level, position, room send)
        "kick": (lambda: kick(rng, kit), 1.0, 0.0, 0.05),
        "snare": (lambda: snare(rng, kit), 0.85, 0.0, 0.45),
        "hat": (lambda: cymbal(rng, kit.hat_low_hertz, kit.hat_decay_seconds, 0.25), 0.5, kit.hat_position, 0.15),
        "open_hat": (lambda: cymbal(rng, kit.hat_low_hertz, 0.25, 0.25), 0.45, kit.hat_position, 0.2),
        "ride": (lambda: cymbal(rng, 3_500.0, 0.35, 0.45), 0.4, -kit.hat_position, 0.2),
        "crash": (lambda: cymbal(rng, 2_500.0, 0.9, 0.3), 0.75, -0.5 * np.sign(kit.hat_position), 0.3),
        "tom_high": (lambda: tom(rng, 150.0), 0.7, 0.35, 0.4),
        "tom_low": (lambda: tom(rng, 95.0), 0.75, -0.4, 0.4),
    }
    sounds = {name: [make() for _ in range(VARIANTS)] for name, (make, *_) in recipes.items()}
    close = np.zeros((2, frames), dtype=np.float32)
    room = np.zeros((2, frames), dtype=np.float32)
    for index, hit in enumerate(arrangement.hits):
        _, level, position, send = recipes[hit.drum]
        sound = _softened(sounds[hit.drum][index % VARIANTS], hit)
        place(close, sound, hit.start_seconds, level * hit.velocity, position)
        place(room, sound, hit.start_seconds, level * hit.velocity * send, position)
    return close, room


def _softened(sound: Audio, hit: Hit) -> Audio:
    """Soft strokes are duller: a one-pole low-pass mixed in below full velocity."""
    if hit.velocity > 0.75 or hit.drum == "kick":
        return sound
    dull = signal.lfilter([0.45], [1.0, -0.55], sound).astype(np.float32)
    return np.asarray(sound + (0.75 - hit.velocity) * (dull - sound), dtype=np.float32)


# ---- pitched instruments --------------------------------------------------------------------------------------------


def wavetable(frequency_hertz: float, amplitude: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
              phases: npt.NDArray[np.float64]) -> Audio:  # fmt: skip
    """One period of `TABLE_SIZE` frames with partial k at `amplitude(k)`, none above the highest; peak 1."""
    count = int(min(TABLE_SIZE // 2 - 1, max(1, HIGHEST_PARTIAL_HERTZ // frequency_hertz)))
    partials = np.arange(1, count + 1, dtype=np.float64)
    spectrum = np.zeros(TABLE_SIZE // 2 + 1, dtype=np.complex128)
    spectrum[1 : count + 1] = amplitude(partials) * np.exp(1j * phases[:count])
    table = np.fft.irfft(spectrum)
    return np.asarray(table / (np.max(np.abs(table)) + 1e-12), dtype=np.float32)


def play_table(table: Audio, phase_turns: npt.NDArray[np.float64]) -> Audio:
    """Read a period at the given phases (turns, any value) with linear interpolation."""
    position = (phase_turns % 1.0) * TABLE_SIZE
    index = position.astype(np.int32)
    fraction = (position - index).astype(np.float32)
    index %= TABLE_SIZE
    padded = np.append(table, table[0])
    return np.asarray(padded[index] + fraction * (padded[index + 1] - padded[index]), dtype=np.float32)


@dataclass(frozen=True)
class Timbre:
    """A pitched instrument: how bright, how it starts and decays, how many detuned voices play it.

    `tilt` is the exponent of the partials' fall (1 = saw), `even_level` the level of even partials against odd ones;
    brightness falls with `damping_seconds` towards a pure tone; `attack_noise` is pick, hammer or key noise.
    """

    tilt: float
    even_level: float
    attack_seconds: float
    decay_seconds: float
    damping_seconds: float
    attack_noise: float
    detune_cents: tuple[float, ...] = (0.0,)


TIMBRES = {
    "electric_piano": Timbre(1.7, 0.6, 0.003, 1.1, 0.35, 0.06),
    "piano": Timbre(1.35, 0.9, 0.002, 0.9, 0.3, 0.09),
    "guitar": Timbre(1.05, 0.85, 0.002, 0.7, 0.18, 0.14),
    "pluck": Timbre(1.0, 0.7, 0.002, 0.25, 0.12, 0.05),
    "organ": Timbre(1.9, 0.5, 0.012, 30.0, 30.0, 0.03),
    "pad": Timbre(1.25, 0.8, 0.12, 30.0, 30.0, 0.0, (-9.0, 0.0, 8.0)),
    "saw_lead": Timbre(1.0, 1.0, 0.01, 4.0, 1.0, 0.0, (-6.0, 7.0)),
    "finger_bass": Timbre(1.5, 0.8, 0.006, 1.0, 0.2, 0.05),
    "pick_bass": Timbre(1.2, 0.9, 0.003, 0.8, 0.25, 0.1),
    "synth_bass": Timbre(1.0, 0.5, 0.004, 2.0, 0.15, 0.0),
}


def note_sound(rng: np.random.Generator, timbre: Timbre, pitch: float, duration_seconds: float) -> Audio:
    """One note, peak about 1, with a release of 60 ms."""
    time = seconds_axis(duration_seconds + 0.15)
    frequency = hertz(pitch)
    phases = rng.uniform(0, 2 * np.pi, TABLE_SIZE)

    def bright(partials: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(partials % 2 == 0, timbre.even_level, 1.0) * partials**-timbre.tilt

    def dark(partials: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return bright(partials) * np.exp(-(partials - 1) * frequency / 1_400.0)

    tables = wavetable(frequency, bright, phases), wavetable(frequency, dark, phases)
    brightness = np.exp(-time / timbre.damping_seconds).astype(np.float32)
    sound = np.zeros(time.size, dtype=np.float32)
    for cents in timbre.detune_cents:
        turns = time.astype(np.float64) * frequency * 2.0 ** (cents / 1200.0) + rng.random()
        light, dull = play_table(tables[0], turns), play_table(tables[1], turns)
        sound += dull + brightness * (light - dull)
    sound /= len(timbre.detune_cents)
    noise = band_noise(rng, time.size, 1_500.0, 16_000.0) * np.exp(-time / 0.007) * timbre.attack_noise
    release = np.clip((duration_seconds - time) / 0.06 + 1.0, 0.0, 1.0)
    envelope = np.clip(time / timbre.attack_seconds, 0.0, 1.0) * np.exp(-time / timbre.decay_seconds) * release
    return np.asarray((sound + noise) * envelope, dtype=np.float32)


def bass(rng: np.random.Generator, arrangement: Arrangement, frames: int) -> Audio:
    """The bass line, mono in the centre, (2, frames)."""
    timbre = TIMBRES[str(rng.choice(("finger_bass", "pick_bass", "synth_bass")))]
    bus = np.zeros((2, frames), dtype=np.float32)
    play_notes(rng, bus, timbre, arrangement.bass, position=0.0, level=0.8)
    # Amplifier warmth: mild saturation makes upper partials that follow the playing level.
    return np.asarray(np.tanh(1.4 * bus) / 1.4, dtype=np.float32)


def play_notes(
    rng: np.random.Generator, bus: Audio, timbre: Timbre, notes: Sequence[Note], position: float, level: float
) -> None:
    """Render notes onto a bus; equal pitch and length share one rendering, in two variants."""

    @cache
    def rendered(pitch: float, hundredths: int, variant: int) -> Audio:
        del variant
        return note_sound(rng, timbre, pitch, hundredths / 50.0)

    for index, note in enumerate(notes):
        sound = rendered(note.pitch, round(note.duration_seconds * 50.0), index % 2)
        place(bus, sound, note.start_seconds, level * note.velocity, position)


def other(rng: np.random.Generator, arrangement: Arrangement, frames: int) -> Audio:
    """Chord instruments: a main one, a doubled or wide second one, and at times a figure on top; (2, frames)."""
    bus = np.zeros((2, frames), dtype=np.float32)
    flat = [note for chord in arrangement.chords for note in chord]
    side = float(rng.choice((-1.0, 1.0)))
    main = TIMBRES[str(rng.choice(("electric_piano", "piano", "organ")))]
    play_notes(rng, bus, main, flat, position=0.25 * side, level=0.2)
    if rng.random() < 0.6:
        for position in (-0.75, 0.75):  # double-tracked: each side is its own take
            played = [_strummed(rng, note, index) for chord in arrangement.chords for index, note in enumerate(chord)]
            play_notes(rng, bus, TIMBRES["guitar"], played, position=position, level=0.2)
    else:
        pad = [_lengthened(note) for chord in arrangement.chords[::2] for note in chord]
        for position in (-0.7, 0.7):
            play_notes(rng, bus, TIMBRES["pad"], pad, position=position, level=0.13)
    if rng.random() < 0.7:
        figure = str(rng.choice(("pluck", "saw_lead")))
        play_notes(rng, bus, TIMBRES[figure], _figure(arrangement), position=-0.45 * side, level=0.17)
    return bus


def _strummed(rng: np.random.Generator, note: Note, string: int) -> Note:
    late = note.start_seconds + 0.012 * string + float(abs(rng.normal(0.0, 0.006)))
    return Note(late, note.duration_seconds, note.pitch, note.velocity)


def _lengthened(note: Note) -> Note:
    return Note(note.start_seconds, note.duration_seconds * 2.0, note.pitch, note.velocity)


def _figure(arrangement: Arrangement) -> list[Note]:
    """Broken chords in eighths, an octave above, outside the verses (where the voice has the room)."""
    eighth = 30.0 / arrangement.tempo_bpm
    quiet = [
        (section.start_bar * 8 * eighth, (section.start_bar + section.bars) * 8 * eighth)
        for section in arrangement.sections
        if section.kind == "verse"
    ]
    notes = []
    for chord in arrangement.chords:
        if any(start - 0.05 <= chord[0].start_seconds < end - 0.05 for start, end in quiet):
            continue
        for step in range(max(1, int(chord[0].duration_seconds / eighth + 0.2))):
            note = chord[step % len(chord)]
            notes.append(Note(note.start_seconds + step * eighth, eighth * 0.9, note.pitch + 12, note.velocity))
    return notes
