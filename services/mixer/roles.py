"""Roles that the console treats alike. Listening comes on top of what a stem is called, names stay a hint."""

from __future__ import annotations

VOICES = frozenset({"lead_vocal", "backing_vocal"})
DRUMS = frozenset({"kick", "snare", "hats", "drums"})
LOW = frozenset({"kick", "bass"})
