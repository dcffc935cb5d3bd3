"""How the master gets to its loudness, and what it needs: error, renders, limiting, encodes of lossy files, memory.

- *Loudness*: every song to -14, -10 and -8 LUFS as wav, at -10 as flac and mp3 (320 and 128 kbit/s) too. The error, or
  where a guard-rail stopped the loop, how far below the target it is (shown, not judged: rails go first). Goals: 0.1
  LU; at most 4 renders; 3 encodes at 320 kbit/s and 8 at 128; what coding cost at most 0.05 LU.
- *Memory*: peak anonymous memory (RssAnon + RssShmem) of a loud master with every slot of the chain at work, nine
  minutes against three. Goal: at most 1.15 times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import soundfile

from benchmarks import rows
from benchmarks.mastering_measures import RATE_HERTZ, Audio
from benchmarks.memory import anonymous_mebibytes
from benchmarks.rows import Row
from outboard.audio.analysis import analyze
from outboard.audio.files import decode
from outboard.audio.spool import default_directory
from services.master.master import master
from services.master.plan import plan
from services.master.settings import DeliverableReport, DeliverableSpec, MasterSettings

TARGETS_LUFS = (-14.0, -10.0, -8.0)
FILES = (
    DeliverableSpec("wav"),
    DeliverableSpec("flac", "flac", 44100, "16"),
    DeliverableSpec("mp3-320", "mp3", 44100, bitrate_kbps=320),
    DeliverableSpec("mp3-128", "mp3", 44100, bitrate_kbps=128),
)
GOALS = {"error_lu": 0.1, "renders": 4, "320": 3, "128": 8, "coding_lu": 0.05, "memory": 1.15}
EVERY_SLOT = {
    "master.parallel_mix": 0.2, "master.saturation_mix": 0.2, "master.lively_range_lu": 0.0,
    "master.lively_crest_db": 6.0, "master.target_presence_db": -6.0, "master.index_tolerance": 0.0,
    "master.side_limit_db": -20.0,
}  # fmt: skip


def loudness_rows(name: str, song: Audio) -> Iterator[Row]:
    """One song at every target."""
    analysis = analyze(song, RATE_HERTZ)
    for target in TARGETS_LUFS:
        # What is coded is judged where songs are delivered; four files at every target would say the same three times.
        files = FILES if target == TARGETS_LUFS[1] else FILES[:1]
        decided = plan(analysis, MasterSettings(intent="custom", target_lufs=target, deliverables=files))
        with tempfile.TemporaryDirectory(dir=default_directory()) as folder:
            report = master(song, RATE_HERTZ, decided, directory=Path(folder), before=analysis).report
        where = f"{name} to {target:.0f} LUFS"
        lossless = [file for file in report.deliverables if file.spec.container != "mp3"]
        error = max(abs((file.integrated_lufs or 0.0) - target) for file in lossless)
        if report.target_reached:
            yield Row(f"error, {where}", error, None, None, "LU", GOALS["error_lu"], error <= GOALS["error_lu"])
        else:
            yield Row(f"short of it by its rails, {where}", error, None, None, "LU", None, None)
        yield Row(f"mean limiting, {where}", report.average_limiting_db or 0.0, None, None, "dB", None, None)
        goal = GOALS["renders"]
        yield Row(f"renders, {where}", report.renders, None, None, "", goal, report.renders <= goal)
        for file in report.deliverables:
            if file.spec.container == "mp3":
                yield from _coded_rows(file, lossless[0], where)


def _coded_rows(file: DeliverableReport, wav: DeliverableReport, where: str) -> Iterator[Row]:
    rate = str(file.spec.bitrate_kbps)
    yield Row(
        f"encodes at {rate} kbit/s, {where}", file.encodes, None, None, "", GOALS[rate], file.encodes <= GOALS[rate]
    )
    lost = (wav.integrated_lufs or 0.0) - (file.integrated_lufs or 0.0)
    told = f"loudness lost at {rate} kbit/s, {where}"
    yield Row(told, lost, None, None, "LU", GOALS["coding_lu"], lost <= GOALS["coding_lu"])


def memory_row(song: Audio, *, quick: bool) -> Row:
    """Nine minutes (quick: four) against three, each in a process of its own."""
    minutes = 4.0 if quick else 9.0
    peaks = []
    with tempfile.TemporaryDirectory(dir=default_directory()) as name:
        for length in (3.0, minutes):
            path = Path(name) / "song.wav"
            with soundfile.SoundFile(path, "w", RATE_HERTZ, 2, "FLOAT") as file:
                for _ in range(max(1, round(length * 60.0 * RATE_HERTZ / song.shape[1]))):
                    file.write(song.T)
            command = [sys.executable, "-m", "benchmarks.mastering", "--child", str(path), name]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            peaks.append(json.loads(told)["mebibytes"])
    return rows.at_most(f"memory: {minutes:g} min / 3 min", peaks[1], peaks[0], "MiB", GOALS["memory"])


def render_child(path: Path, folder: Path) -> None:
    """Renders here, and prints the highest anonymous memory of the process."""
    peak, ended = [0.0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], anonymous_mebibytes(os.getpid()))

    sampler = threading.Thread(target=sample)
    sampler.start()
    with decode(path, sample_rate_hertz=None) as file:
        analysis = analyze(file.array, RATE_HERTZ)
        decided = plan(analysis, MasterSettings(intent="loud", deliverables=FILES[:1]), EVERY_SLOT)
        master(file.array, RATE_HERTZ, decided, directory=folder, before=analysis)
    ended.set()
    sampler.join()
    slots = [slot.label for slot in decided.chain]
    print(json.dumps({"mebibytes": peak[0], "slots": slots}))
