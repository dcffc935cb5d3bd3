"""``python -m services.master [--listen ADDRESS]``: the master alone."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from outboard.audio.analysis import analyze
from outboard.rpc.scratch import spool_directory
from outboard.rpc.server import Register, run
from outboard.settings import Settings, SpoolSettings
from outboard.v1.master_service_pb2_grpc import add_MasterServiceServicer_to_server
from services.master.master import master
from services.master.plan import plan
from services.master.servicer import MasterServicer
from services.master.settings import MasterSettings


def build(settings: Settings) -> Register:
    """The function that puts the servicer on a server."""
    return functools.partial(add_MasterServiceServicer_to_server, MasterServicer(settings))


def warm_up() -> None:
    """Compile and load what the first mix would otherwise wait for."""
    # With a beat, and long enough for tempo and key, whose libraries are loaded only when they are wanted.
    beat = np.exp(-10.0 * (np.arange(12 * 48_000) / 24_000 % 1.0))
    noise = (0.2 * beat * np.random.default_rng(0).standard_normal((2, beat.size))).astype(np.float32)
    measured = analyze(noise, 48_000)
    noise = noise[:, :48_000]
    with tempfile.TemporaryDirectory(dir=spool_directory(SpoolSettings().directory)) as folder:
        master(noise, 48_000, plan(measured, MasterSettings()), directory=Path(folder), before=measured)


if __name__ == "__main__":
    run("master", build, warm_up=warm_up)
