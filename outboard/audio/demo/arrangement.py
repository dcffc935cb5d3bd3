"""What the demo band plays: tempo, key, sections and every note, drawn from one seed.

The arrangement is pure data (seconds and MIDI pitches); the instruments turn it into sound. It is varied enough over
seeds (tempo 80 to 150, major and minor, eight progressions, five drum patterns, low and high voices) that a figure
measured over several seeds says something about songs, not about one song.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 10)
# Scale degrees (0 = tonic) of one chord per bar.
MAJOR_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 0, 4), (1, 4, 0, 5))
MINOR_PROGRESSIONS = ((0, 5, 2, 6), (0, 3, 6, 2), (0, 6, 5, 6), (0, 3, 0, 4), (5, 6, 0, 0))
# Sixteenths of one bar, as "kick / snare / hat" strings: x accent, o soft, . silent.
DRUM_PATTERNS = (
    ("x.......x.x.....", "....x.......x...", "x.o.x.o.x.o.x.o."),
    ("x...x...x...x...", "....x.......x...", "..x...x...x...x."),
    ("x..o..x...x..o..", "....x..o....x..o", "xoxoxoxoxoxoxoxo"),
    ("x.....x...x.....", "........x.......", "x.o.x.o.x.o.x.oo"),
    ("x..x....x.x.....", "....x.......x..o", "x...x...x...x..."),
)
FILL = ("x.......x...x...", "....x.x.x.xxx.xx", "x.......x.......")
VOWELS = ("a", "e", "i", "o", "u", "uh")
CONSONANTS = ("s", "sh", "t", "k", "d", "m", "l", "")


@dataclass(frozen=True)
class Section:
    """A run of bars of one kind; `energy` from 0 to 1 drives velocities and density."""

    kind: str
    start_bar: int
    bars: int
    energy: float
    sung: bool


@dataclass(frozen=True)
class Hit:
    """One drum stroke."""

    drum: str
    start_seconds: float
    velocity: float


@dataclass(frozen=True)
class Note:
    """One pitched note; `pitch` is a MIDI number and may be fractional."""

    start_seconds: float
    duration_seconds: float
    pitch: float
    velocity: float


@dataclass(frozen=True)
class Syllable:
    """One sung note with its vowel and the consonant before it ("" for none)."""

    note: Note
    vowel: str
    consonant: str


@dataclass(frozen=True)
class Arrangement:
    """All that is played in `duration_seconds`."""

    duration_seconds: float
    tempo_bpm: float
    root_pitch: int
    mode: str
    sections: tuple[Section, ...]
    hits: tuple[Hit, ...]
    bass: tuple[Note, ...]
    chords: tuple[tuple[Note, ...], ...]
    melody: tuple[Syllable, ...]
    high_voice: bool


def arrange(rng: np.random.Generator, duration_seconds: float) -> Arrangement:
    """Draw a whole arrangement of `duration_seconds` from `rng`."""
    tempo_bpm = float(rng.uniform(80.0, 150.0))
    mode = "minor" if rng.random() < 0.5 else "major"
    root_pitch = int(rng.integers(40, 52))
    progressions = MINOR_PROGRESSIONS if mode == "minor" else MAJOR_PROGRESSIONS
    progression = progressions[int(rng.integers(len(progressions)))]
    bar_seconds = 240.0 / tempo_bpm
    sections = _sections(rng, max(1, int(np.ceil(duration_seconds / bar_seconds))))
    grid = _Grid(bar_seconds, swing=float(rng.choice((0.0, 0.0, 0.04))), rng=rng)
    high_voice = bool(rng.random() < 0.5)
    return Arrangement(
        duration_seconds=duration_seconds,
        tempo_bpm=tempo_bpm,
        root_pitch=root_pitch,
        mode=mode,
        sections=sections,
        hits=_drum_hits(rng, grid, sections),
        bass=_bass_line(rng, grid, sections, root_pitch, mode, progression),
        chords=_chords(rng, grid, sections, root_pitch, mode, progression),
        melody=_melody(rng, grid, sections, root_pitch, mode, progression, high_voice),
        high_voice=high_voice,
    )


@dataclass
class _Grid:
    """Places sixteenths in time, with swing and the looseness of human hands."""

    bar_seconds: float
    swing: float
    rng: np.random.Generator

    def at(self, bar: int, sixteenth: float, looseness_seconds: float = 0.004) -> float:
        late = self.swing * self.bar_seconds / 4 if int(sixteenth) % 4 == 2 else 0.0
        jitter = float(np.clip(self.rng.normal(0.0, looseness_seconds), -0.012, 0.012))
        return max(0.0, (bar + sixteenth / 16.0) * self.bar_seconds + late + jitter)


def _sections(rng: np.random.Generator, bars: int) -> tuple[Section, ...]:
    """Verse, chorus and an instrumental break in turn; every third part of a song or so has no voice."""
    length = 4 if bars >= 11 else 2
    order = ("verse", "chorus", "break", "verse", "chorus") if rng.random() < 0.5 else ("break", "verse", "chorus")
    energy = {"verse": 0.55, "chorus": 1.0, "break": 0.7}
    found: list[Section] = []
    start = 0
    while start < bars:
        kind = order[len(found) % len(order)]
        size = min(length if kind != "break" else max(1, length // 2), bars - start)
        found.append(Section(kind, start, size, energy[kind], kind != "break"))
        start += size
    return tuple(found)


def _drum_hits(rng: np.random.Generator, grid: _Grid, sections: tuple[Section, ...]) -> tuple[Hit, ...]:
    pattern = DRUM_PATTERNS[int(rng.integers(len(DRUM_PATTERNS)))]
    ride_in_chorus = bool(rng.random() < 0.5)
    hits: list[Hit] = []
    for section in sections:
        for bar in range(section.start_bar, section.start_bar + section.bars):
            is_last = bar == section.start_bar + section.bars - 1
            cymbal = "ride" if section.kind == "chorus" and ride_in_chorus else "hat"
            if bar == section.start_bar and section.kind == "chorus":
                hits.append(Hit("crash", grid.at(bar, 0), 0.8))
            hits += _bar_hits(rng, grid, FILL if is_last and section.bars > 1 else pattern, bar, section, cymbal)
    return tuple(hits)


def _bar_hits(
    rng: np.random.Generator,
    grid: _Grid,
    pattern: tuple[str, str, str],
    bar: int,
    section: Section,
    cymbal: str,
) -> list[Hit]:
    hits = []
    for drum, steps in zip(("kick", "snare", cymbal), pattern, strict=True):
        for step, mark in enumerate(steps):
            if mark == ".":
                continue
            played = drum
            if pattern is FILL and drum == "snare" and step >= 8:
                played = ("snare", "tom_high", "tom_low")[min(2, (step - 8) // 3)]
            elif drum == "hat" and step % 16 == 14 and rng.random() < 0.3:
                played = "open_hat"
            level = (0.9 if mark == "x" else 0.45) * (0.7 + 0.3 * section.energy)
            hits.append(Hit(played, grid.at(bar, step, 0.003), float(np.clip(level * rng.normal(1.0, 0.1), 0.1, 1.0))))
    return hits


def scale_pitch(root_pitch: int, mode: str, degree: int) -> int:
    """MIDI pitch of a scale degree (0 = root; may be negative or beyond one octave)."""
    scale = MINOR if mode == "minor" else MAJOR
    octave, step = divmod(degree, 7)
    return root_pitch + 12 * octave + scale[step]


def _bass_line(
    rng: np.random.Generator,
    grid: _Grid,
    sections: tuple[Section, ...],
    root_pitch: int,
    mode: str,
    progression: tuple[int, ...],
) -> tuple[Note, ...]:
    rhythms = ((0, 6, 8, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 6, 8, 11), (0, 8, 12), (0, 4, 7, 10, 12))
    rhythm = rhythms[int(rng.integers(len(rhythms)))]
    notes = []
    for section in sections:
        for bar in range(section.start_bar, section.start_bar + section.bars):
            degree = progression[bar % len(progression)]
            for start, end in zip(rhythm, (*rhythm[1:], 16), strict=True):
                moved = degree + (4 if start >= 12 and rng.random() < 0.3 else 0)
                pitch = scale_pitch(root_pitch - 12, mode, moved)
                while pitch > 47:
                    pitch -= 12
                while pitch < 28:
                    pitch += 12
                length = (end - start) / 16 * grid.bar_seconds * float(rng.uniform(0.7, 0.97))
                velocity = float(np.clip((0.75 + 0.25 * section.energy) * rng.normal(0.9, 0.06), 0.3, 1.0))
                notes.append(Note(grid.at(bar, start), length, pitch, velocity))
    return tuple(notes)


def _chords(
    rng: np.random.Generator,
    grid: _Grid,
    sections: tuple[Section, ...],
    root_pitch: int,
    mode: str,
    progression: tuple[int, ...],
) -> tuple[tuple[Note, ...], ...]:
    rhythms = ((0,), (0, 8), (0, 6, 12), (0, 4, 8, 12), (0, 3, 6, 10, 12))
    rhythm = rhythms[int(rng.integers(len(rhythms)))]
    with_seventh = bool(rng.random() < 0.4)
    chords = []
    for section in sections:
        for bar in range(section.start_bar, section.start_bar + section.bars):
            degree = progression[bar % len(progression)]
            steps = (0, 2, 4, 6) if with_seventh else (0, 2, 4)
            pitches = [scale_pitch(root_pitch + 12, mode, degree + step) for step in steps]
            pitches = sorted(pitch - 12 if pitch > root_pitch + 24 else pitch for pitch in pitches)
            for start, end in zip(rhythm, (*rhythm[1:], 16), strict=True):
                length = (end - start) / 16 * grid.bar_seconds * 0.95
                velocity = float(np.clip((0.6 + 0.4 * section.energy) * rng.normal(0.85, 0.07), 0.2, 1.0))
                chords.append(tuple(Note(grid.at(bar, start), length, pitch, velocity) for pitch in pitches))
    return tuple(chords)


def _melody(
    rng: np.random.Generator,
    grid: _Grid,
    sections: tuple[Section, ...],
    root_pitch: int,
    mode: str,
    progression: tuple[int, ...],
    high_voice: bool,
) -> tuple[Syllable, ...]:
    """Two-bar phrases in eighths: chord tones on the beats, steps between them, a long last note and a breath."""
    centre = 67 if high_voice else 55
    degree = 7 * round((centre - root_pitch) / 12)
    syllables: list[Syllable] = []
    for section in sections:
        if not section.sung:
            continue
        lift = 2 if section.kind == "chorus" else 0
        for phrase_bar in range(section.start_bar, section.start_bar + section.bars, 2):
            steps = 32 if phrase_bar + 1 < section.start_bar + section.bars else 16
            position = int(rng.choice((0, 2, 4)))
            while position < steps - 4:
                is_closing = position >= steps - 10
                length = int(rng.choice((6, 8))) if is_closing else int(rng.choice((2, 2, 2, 4, 4, 6)))
                length = min(length, steps - 2 - position)
                bar = phrase_bar + position // 16
                degree += int(rng.choice((-2, -1, -1, 0, 1, 1, 2)))
                if position % 8 == 0 or is_closing:
                    degree = _nearest_chord_tone(degree, progression[bar % len(progression)])
                pitch = scale_pitch(root_pitch, mode, degree + lift)
                degree += 2 if pitch < centre - 6 else (-2 if pitch > centre + 8 else 0)
                gap = 0.94 if is_closing else float(rng.uniform(0.85, 1.0))
                velocity = float(np.clip((0.65 + 0.35 * section.energy) * rng.normal(0.9, 0.08), 0.3, 1.0))
                start = grid.at(bar, position % 16, 0.008)
                note = Note(start, length / 16 * grid.bar_seconds * gap, pitch, velocity)
                syllables.append(Syllable(note, str(rng.choice(VOWELS)), str(rng.choice(CONSONANTS))))
                position += length
                if is_closing:
                    break
    return tuple(syllables)


def _nearest_chord_tone(degree: int, chord_root: int) -> int:
    tones = [chord_root + step + 7 * octave for octave in range(-2, 4) for step in (0, 2, 4)]
    return min(tones, key=lambda tone: abs(tone - degree))
