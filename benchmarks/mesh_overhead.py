"""What the mesh costs: a whole job through gRPC, workflow and storage, against the same work in one process.

    python -m benchmarks.mesh_overhead [--seconds 240] [--quick] [--json]

Two comparisons on a demo song repeated to the length asked for and a store of its own; a short song warms both sides
first. The goals are for the wall clock of a machine that has nothing else to do; processor time, of all processes
together, is shown beside it:

- with pass-through engines: what the job takes beyond decoding, encoding and measuring, as a share of the song's length
  (goal: 0.03);
- with the real engines: the job over the same domain functions called one after another in one process (goal: 1.10).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.end_to_end import RATE_HERTZ, mastered, mixed, restored, separated
from outboard import presets
from outboard.audio.analysis import analyze
from outboard.audio.demo import synthesise
from outboard.audio.files import FileSpec, decode, encode
from outboard.audio.spool import blocks
from outboard.client import Client
from outboard.local import local_mesh
from outboard.report.preview import write_preview
from outboard.v1 import job_service_pb2 as v1
from outboard.v1 import master_service_pb2, mixer_service_pb2, restorer_service_pb2, separator_service_pb2

Audio = NDArray[np.float32]
PASSTHROUGH = "passthrough"


def song_file(folder: Path, seconds: float, seed: int) -> Path:
    """A demo song of any length, as a 24-bit wav."""
    part = synthesise(seed, min(seconds, 30.0)).song
    whole = np.tile(part, (1, int(np.ceil(seconds * RATE_HERTZ / part.shape[1]))))[:, : int(seconds * RATE_HERTZ)]
    path = folder / f"song-{seed}.wav"
    encode(path, blocks(whole), RATE_HERTZ, FileSpec("wav", "24"))
    return path


@dataclass(frozen=True)
class Cost:
    """Seconds by the wall clock, and of processor time in all processes together."""

    wall: float
    processor: float


def processor_seconds() -> float:
    """Processor time so far of this process and of all below it, those that have ended included."""
    children: dict[int, list[int]] = defaultdict(list)
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            children[int(fields[1])].append(int(entry.name))
            seconds[int(entry.name)] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [os.getpid()]
    while waiting:
        process_id = waiting.pop()
        total += seconds.get(process_id, 0.0)
        waiting += children[process_id]
    return total


def cost_of_last(run: Callable[[Path], object], songs: list[Path]) -> Cost:
    """The cost of the last of several runs, each on a song of its own: no result is there already."""
    for song in songs[:-1]:
        run(song)
    wall, processor = time.perf_counter(), processor_seconds()
    run(songs[-1])
    return Cost(time.perf_counter() - wall, processor_seconds() - processor)


def job(client: Client, song: Path, *, passthrough: bool) -> None:
    """A whole job, from the upload to its end."""
    request = v1.Job(song=v1.SongInput(upload=client.upload(song).name, file_name=song.name))
    if passthrough:
        request.separation.CopyFrom(separator_service_pb2.SeparationSettings(engine=PASSTHROUGH))
        request.restoration.steps.append(restorer_service_pb2.RestorationStep(engine=PASSTHROUGH))
        request.mix.CopyFrom(mixer_service_pb2.MixSettings(engine=PASSTHROUGH))
        request.mastering.CopyFrom(master_service_pb2.MasterSettings(engine=PASSTHROUGH))
    done = client.wait(client.create_job(request).name)
    if done.state != v1.Job.STATE_SUCCEEDED:
        raise RuntimeError(done.error.message)


def files_and_meters(song: Path, folder: Path) -> None:
    """What a pass-through job computes anyway: decode, measure, encode, measure the file, preview."""
    with decode(song) as decoded:
        analyze(decoded.array, RATE_HERTZ)
        master = folder / "master.wav"
        encode(master, blocks(decoded.array), RATE_HERTZ, FileSpec("wav", "24"))
        with decode(master) as delivered:
            analyze(delivered.array, RATE_HERTZ)
        write_preview(folder / "preview.mp3", decoded.array, decoded.array, RATE_HERTZ)


def in_one_process(song: Path, folder: Path) -> None:
    """The pipeline's domain functions, one after another."""
    preset = presets.load("balanced")
    with decode(song) as decoded:
        audio = np.ascontiguousarray(decoded.array)
        analyze(audio, RATE_HERTZ)
        result = mastered(mixed(restored(separated(audio)), audio, preset), preset)
        write_preview(folder / "preview.mp3", audio, result, RATE_HERTZ)


def main() -> int:
    """Prints both comparisons; 0 where both goals hold."""
    parser = rows.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the song")
    options = parser.parse_args()
    seconds = 60.0 if options.quick else options.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        songs = [song_file(folder, 10.0, 0), song_file(folder, seconds, 1)]
        with local_mesh(folder / "store") as mesh, Client(mesh.address) as client:
            through = cost_of_last(lambda song: job(client, song, passthrough=True), songs)
            real = cost_of_last(lambda song: job(client, song, passthrough=False), songs)
        meters = cost_of_last(lambda song: files_and_meters(song, folder), songs)
        alone = cost_of_last(lambda song: in_one_process(song, folder), songs)
    beyond, busy = through.wall - meters.wall, through.processor - meters.processor
    results = [
        rows.at_most("pass-through job beyond files and meters / song", beyond, seconds, "s", 0.03),
        rows.at_most("the same, processor time", busy, seconds, "s", None),
        rows.at_most("pass-through job / song", through.wall, seconds, "s", None),
        rows.at_most("real job / domain functions in one process", real.wall, alone.wall, "s", 1.10),
        rows.at_most("the same, processor time", real.processor, alone.processor, "s", None),
        rows.at_most("real job / song (240 s in 120 s on 2 cores)", real.wall, seconds, "s", 0.5),
    ]
    rows.show(results, as_json=options.json)
    return rows.exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
