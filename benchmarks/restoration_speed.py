"""DeepFilterNet3 against upstream's ``enhance``: time and memory on the same weights, the same audio and one thread.

    python -m benchmarks.restoration_speed [--quick] [--json] [--data FOLDER]

Each measurement is a process of its own, for peaks of memory do not come down again: it loads the weights, computes a
second of audio that does not count, and then 20 s and 120 s (quick: 10 s and 40 s) of the noisy voice of the test data,
repeated. Memory is the growth of anonymous memory (RssAnon) between the two lengths; ours streams, so only the audio
itself (which both sides hold whole, in and out) may grow. FOLDER (default: OUTBOARD_TEST_DATA) has ``weights`` and
``speech``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.rows import Row, at_most, exit_code, parser, show

_RATE_HERTZ = 48_000
_MEBIBYTE = 2.0**20
_FLAT_MEBIBYTES = 16.0


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell RssAnon")


def _measure(side: str, models: Path, audio: np.ndarray) -> dict[str, float]:
    """Processor seconds and the peak of anonymous memory over that before, of one computation in this process."""
    import torch

    torch.set_num_threads(1)
    if side == "theirs":
        from tests.deepfilternet_upstream import enhancer

        enhance = enhancer(models / "deepfilternet3")

        def run(part: np.ndarray) -> None:
            enhance(part, None)
    else:
        from outboard.audio.spool import blocks
        from outboard.models.deepfilternet3.stream import denoised

        def run(part: np.ndarray) -> None:
            for _ in denoised(blocks(part), part.shape[0], _RATE_HERTZ, root=models):
                pass

    run(audio[:, :_RATE_HERTZ])
    peak = before = _anonymous_bytes()
    is_over = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(0.02):
            peak = max(peak, _anonymous_bytes())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    run(audio)
    took = time.process_time() - started
    is_over.set()
    watcher.join()
    return {"seconds": took, "mebibytes": (peak - before) / _MEBIBYTE}


def _child(side: str, data: Path, seconds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.restoration_speed", "--side", side, "--seconds", str(seconds)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--data", str(data)], env=variables, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def rows(data: Path, *, quick: bool) -> Iterator[Row]:
    """Time per second of audio, and growth of memory between two lengths."""
    lengths = (10, 40) if quick else (20, 120)
    found = {(side, seconds): _child(side, data, seconds) for seconds in lengths for side in ("ours", "theirs")}
    for seconds in lengths:
        ours, theirs = (found[side, seconds]["seconds"] / seconds for side in ("ours", "theirs"))
        yield at_most(f"deepfilternet3, mono, {seconds} s: processor time", ours, theirs, "s per s", 1.0)
    grown = {
        side: found[side, lengths[1]]["mebibytes"] - found[side, lengths[0]]["mebibytes"] for side in ("ours", "theirs")
    }
    flat = Row(
        f"growth of memory, {lengths[0]} to {lengths[1]} s", grown["ours"], grown["theirs"], None, "MiB", 16.0, None
    )
    yield Row(**{**vars(flat), "holds": grown["ours"] <= 16.0})


def main() -> int:
    """Prints the rows; 1 where a goal is missed."""
    options_parser = parser(__doc__)
    default = Path(os.environ.get("OUTBOARD_TEST_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    options_parser.add_argument("--data", type=Path, default=default)
    options_parser.add_argument("--side", choices=("ours", "theirs"), help="measure one side in this process")
    options_parser.add_argument("--seconds", type=int, default=10)
    options = options_parser.parse_args()
    if options.side:
        import soundfile

        voice, _ = soundfile.read(options.data / "speech" / "dfn_noisy_snr0.wav", dtype="float32")
        audio = np.resize(voice, options.seconds * _RATE_HERTZ)[None]
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(options.data / "weights" / "DeepFilterNet3", Path(folder) / "deepfilternet3")
            print(json.dumps(_measure(options.side, Path(folder), audio)))
        return 0
    measured = list(rows(options.data, quick=options.quick))
    show(measured, as_json=options.json)
    return exit_code(measured)


if __name__ == "__main__":
    sys.exit(main())
