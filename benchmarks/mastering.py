"""Our master beside what one would use instead: a ceiling that holds, clean bass, punch at equal loudness, speed.

    python -m benchmarks.mastering [--quick] [--json] [--data DIR]

- *Ceiling*: six hostile signals (full-scale squares, clicks, noise bursts, random signs, inter-sample peaks of 6 dB, DC
  steps), driven by 6 dB into a ceiling of -1 dBTP at 44.1, 48 and 96 kHz; the highest of the contract's three
  true-peak meters, worst signal. Goal: at most 0.05 dB over. Beside pedalboard's BrickwallLimiter(true_peak=True).
- *Bass*: harmonic distortion of a 50 Hz sine driven by 6 dB. Goal: at most -60 dB. Beside matchering's limiter.
- *Punch of the limiter*: drums over a chord, driven by 6 dB into BrickwallLimiter and by as much into ours as gives the
  same loudness; mean peak of a stroke over the level before it. Goal: at least 0.3 dB more.
- *Drums at -10 LUFS*: every song, after the equalisers of our master, through the rest of our `loud` master, through
  matchering's limiter and through BrickwallLimiter, at equal loudness (ours is brought down where theirs cannot
  follow) and equal true peak (their ceilings lowered until they hold -1 dBTP, as ours does). Onsets are the song's.
  Crest of drums: mean peak of the onsets over the RMS of the drums, as the `spectral` engine separates them from each
  result. Sharpness: level above 1.5 kHz in the 10 ms from an onset over that from 30 to 5 ms before. Goals: higher.
- *Speed*: CPU seconds of the streaming intent over seconds of audio, one core. Goal: at most 0.04.

Rows in decibels show the difference as their ratio's stand-in: `ratio` is ours minus theirs there.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pedalboard
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from benchmarks import rows
from benchmarks.rows import Row
from outboard.audio.analysis import analyze
from outboard.audio.chain import Chain
from outboard.audio.files import decode, to_stereo
from outboard.audio.limiter import LimiterSettings, reduction_curve, render
from outboard.audio.loudness import integrated_loudness
from outboard.audio.peak_envelope import peak_envelope
from outboard.audio.spool import Spool, default_directory
from outboard.audio.true_peak import measure_true_peak
from services.master.deliver import Target, deliver
from services.master.master import master
from services.master.plan import plan
from services.master.settings import DeliverableSpec, MasterSettings
from services.separator.engines import SeparationSettings
from services.separator.separate import separate

Audio = NDArray[np.float32]
Limit = Callable[[Audio, float], Audio]

RATE_HERTZ = 48000
CEILING_DBTP = -1.0
LOUD_LUFS = -10.0
DRIVE_DB = 6.0
GOALS = {"over_db": 0.05, "thd_db": -60.0, "punch_db": 0.3, "real_time": 0.04}
MOST_DRIVE_DB = 15.0
EXCERPT_SECONDS, QUICK_SECONDS = 30.0, 15.0
TONE = ("tone", "moments", "field")
HOSTILE = ("square", "clicks", "noise_bursts", "signs", "inter_sample_6_db", "dc_steps")


def hostile(name: str, rate: int) -> Audio:
    """Two seconds of what breaks limiters, stereo."""
    time_s = np.arange(2 * rate) / rate
    generator = np.random.default_rng(5)
    mono = np.zeros(time_s.size)
    if name == "square":
        mono = np.sign(np.sin(2 * np.pi * 997.0 * time_s + 0.1))
    elif name == "clicks":
        mono[::4801], mono[1::9001] = 1.0, -1.0
    elif name == "noise_bursts":
        mono = generator.standard_normal(time_s.size) * (np.sin(2 * np.pi * 4.0 * time_s) > 0)
    elif name == "signs":
        mono = np.sign(generator.standard_normal(time_s.size))
    elif name == "inter_sample_6_db":
        for centre in range(1000, time_s.size - 100, 5000):
            mono[centre - 30 : centre + 30] = np.sign(np.sinc(np.arange(-30, 30) + 0.5))
    else:
        mono = np.where(time_s % 1.0 > 0.5, 1.0, -1.0)
    return np.stack([mono, np.roll(mono, 3)]).astype(np.float32)


def ours(audio: Audio, gain_db: float, rate: int = RATE_HERTZ, *, guarded: bool = False) -> Audio:
    """Our limiter; where asked for, as a delivered float file with its guard."""
    with Spool(1) as spool:
        peaks = peak_envelope(audio, spool)
    curve = reduction_curve(peaks, rate, gain_db, LimiterSettings(ceiling_dbtp=CEILING_DBTP), Spool)
    limited = np.concatenate(list(render(audio, gain_db, curve)), axis=1)
    if not guarded:
        return limited
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        spec = DeliverableSpec(sample_rate_hertz=rate, bit_depth="32f")
        target = Target(spec, Path(folder), CEILING_DBTP, None, 0, None, Spool)
        return np.array(deliver(limited, rate, target, lambda fraction: None).decoded)


def brickwall(audio: Audio, gain_db: float, rate: int = RATE_HERTZ, ceiling_db: float = CEILING_DBTP) -> Audio:
    """pedalboard's limiter at its defaults, true peak on."""
    limiter = pedalboard.BrickwallLimiter(ceiling_db=ceiling_db, true_peak=True)
    return np.asarray(limiter((audio * 10 ** (gain_db / 20)).astype(np.float32), rate))


def matchering_limiter(audio: Audio, gain_db: float, ceiling_db: float = CEILING_DBTP) -> Audio:
    """matchering's own limiter at its defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import matchering
        from matchering.limiter import limit
    config = matchering.Config(internal_sample_rate=RATE_HERTZ, threshold=10 ** (ceiling_db / 20))
    driven = (audio.T * 10 ** (gain_db / 20)).astype(np.float64)
    return np.ascontiguousarray(limit(driven, config).T, dtype=np.float32)


def at_loudness(limit: Limit, audio: Audio, wanted_lufs: float) -> Audio:
    """Driven until it is as loud, or as hard as makes sense."""
    gain_db = wanted_lufs - _lufs(audio)
    for _ in range(10):
        limited = limit(audio, gain_db)
        missing = wanted_lufs - _lufs(limited)
        if abs(missing) < 0.02 or gain_db >= MOST_DRIVE_DB:
            break
        gain_db = min(gain_db + 1.2 * missing, MOST_DRIVE_DB)
    return limited


def theirs_within(limit: Callable[..., Audio], audio: Audio, wanted_lufs: float) -> Audio:
    """Another limiter's result at a loudness, its ceiling lowered until the true peak is what it promised."""
    ceiling = CEILING_DBTP
    for _ in range(3):
        limited = at_loudness(partial(limit, ceiling_db=ceiling), audio, wanted_lufs)
        peak = measure_true_peak(limited).true_peak_dbtp
        if peak is None or peak <= CEILING_DBTP + GOALS["over_db"]:
            break
        ceiling -= peak - CEILING_DBTP
    return limited


def ceiling_rows(*, quick: bool) -> Iterator[Row]:
    """The worst overshoot at each rate."""
    for rate in (48000,) if quick else (44100, 48000, 96000):
        over = {}
        for limit in (partial(ours, rate=rate, guarded=True), partial(brickwall, rate=rate)):
            peaks = [measure_true_peak(limit(hostile(name, rate), DRIVE_DB)).true_peak_dbtp for name in HOSTILE]
            over[limit.func] = max(peak for peak in peaks if peak is not None) - CEILING_DBTP
        own, theirs = over[ours], over[brickwall]
        yield Row(
            f"over the ceiling, {rate} Hz / BrickwallLimiter",
            own, theirs, own - theirs, "dB", GOALS["over_db"], own <= GOALS["over_db"],
        )  # fmt: skip


def bass_row() -> Row:
    """Harmonic distortion of a driven 50 Hz sine."""
    time_s = np.arange(3 * RATE_HERTZ) / RATE_HERTZ
    sine = np.tile(10 ** (CEILING_DBTP / 20) * np.sin(2 * np.pi * 50.0 * time_s), (2, 1)).astype(np.float32)
    own, theirs = (_distortion_db(limit(sine, DRIVE_DB)) for limit in (ours, matchering_limiter))
    name = "distortion of 50 Hz driven by 6 dB / matchering's"
    return Row(name, own, theirs, own - theirs, "dB", GOALS["thd_db"], own <= GOALS["thd_db"])


def drum_loop() -> tuple[Audio, list[int]]:
    """Kicks and noise strokes in turn, four a second, over a chord; and where they begin."""
    generator = np.random.default_rng(3)
    time_s = np.arange(10 * RATE_HERTZ) / RATE_HERTZ
    mono = np.zeros(time_s.size)
    for hertz in (110.0, 220.0, 277.0, 330.0, 440.0):
        mono += 0.08 * np.sin(2 * np.pi * hertz * time_s)
    begins = [round(k * RATE_HERTZ / 4) for k in range(1, 36)]
    after = np.arange(RATE_HERTZ // 5) / RATE_HERTZ
    for number, begin in enumerate(begins):
        kick = np.sin(2 * np.pi * 50.0 * after)
        stroke = kick if number % 2 else 0.4 * generator.standard_normal(after.size)
        mono[begin : begin + after.size] += stroke * np.exp(-after * 20) * (1 - np.exp(-after * 2000))
    return np.tile(mono / np.abs(mono).max(), (2, 1)).astype(np.float32), begins


def punch_row() -> Row:
    """How far strokes stand above what is before them, at equal loudness."""
    audio, begins = drum_loop()
    theirs = brickwall(audio, DRIVE_DB + CEILING_DBTP)
    own = at_loudness(ours, audio, _lufs(theirs))
    ours_db, theirs_db = (_punch_db(result, begins) for result in (own, theirs))
    more = ours_db - theirs_db
    goal = GOALS["punch_db"]
    return Row("punch of drums / BrickwallLimiter", ours_db, theirs_db, more, "dB", goal, more >= goal)


def song_rows(name: str, song: Audio) -> Iterator[Row]:
    """Drums and sharpness of one song at -10 LUFS."""
    begins = onsets(song)
    song = toned(song)
    masters: dict[float, Audio] = {}
    for label, limit in (("matchering's limiter", matchering_limiter), ("BrickwallLimiter", brickwall)):
        theirs = theirs_within(limit, song, LOUD_LUFS)
        wanted = min(LOUD_LUFS, round(_lufs(theirs), 1))
        if wanted not in masters:
            masters[wanted] = mastered(song, wanted)
        own = masters[wanted]
        where = f"{name} at {wanted:.1f} LUFS / {label}"
        for what, measure in (("crest of drums", drum_crest_db), ("sharpness", sharpness_db)):
            ours_db, theirs_db = (measure(result, begins) for result in (own, theirs))
            more = ours_db - theirs_db
            yield Row(f"{what}, {where}", ours_db, theirs_db, more, "dB", 0.0, more >= 0.0)


def toned(song: Audio) -> Audio:
    """The song after the equalisers and the stereo field of our master: what all limiters are given."""
    decided = plan(analyze(song, RATE_HERTZ), MasterSettings(intent="loud"))
    chain = Chain((slot for slot in decided.chain if slot.label in TONE), RATE_HERTZ)
    late = chain.latency_frames
    return chain.process(np.concatenate([song, np.zeros((2, late), np.float32)], axis=1))[:, late:]


def mastered(song: Audio, wanted_lufs: float) -> Audio:
    """Our loud master without its tone, as the file decodes."""
    analysis = analyze(song, RATE_HERTZ)
    decided = plan(analysis, MasterSettings(intent="loud", target_lufs=wanted_lufs))
    chain = tuple(slot for slot in decided.chain if slot.label not in TONE)
    decided = replace(decided, chain=chain, deliverables=(DeliverableSpec(bit_depth="32f"),))
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        result = master(song, RATE_HERTZ, decided, directory=Path(folder), before=analysis)
        with decode(result.deliverables[0].path, sample_rate_hertz=None) as file:
            return np.array(file.array)


def speed_row(song: Audio) -> Row:
    """CPU seconds of a streaming master over seconds of audio."""
    analysis = analyze(song, RATE_HERTZ)
    decided = plan(analysis, MasterSettings())
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        begin = time.process_time()
        master(song, RATE_HERTZ, decided, directory=Path(folder), before=analysis)
        spent = (time.process_time() - begin) / (song.shape[1] / RATE_HERTZ)
    return Row(
        "streaming intent, CPU over real time", spent, None, None, "", GOALS["real_time"], spent <= GOALS["real_time"]
    )


def onsets(audio: Audio) -> list[int]:
    """Up to two strokes a second, at least 150 ms apart: spectral flux, then the steepest rise of level nearby."""
    hop, size = 240, 1024
    mono = audio.mean(axis=0)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(mono, (size // 2, size)), size)[::hop] * np.hanning(size)
    spectrum = np.log(np.abs(np.fft.rfft(frames, axis=1)) + 1e-3)
    flux = np.concatenate([[0.0], np.maximum(np.diff(spectrum, axis=0), 0.0).mean(axis=1)])
    chosen: list[int] = []
    for index in np.argsort(-flux):
        if len(chosen) >= 2 * mono.size / RATE_HERTZ or flux[index] < 2 * np.median(flux):
            break
        if 40 < index < flux.size - 40 and all(abs(index - other) > 30 for other in chosen):
            chosen.append(int(index))
    return [_steepest(mono, index * hop) for index in sorted(chosen)]


def _steepest(mono: Audio, near: int) -> int:
    power = np.convolve(mono[near - 960 : near + 960] ** 2, np.ones(144) / 144, "same")
    rise = np.log(power[144:] + 1e-7) - np.log(power[:-144] + 1e-7)
    return near - 960 + 72 + int(rise.argmax())


def drum_crest_db(audio: Audio, begins: list[int]) -> float:
    """Mean peak of the drums' onsets over the drums' RMS."""
    blocks = (audio[:, at : at + 65536] for at in range(0, audio.shape[1], 65536))
    parts = separate(blocks, RATE_HERTZ, SeparationSettings(engine="spectral"))
    drums = np.concatenate([part["drums"] for part in parts], axis=1)
    peaks = [float(np.abs(drums[:, begin - 240 : begin + 1440]).max()) for begin in begins]
    return 20 * float(np.log10(np.mean(peaks) / np.sqrt(np.square(drums, dtype=np.float64).mean())))


def sharpness_db(audio: Audio, begins: list[int]) -> float:
    """Mean rise of level above 1.5 kHz at the onsets."""
    high = sosfilt(butter(2, 1500.0, "highpass", fs=RATE_HERTZ, output="sos"), audio.mean(axis=0)) ** 2
    rises = [
        (high[begin - 48 : begin + 480].mean() + 1e-9) / (high[begin - 1440 : begin - 240].mean() + 1e-9)
        for begin in begins
        if begin >= 1440
    ]
    return float(np.mean(10 * np.log10(rises)))


def _punch_db(audio: Audio, begins: list[int]) -> float:
    peaks = np.array([np.abs(audio[:, begin : begin + 1440]).max() for begin in begins])
    levels = np.array([np.sqrt(np.square(audio[:, begin - 3360 : begin - 480]).mean()) for begin in begins])
    return float(np.mean(20 * np.log10(peaks / levels)))


def _distortion_db(audio: Audio) -> float:
    second = audio[0, RATE_HERTZ : 2 * RATE_HERTZ].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(second * np.hanning(RATE_HERTZ))) ** 2
    energy = [float(spectrum[50 * k - 3 : 50 * k + 4].sum()) for k in range(1, 30)]
    return 10 * float(np.log10(sum(energy[1:]) / energy[0]))


def _lufs(audio: Audio) -> float:
    loudness = integrated_loudness(audio, RATE_HERTZ)
    if loudness is None:
        raise ValueError("too quiet or too short to have a loudness")
    return loudness


def songs(data: Path, seconds: float) -> Iterator[tuple[str, Audio]]:
    """An excerpt of every song of the test data, a third of the way in, and the ground truth's mixture."""
    for path in sorted([*(data / "songs").glob("*.mp3"), *(data / "ground_truth").glob("*/mix*.flac")]):
        with decode(path, sample_rate_hertz=RATE_HERTZ) as file:
            start = max(0, min(file.frames // 3, file.frames - round(seconds * RATE_HERTZ)))
            excerpt = np.array(file.array[:, start : start + round(seconds * RATE_HERTZ)], dtype=np.float32)
        yield path.stem, to_stereo(excerpt)


def main() -> int:
    """Prints the rows; 0 where every goal holds."""
    options = rows.parser(__doc__)
    options.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    given = options.parse_args()
    found: list[Row] = []

    def tell(row: Row) -> None:
        found.append(row)
        rows.show([row], as_json=given.json)

    for row in ceiling_rows(quick=given.quick):
        tell(row)
    tell(bass_row())
    tell(punch_row())
    longest = np.zeros((2, 0), dtype=np.float32)
    for name, song in songs(given.data, QUICK_SECONDS if given.quick else EXCERPT_SECONDS):
        for row in song_rows(name, song):
            tell(row)
        longest = np.concatenate([longest, song], axis=1)
    tell(speed_row(longest))
    return rows.exit_code(found)


if __name__ == "__main__":
    sys.exit(main())
