"""What every benchmark prints: one row per comparison, for a person or as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Row:
    """One comparison: ``ratio`` is ours over theirs, ``goal`` the limit it is held to (None: shown only).

    A figure that stands alone has no theirs and no ratio.
    """

    name: str
    ours: float
    theirs: float | None
    ratio: float | None
    unit: str
    goal: float | None
    holds: bool | None


def at_most(name: str, ours: float, theirs: float, unit: str, goal: float | None) -> Row:
    """A row whose ratio must not be above the goal."""
    ratio = ours / theirs
    return Row(name, ours, theirs, ratio, unit, goal, None if goal is None else ratio <= goal)


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="less audio, the same comparisons")
    made.add_argument("--json", action="store_true", help="one JSON object per row")
    return made


def show(rows: Iterable[Row], *, as_json: bool) -> None:
    """Prints rows at once."""
    for row in rows:
        if as_json:
            print(json.dumps(asdict(row)), flush=True)
            continue
        goal = "" if row.goal is None else f"goal {row.goal:g} {'holds' if row.holds else 'MISSED'}"
        theirs = " " * 9 if row.theirs is None else f"{row.theirs:9.4g}"
        ratio = " " * 12 if row.ratio is None else f"ratio {row.ratio:6.3f}"
        print(f"{row.name:52s} {row.ours:9.4g} {theirs} {row.unit:18s} {ratio} {goal}", flush=True)


def exit_code(rows: Iterable[Row]) -> int:
    """0 where every goal holds."""
    return 0 if all(row.holds is not False for row in rows) else 1
