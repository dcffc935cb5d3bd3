"""How surely one recording is known again in another file, and how far two recordings stay apart.

    python -m benchmarks.same_recording [--quick] [--json] [--data DIR]

The first minute of every song and reference of the test data, against copies of itself (coded by ffmpeg's encoders at
48, 64 and 128 kbit/s, at 22.05 kHz, 20 dB lower, begun later, the second half) and against every other song. Goals:
every copy is known, and no two songs correlate as much as copies must.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks import rows
from benchmarks.rows import Row
from outboard.audio.files import decode
from outboard.audio.resample import resample
from outboard.audio.same_recording import SAME_CORRELATION, Likeness, courses, likeness

Array = NDArray[np.float32]

RATE_HERTZ = 48_000
SECONDS, QUICK_SECONDS = 60, 20
CODERS = {"mp3": "libmp3lame", "m4a": "aac", "opus": "libopus"}


def copies(song: Array) -> Iterator[tuple[str, Array]]:
    """The same recording in other files."""
    for (container, coder), kbps in itertools.product(CODERS.items(), (48, 64, 128)):
        yield f"{container.replace('m4a', 'aac')}, {kbps} kbit/s", coded(song, container, coder, kbps)
    yield "at 22.05 kHz", resample(resample(song, RATE_HERTZ, 22_050), 22_050, RATE_HERTZ)
    yield "20 dB lower", np.float32(0.1) * song
    yield "begun 1.337 s later", song[:, 64_176:]
    yield "the second half", song[:, song.shape[1] // 2 :]


def coded(song: Array, container: str, coder: str, kbps: int) -> Array:
    """A song as a lossy encoder leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"copy.{container}"
        with av.open(str(path), "w") as file:
            stream = file.add_stream(coder, rate=RATE_HERTZ, layout="stereo")
            assert isinstance(stream, av.AudioStream)
            stream.bit_rate = kbps * 1000
            stereo = np.ascontiguousarray(np.broadcast_to(song, (2, song.shape[1])))
            frame = av.AudioFrame.from_ndarray(stereo, format="fltp", layout="stereo")
            frame.sample_rate = RATE_HERTZ
            for packet in itertools.chain(stream.encode(frame), stream.encode(None)):
                file.mux(packet)
        return loaded(path, None)


def loaded(path: Path, seconds: int | None) -> Array:
    """The beginning of a file, (channels, frames) at 48 kHz."""
    with decode(path, sample_rate_hertz=RATE_HERTZ) as file:
        return np.array(file.array[:, : seconds * RATE_HERTZ if seconds else None])


def measured(songs: dict[str, Array], show: Callable[[Row], None]) -> list[Row]:
    """Of each kind of copy how many are known, the lowest correlation, the furthest tone; the likest two songs."""
    known = {name: courses(song, RATE_HERTZ) for name, song in songs.items()}
    found: dict[str, list[Likeness]] = {}
    for name, song in songs.items():
        for kind, copy in copies(song):
            found.setdefault(kind, []).append(likeness(known[name], courses(copy, RATE_HERTZ)))
    apart = max(likeness(one, other).correlation for one, other in itertools.combinations(known.values(), 2))
    made = []
    for kind, all_of_kind in found.items():
        known_again, count = sum(one.is_same for one in all_of_kind), len(all_of_kind)
        made.append(Row(f"{kind}: known again", known_again, None, None, f"of {count}", count, known_again == count))
        lowest, furthest = min(one.correlation for one in all_of_kind), max(one.tone_db for one in all_of_kind)
        made.append(Row(f"{kind}: lowest correlation", lowest, None, None, "", None, None))
        made.append(Row(f"{kind}: furthest tone", furthest, None, None, "dB", None, None))
    made.append(
        Row("two songs: highest correlation", apart, None, None, "", SAME_CORRELATION, apart < SAME_CORRELATION)
    )
    for row in made:
        show(row)
    return made


def main() -> int:
    """Runs the comparison."""
    parser = rows.parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OUTBOARD_TEST_DATA", "tests/data")))
    options = parser.parse_args()
    paths = sorted(path for folder in ("songs", "references") for path in (options.data / folder).iterdir())
    seconds = QUICK_SECONDS if options.quick else SECONDS
    songs = {path.stem: loaded(path, seconds) for path in paths}
    return rows.exit_code(measured(songs, lambda row: rows.show([row], as_json=options.json)))


if __name__ == "__main__":
    sys.exit(main())
