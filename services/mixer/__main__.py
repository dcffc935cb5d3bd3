"""``python -m services.mixer [--listen ADDRESS]``: the mixer alone."""

from __future__ import annotations

import functools

import numpy as np

from outboard import presets
from outboard.audio.analysis import analyze
from outboard.rpc.server import Register, run
from outboard.settings import Settings, SpoolSettings
from outboard.v1.mixer_service_pb2_grpc import add_MixerServiceServicer_to_server
from services.mixer.console import MixSettings
from services.mixer.mix import mix
from services.mixer.plan import plan
from services.mixer.servicer import MixerServicer


def build(settings: Settings) -> Register:
    """The function that puts the servicer on a server."""
    return functools.partial(add_MixerServiceServicer_to_server, MixerServicer(settings))


def warm_up() -> None:
    """Compile and load what the first stems would otherwise wait for."""
    noise = np.random.default_rng(0).standard_normal((2, 48_000)).astype(np.float32) * np.float32(0.1)
    stems = {"lead_vocal": noise, "drums": noise}  # named by their roles
    measured = analyze(noise, 48_000)
    profile = presets.with_values("", {})
    roles = {"vocals": "lead_vocal", "drums": "drums"}
    decided = plan(dict.fromkeys(stems, measured), roles, None, profile, MixSettings())
    for _ in mix(stems, 48_000, decided, spool_directory=SpoolSettings().directory):
        pass


if __name__ == "__main__":
    run("mixer", build, warm_up=warm_up)
