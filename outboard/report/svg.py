"""Plots as inline SVG, by hand: no script, no library, readable in light and dark.

Colours are CSS classes (`before`, `after`, `target` …) that the page defines, so that a plot follows its theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 860, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 26
_NAMES, _LONGEST_NAME = 96, 14  # room for the names of a heat map's rows

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Axis:
    """A range, where its grid lines stand, and how they are labelled."""

    low: float
    high: float
    ticks: Sequence[float]
    label: Callable[[float], str] = "{:g}".format
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies outside is held at the edge."""
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(max(share, 0.0), 1.0)


@dataclass
class Plot:
    """A plot under construction: axes first, then what is drawn, then `render`."""

    title: str
    x: Axis
    y: Axis
    parts: list[str] = field(default_factory=list)

    def line(self, points: Sequence[Point], kind: str) -> None:
        """A line; points without a value break it."""
        run: list[str] = []
        for horizontal, vertical in [*points, (0.0, None)]:
            if vertical is not None:
                run.append(f"{self._x(horizontal):.1f},{self._y(vertical):.1f}")
            elif run:
                self.parts.append(f'<polyline class="line {kind}" points="{" ".join(run)}"/>')
                run = []

    def band(self, points: Sequence[tuple[float, float, float]], kind: str) -> None:
        """The area between two values at each place."""
        if not points:
            return
        upper = [f"{self._x(x):.1f},{self._y(high):.1f}" for x, _, high in points]
        lower = [f"{self._x(x):.1f},{self._y(low):.1f}" for x, low, _ in reversed(points)]
        self.parts.append(f'<polygon class="area {kind}" points="{" ".join(upper + lower)}"/>')

    def mark(self, places: Sequence[float]) -> None:
        """Upright lines, for instance where sections begin."""
        for place in places:
            x = self._x(place)
            self.parts.append(f'<line class="mark" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{HEIGHT - _BOTTOM}"/>')

    def level(self, value: float, kind: str) -> None:
        """A line across."""
        self.line([(self.x.low, value), (self.x.high, value)], kind)

    def render(self) -> str:
        """The SVG element."""
        grid = [self._grid_x(tick) for tick in self.x.ticks] + [self._grid_y(tick) for tick in self.y.ticks]
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title, quote=True)}">'
            f"{''.join(grid)}{''.join(self.parts)}</svg>"
        )

    def _grid_x(self, tick: float) -> str:
        x, bottom = self._x(tick), HEIGHT - _BOTTOM
        return (
            f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
            f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(self.x.label(tick))}</text>'
        )

    def _grid_y(self, tick: float) -> str:
        y = self._y(tick)
        return (
            f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(self.y.label(tick))}</text>'
        )

    def _x(self, value: float) -> float:
        return _LEFT + self.x.place(value) * (WIDTH - _LEFT - _RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - self.y.place(value) * (HEIGHT - _TOP - _BOTTOM)


def heat_map(title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]) -> str:
    """Shares from 0 to 1 as shaded cells with their percentage; None leaves a cell empty."""
    wide, high = (WIDTH / 2 - _NAMES) / len(columns), 30.0
    bottom = high * len(rows)
    parts = [
        f'<text x="{_NAMES - 6}" y="{high * (row + 0.5) + 4:.1f}" text-anchor="end">{escape(_short(name))}</text>'
        for row, name in enumerate(rows)
    ]
    for column, name in enumerate(columns):
        x, y = _NAMES + wide * (column + 0.5), bottom + 12
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="end" transform="rotate(-40 {x:.1f} {y:.1f})"'
        parts.append(f"<text {place}>{escape(_short(name))}</text>")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value is None:
                continue
            x, y = _NAMES + wide * column, high * row
            shade = min(max(value, 0.0), 1.0)
            parts.append(
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{high - 1:.1f}" '
                f'fill-opacity="{shade:.2f}"/>'
                f'<text class="ink" x="{x + wide / 2:.1f}" y="{y + high / 2 + 4:.1f}" '
                f'text-anchor="middle">{100 * value:.0f}</text>'
            )
    size = f"0 0 {WIDTH // 2} {bottom + 90:.0f}"
    return f'<svg viewBox="{size}" role="img" aria-label="{escape(title, quote=True)}">{"".join(parts)}</svg>'


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


def time_axis(seconds: float) -> Axis:
    """From the song's begin to its end, with at most nine ticks at whole steps."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((step for step in steps if seconds / step <= 8), steps[-1])
    ticks = [float(tick) for tick in range(0, math.floor(seconds) + 1, step)]
    return Axis(0.0, max(seconds, 1e-3), ticks, clock)


def frequency_axis() -> Axis:
    """30 Hz to 16 kHz, logarithmic."""
    ticks = (31.5, 63.0, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)
    return Axis(30.0, 17000.0, ticks, lambda hertz: f"{hertz / 1000:g}k" if hertz >= 1000 else f"{hertz:g}", True)


def decibel_axis(values: Sequence[float], step: float = 6.0, *, least_span: float = 12.0) -> Axis:
    """Round limits around the values."""
    low = math.floor(min(values, default=0.0) / step) * step
    high = math.ceil(max(values, default=0.0) / step) * step
    high = max(high, low + least_span)
    while (high - low) / step > 8:
        step *= 2.0
    low = math.floor(low / step) * step
    count = math.ceil((high - low) / step)
    return Axis(low, low + count * step, [low + index * step for index in range(count + 1)])
