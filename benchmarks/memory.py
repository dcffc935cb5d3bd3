"""Whether a service's memory stays flat: anonymous memory for a long song against that for a short one.

    python -m benchmarks.memory [--minutes 30] [--quick] [--json]

One job for a song of 3 minutes and one for the long song run through a fresh mesh each. The highest RssAnon + RssShmem
of every service process and its children (/proc/PID/status; mapped spool files do not count) is sampled ten times a
second, new processes are looked for twice a second. Goal: at most 1.15.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

from benchmarks import rows
from benchmarks.mesh_overhead import job, song_file
from outboard.client import Client
from outboard.local import local_mesh

SHORT_SECONDS = 180.0
PERIOD_SECONDS = 0.1
LISTING_PERIOD_SECONDS = 0.5
SERVICES = ("separator", "restorer", "mixer", "master", "orchestrator")


def anonymous_mebibytes(process_id: int) -> float:
    """RssAnon + RssShmem of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) / 1024


def service_processes() -> dict[int, str]:
    """Processes of the mesh below this process, by the service they belong to; other meshes of the machine are not
    looked at.
    """
    listing = subprocess.run(["ps", "-eo", "pid,ppid,args"], check=True, capture_output=True, text=True).stdout
    children: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for line in listing.splitlines()[1:]:
        process_id, parent, command = line.split(maxsplit=2)
        children[int(parent)].append((int(process_id), command))
    found: dict[int, str] = {}
    waiting = [(os.getpid(), "")]
    while waiting:
        parent_id, inherited = waiting.pop()
        for child_id, command in children[parent_id]:
            service = next((name for name in SERVICES if f"services.{name}" in command), inherited)
            if service:
                found[child_id] = service
            waiting.append((child_id, service))
    return found


class PeakSampler:
    """Highest anonymous memory of each service while the context lasts, its children summed in."""

    def __init__(self) -> None:
        self.peaks: dict[str, float] = defaultdict(float)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        processes, listed = service_processes(), time.monotonic()
        while not self._ended.wait(PERIOD_SECONDS):
            # Listing costs far more than reading: done as often as the samples, it would take a core from the mesh.
            if time.monotonic() - listed > LISTING_PERIOD_SECONDS:
                processes, listed = service_processes(), time.monotonic()
            now: dict[str, float] = defaultdict(float)
            for process_id, service in processes.items():
                now[service] += anonymous_mebibytes(process_id)
            for service, amount in now.items():
                self.peaks[service] = max(self.peaks[service], amount)


def peaks(seconds: float) -> dict[str, float]:
    """Highest anonymous memory of each service over one job, in MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        song = song_file(folder, seconds, 1)
        with local_mesh(folder / "store") as mesh, Client(mesh.address) as client, PeakSampler() as sampler:
            job(client, song, passthrough=False)
        return dict(sampler.peaks)


def main() -> int:
    """Prints one row per service; 0 where every goal holds."""
    parser = rows.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="length of the long song")
    options = parser.parse_args()
    minutes = 9.0 if options.quick else options.minutes
    short, long = peaks(SHORT_SECONDS), peaks(60 * minutes)
    results = [
        rows.at_most(f"{service}: {minutes:g} min / 3 min", long[service], short[service], "MiB", 1.15)
        for service in SERVICES
    ]
    rows.show(results, as_json=options.json)
    return rows.exit_code(results)


if __name__ == "__main__":
    sys.exit(main())
