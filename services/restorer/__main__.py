"""``python -m services.restorer [--listen ADDRESS]``: the restorer alone."""

from __future__ import annotations

import functools

import numpy as np

from outboard.rpc.server import Register, run
from outboard.settings import Settings
from outboard.v1.restorer_service_pb2_grpc import add_RestorerServiceServicer_to_server
from services.restorer.restore import restore
from services.restorer.servicer import RestorerServicer
from services.restorer.settings import RestorationSettings


def build(settings: Settings) -> Register:
    """The function that puts the servicer on a server."""
    return functools.partial(add_RestorerServiceServicer_to_server, RestorerServicer(settings))


def warm_up() -> None:
    """Compile and load what the first stem would otherwise wait for: a clipped tone with DC has all treatments run."""
    seconds = np.arange(96_000) / 48_000
    tones = np.sin(2 * np.pi * 440 * seconds) + 0.3 * np.sin(2 * np.pi * 9_000 * seconds) + 0.05
    stem = np.clip(np.stack([tones, tones]), -0.5, 0.5).astype(np.float32)
    for _ in restore(stem, 48_000, RestorationSettings()):
        pass


if __name__ == "__main__":
    run("restorer", build, warm_up=warm_up)
