"""On which bus each strip meets the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.mixer.console import Bus, Strip
from services.mixer.roles import DRUMS, VOICES

DRUM_BUS, MUSIC_BUS, VOCAL_BUS = "drums", "music", "vocals"
BUSES = (DRUM_BUS, MUSIC_BUS, VOCAL_BUS)


def routed(strips: Sequence[Strip]) -> tuple[tuple[Strip, ...], tuple[Bus, ...]]:
    """Every strip on the bus of its kind; only buses that have strips."""
    placed = tuple(replace(strip, bus=_bus_of(strip.role)) for strip in strips)
    used = {strip.bus for strip in placed}
    return placed, tuple(Bus(name) for name in (DRUM_BUS, MUSIC_BUS, VOCAL_BUS) if name in used)


def _bus_of(role: str) -> str:
    return DRUM_BUS if role in DRUMS else VOCAL_BUS if role in VOICES else MUSIC_BUS
