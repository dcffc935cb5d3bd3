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
from services.mixer.hearing import hear
from services.mixer.mix import mix
from services.mixer.plan import plan
from services.mixer.servicer import MixerServicer


def build(settings: Settings) -> Register:
    """The function that puts the servicer on a server."""
    return functools.partial(add_MixerServiceServicer_to_server, MixerServicer(settings))


def warm_up() -> None:
    """Compile and load what the first stems would otherwise wait for."""
    # With a beat, and long enough for tempo and key, whose libraries are loaded only when they are wanted.
    beat = np.exp(-10.0 * (np.arange(12 * 48_000) / 24_000 % 1.0))
    noise = (0.2 * beat * np.random.default_rng(0).standard_normal((2, beat.size))).astype(np.float32)
    measured = analyze(noise, 48_000)
    stems = dict.fromkeys(("lead_vocal", "drums", "bass", "other"), noise[:, :48000])
    profile = presets.with_values("", {})
    heard = dict.fromkeys(stems, hear(noise, 48_000))
    roles = {role: role for role in stems}
    decided = plan(dict.fromkeys(stems, measured), roles, None, profile, MixSettings(), heard=heard)
    for _ in mix(stems, 48_000, decided, spool_directory=SpoolSettings().directory):
        pass


if __name__ == "__main__":
    run("mixer", build, warm_up=warm_up)
