"""What the mesh costs: a whole job through gRPC, workflow and storage, against the same work in one process.

    python -m benchmarks.mesh_overhead [--seconds 240] [--quick] [--json]

Two comparisons by the wall clock, on a demo song repeated to the length asked for and a store of its own; a short song
warms both sides first:

- with pass-through engines: what the job takes beyond decoding, encoding and measuring, as a share of the song's length
  (goal: 0.03);
- with the real engines: the job over the same domain functions called one after another in one process (goal: 1.10).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
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


def job(client: Client, song: Path, *, passthrough: bool) -> float:
    """Seconds from the upload to the end of a job."""
    started = time.perf_counter()
    request = v1.Job(song=v1.SongInput(upload=client.upload(song).name, file_name=song.name))
    if passthrough:
        request.separation.CopyFrom(separator_service_pb2.SeparationSettings(engine=PASSTHROUGH))
        request.restoration.steps.append(restorer_service_pb2.RestorationStep(engine=PASSTHROUGH))
        request.mix.CopyFrom(mixer_service_pb2.MixSettings(engine=PASSTHROUGH))
        request.mastering.CopyFrom(master_service_pb2.MasterSettings(engine=PASSTHROUGH))
    done = client.wait(client.create_job(request).name)
    if done.state != v1.Job.STATE_SUCCEEDED:
        raise RuntimeError(done.error.message)
    return time.perf_counter() - started


def files_and_meters(song: Path, folder: Path) -> float:
    """Seconds for what a pass-through job computes anyway: decode, measure, encode, measure the file, preview."""
    started = time.perf_counter()
    with decode(song) as decoded:
        analyze(decoded.array, RATE_HERTZ)
        master = folder / "master.wav"
        encode(master, blocks(decoded.array), RATE_HERTZ, FileSpec("wav", "24"))
        with decode(master) as delivered:
            analyze(delivered.array, RATE_HERTZ)
        write_preview(folder / "preview.mp3", decoded.array, decoded.array, RATE_HERTZ)
    return time.perf_counter() - started


def in_one_process(song: Path, folder: Path) -> float:
    """Seconds for the pipeline's domain functions, one after another."""
    started = time.perf_counter()
    preset = presets.load("balanced")
    with decode(song) as decoded:
        audio = np.ascontiguousarray(decoded.array)
        analyze(audio, RATE_HERTZ)
        result = mastered(mixed(restored(separated(audio)), audio, preset), preset)
        write_preview(folder / "preview.mp3", audio, result, RATE_HERTZ)
    return time.perf_counter() - started


def second(run: Callable[[Path], float], songs: list[Path]) -> float:
    """The time of the last of several runs, each on a song of its own: no result is there already."""
    return [run(song) for song in songs][-1]


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
            through = second(lambda song: job(client, song, passthrough=True), songs)
            real = second(lambda song: job(client, song, passthrough=False), songs)
        meters = second(lambda song: files_and_meters(song, folder), songs)
        alone = second(lambda song: in_one_process(song, folder), songs)
    results = [
        rows.at_most("pass-through job beyond files and meters / song", through - meters, seconds, "s", 0.03),
        rows.at_most("pass-through job / song", through, seconds, "s", None),
        rows.at_most("real job / domain functions in one process", real, alone, "s", 1.10),
        rows.at_most("real job / song (240 s in 120 s on 2 cores)", real, seconds, "s", 0.5),
    ]
    rows.show(results, as_json=options.json)
    return rows.exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
