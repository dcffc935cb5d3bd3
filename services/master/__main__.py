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
    noise = np.random.default_rng(0).standard_normal((2, 48_000)).astype(np.float32) * np.float32(0.1)
    measured = analyze(noise, 48_000)
    with tempfile.TemporaryDirectory(dir=spool_directory(SpoolSettings().directory)) as folder:
        master(noise, 48_000, plan(measured, MasterSettings()), directory=Path(folder), before=measured)


if __name__ == "__main__":
    run("master", build, warm_up=warm_up)
