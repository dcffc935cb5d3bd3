"""Our master beside what one would use instead: a ceiling that holds, clean bass, punch, loudness that is met, flat
memory, speed.

    python -m benchmarks.mastering [--quick] [--json] [--data DIR] [--only ceiling,punch,songs,loudness,memory,speed]

- *Ceiling*: six hostile signals (full-scale squares, clicks, noise bursts, random signs, inter-sample peaks of 6 dB, DC
  steps), driven by 6 dB into a ceiling of -1 dBTP at 44.1, 48 and 96 kHz; the highest of the contract's three
  true-peak meters, worst signal. Goal: at most 0.05 dB over. Beside pedalboard's BrickwallLimiter(true_peak=True).
- *Bass*: harmonic distortion of a 50 Hz sine driven by 6 dB, through the limiter of quiet masters and that of loud
  ones. Goal: at most -60 dB. Beside matchering's limiter.
- *Punch*: drums over a chord, driven by 6 dB into BrickwallLimiter and by as much into ours as gives the same loudness;
  mean peak of a stroke over the level before it. Goal: at least 0.3 dB more by the limiter at its defaults, and by
  what a loud master does (onsets lifted, then its limiter); that limiter alone is shown.
- *Songs at -10 LUFS*: every song, after the equalisers of our master, through the rest of our `loud` master, through
  matchering's limiter and through BrickwallLimiter, at equal loudness (ours is brought down where theirs cannot
  follow) and equal true peak (their ceilings lowered until they hold -1 dBTP, as ours does). Onsets are the song's.
  Crest of drums: mean peak of the onsets over the RMS of the drums, as the `spectral` engine separates them from each
  result. Sharpness: level above 1.5 kHz in the 10 ms from an onset over that from 30 to 5 ms before. Goals: higher.
- *Loudness*, *memory*: see `benchmarks.mastering_rounds`.
- *Speed*: CPU seconds of the streaming intent over seconds of audio, one core. Goal: at most 0.04.

Rows in decibels show the difference as their ratio's stand-in: `ratio` is ours minus theirs there.
"""

from __future__ import annotations

import os
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

from benchmarks import rows
from benchmarks.hostile import HOSTILE, hostile
from benchmarks.mastering_measures import (
    RATE_HERTZ,
    Audio,
    distortion_db,
    drum_crest_db,
    drum_loop,
    lufs,
    onsets,
    punch_db,
    sharpness_db,
    songs,
)
from benchmarks.mastering_rounds import loudness_rows, memory_row, render_child
from benchmarks.rows import Row
from outboard.audio.analysis import Analysis, analyze
from outboard.audio.chain import Chain
from outboard.audio.files import decode
from outboard.audio.limiter import LimiterSettings, reduction_curve, render
from outboard.audio.peak_envelope import peak_envelope
from outboard.audio.spool import Spool, default_directory
from outboard.audio.true_peak import measure_true_peak
from services.master.deliver import Target, deliver
from services.master.levelling import limiter_settings
from services.master.master import master
from services.master.plan import plan
from services.master.settings import DeliverableSpec, Limiter, MasterPlan, MasterSettings

Limit = Callable[[Audio, float], Audio]

CEILING_DBTP = -1.0
LOUD_LUFS = -10.0
DRIVE_DB = 6.0
GOALS = {"over_db": 0.05, "thd_db": -60.0, "punch_db": 0.3, "real_time": 0.04}
MOST_DRIVE_DB = 15.0
EXCERPT_SECONDS, QUICK_SECONDS = 30.0, 15.0
TONE = ("tone", "moments", "field")
PARTS = ("ceiling", "punch", "songs", "loudness", "memory", "speed")


def ours(
    audio: Audio, gain_db: float, rate: int = RATE_HERTZ, *, guarded: bool = False, as_set: Limiter | None = None
) -> Audio:
    """Our limiter; where asked for, as a delivered float file with its guard, or as a plan sets it."""
    with Spool(1) as spool:
        peaks = peak_envelope(audio, spool)
    settings = LimiterSettings(ceiling_dbtp=CEILING_DBTP)
    if as_set is not None:
        settings = replace(
            limiter_settings(MasterPlan("loud", "chain", CEILING_DBTP, limiter=as_set)), ceiling_dbtp=CEILING_DBTP
        )
    curve = reduction_curve(peaks, rate, gain_db, settings, Spool)
    limited = np.concatenate(list(render(audio, gain_db, curve)), axis=1)
    if not guarded:
        return limited
    with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
        spec = DeliverableSpec(sample_rate_hertz=rate, bit_depth="32f")
        target = Target(spec, Path(folder), CEILING_DBTP, settings, None, 0, None, Spool)
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
    gain_db = wanted_lufs - lufs(audio)
    for _ in range(10):
        limited = limit(audio, gain_db)
        missing = wanted_lufs - lufs(limited)
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


def loud_limiter(analysis: Analysis) -> Limiter:
    """As a loud master of that song sets it."""
    return plan(analysis, MasterSettings(intent="loud", target_lufs=LOUD_LUFS)).limiter


def bass_rows() -> Iterator[Row]:
    """Harmonic distortion of a driven 50 Hz sine."""
    time_s = np.arange(3 * RATE_HERTZ) / RATE_HERTZ
    sine = np.tile(10 ** (CEILING_DBTP / 20) * np.sin(2 * np.pi * 50.0 * time_s), (2, 1)).astype(np.float32)
    theirs = distortion_db(matchering_limiter(sine, DRIVE_DB))
    for name, as_set in (("limiter", None), ("loud masters' limiter", loud_limiter(analyze(sine, RATE_HERTZ)))):
        own = distortion_db(ours(sine, DRIVE_DB, as_set=as_set))
        told = f"distortion of 50 Hz driven by 6 dB, {name} / matchering's"
        yield Row(told, own, theirs, own - theirs, "dB", GOALS["thd_db"], own <= GOALS["thd_db"])


def punch_rows() -> Iterator[Row]:
    """How far strokes stand above what is before them, at equal loudness."""
    audio, begins = drum_loop()
    theirs = brickwall(audio, DRIVE_DB + CEILING_DBTP)
    theirs_db, goal = punch_db(theirs, begins), GOALS["punch_db"]
    analysis = analyze(audio, RATE_HERTZ)
    loud = partial(ours, as_set=loud_limiter(analysis))
    decided = plan(analysis, MasterSettings(intent="loud", target_lufs=LOUD_LUFS))
    lifted = Chain((slot for slot in decided.chain if slot.label == "punch"), RATE_HERTZ).process(audio)
    for name, limit, song, judged in (
        ("limiter", ours, audio, True),
        ("loud masters' limiter alone", loud, audio, False),
        ("loud masters' onsets and limiter", loud, lifted, True),
    ):
        ours_db = punch_db(at_loudness(limit, song, lufs(theirs)), begins)
        more = ours_db - theirs_db
        told = f"punch of drums, {name} / BrickwallLimiter"
        yield Row(told, ours_db, theirs_db, more, "dB", goal if judged else None, more >= goal if judged else None)


def song_rows(name: str, song: Audio) -> Iterator[Row]:
    """Drums and sharpness of one song at -10 LUFS."""
    begins = onsets(song)
    song = toned(song)
    masters: dict[float, Audio] = {}
    for label, limit in (("matchering's limiter", matchering_limiter), ("BrickwallLimiter", brickwall)):
        theirs = theirs_within(limit, song, LOUD_LUFS)
        wanted = min(LOUD_LUFS, round(lufs(theirs), 1))
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


def main() -> int:
    """Prints the rows; 0 where every goal holds."""
    options = rows.parser(__doc__)
    data = Path(os.environ.get("OUTBOARD_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    options.add_argument("--data", type=Path, default=data, help="folder with songs/ and ground_truth/")
    options.add_argument("--only", default=",".join(PARTS), help="some of the parts")
    options.add_argument("--child", nargs=2, metavar=("SONG", "FOLDER"), help="for itself")
    given = options.parse_args()
    if given.child:
        render_child(*map(Path, given.child))
        return 0
    found: list[Row] = []
    for row in _all_rows(given.data, set(given.only.split(",")), quick=given.quick):
        found.append(row)
        rows.show([row], as_json=given.json)
    return rows.exit_code(found)


def _all_rows(data: Path, parts: set[str], *, quick: bool) -> Iterator[Row]:
    if unknown := parts - set(PARTS):
        raise SystemExit(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    if "ceiling" in parts:
        yield from ceiling_rows(quick=quick)
    if "punch" in parts:
        yield from bass_rows()
        yield from punch_rows()
    longest = np.zeros((2, 0), dtype=np.float32)
    for name, song in songs(data, QUICK_SECONDS if quick else EXCERPT_SECONDS):
        if "songs" in parts:
            yield from song_rows(name, song)
        if "loudness" in parts:
            yield from loudness_rows(name, song)
        longest = np.concatenate([longest, song], axis=1)
    if not longest.shape[1]:
        raise SystemExit(f"no songs in {data}")
    if "memory" in parts:
        yield memory_row(longest, quick=quick)
    if "speed" in parts:
        yield speed_row(longest)


if __name__ == "__main__":
    sys.exit(main())
