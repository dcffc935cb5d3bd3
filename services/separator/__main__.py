"""``python -m services.separator [--listen ADDRESS]``: the separator alone."""

from __future__ import annotations

import functools

import numpy as np

from outboard.rpc.server import Register, run
from outboard.settings import Settings
from outboard.v1.separator_service_pb2_grpc import add_SeparatorServiceServicer_to_server
from services.separator.deployment import engines
from services.separator.engines import SeparationSettings
from services.separator.separate import separate
from services.separator.servicer import SeparatorServicer


def build(settings: Settings) -> Register:
    """The function that puts the servicer on a server."""
    servicer = SeparatorServicer(settings, engines(settings))
    return functools.partial(add_SeparatorServiceServicer_to_server, servicer)


def warm_up() -> None:
    """Compile and load what the first song would otherwise wait for. Models are loaded by the first song that asks for
    them: most processes on one machine never meet one.
    """
    silence = np.zeros((2, 48_000), dtype=np.float32)
    for _ in separate([silence], 48_000, SeparationSettings(engine="spectral")):
        pass


if __name__ == "__main__":
    run("separator", build, warm_up=warm_up)
