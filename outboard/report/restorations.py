"""What the restorer found on each stem, what it did, changed and left alone: in words, for page and terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

from outboard.report.html import items, section, table
from outboard.v1 import restorer_service_pb2

_UNKNOWN = "–"
# What is held before and after, by treatment; percent and kHz are how a person reads a share and a band.
_MEASURES = {
    "declip": ("clipping", "{:.0f} samples", 1.0),
    "dc": ("offset", "{:.4f}", 1.0),
    "tones": ("grid tones", "{:.2f}", 1.0),
    "codec": ("MP3 holes", "{:.1f} %", 100.0),
    "holes": ("holes", "{:.1f} %", 100.0),
    "resonance": ("shimmer", "{:.2f}", 1.0),
    "sibilance": ("sibilance", "{:.2f}", 1.0),
    "noise": ("noise", "{:.1f} dBFS", 1.0),
    "extension": ("bandwidth", "{:.1f} kHz", 1e-3),
}


@dataclass(frozen=True)
class Told:
    """One treatment of one stem as a person reads it; `amount` is empty where it was left alone, `is_unmet` where that
    was though it was called for.
    """

    what: str
    engine: str
    amount: str
    before: str
    after: str
    reason: str
    is_unmet: bool

    @property
    def is_done(self) -> bool:
        return bool(self.amount)


def told(report: restorer_service_pb2.RestorationReport) -> Iterator[Told]:
    """Everything that was considered, in the order of the chain."""
    for action in report.actions:
        what, form, factor = _MEASURES.get(action.treatment, (action.treatment, "{:.3g}", 1.0))
        before = form.format(factor * action.before) if action.HasField("before") else _UNKNOWN
        after = form.format(factor * action.after) if action.HasField("after") else _UNKNOWN
        amount = f"{action.amount:.0%}" if action.amount else ""
        yield Told(what, action.engine, amount, before, after, action.reason, action.unmet)


def restoration_sections(restorations: Mapping[str, restorer_service_pb2.RestorationReport]) -> str:
    """The section of a page that tells of restoration, stem by stem; empty where nothing was restored."""
    parts = [_stem(name, restorations[name]) for name in sorted(restorations)]
    return section("Restoration", "".join(parts))


def _stem(name: str, report: restorer_service_pb2.RestorationReport) -> str:
    everything = list(told(report))
    done = [one for one in everything if one.is_done]
    unmet = items(f"{one.what} stays at {one.before}: {one.reason}" for one in everything if one.is_unmet)
    left = [one for one in everything if not one.is_done and not one.is_unmet]
    heading = f"<h3>{escape(name)}</h3>"
    if report.unchanged:
        heading += '<p class="soft">Came back bit for bit as it was.</p>'
    head = ("done", "engine", "amount", "before", "after", "why")
    rows = [(one.what, one.engine, one.amount, one.before, one.after, one.reason) for one in done]
    warned = items(warning.message for warning in report.warnings)
    alone = items(f"{one.what} ({one.engine}): {one.reason}" for one in left)
    folded = f"<details><summary>Left alone, and why</summary>{alone}</details>" if alone else ""
    return heading + (table(head, rows) if rows else "") + warned + unmet + folded
