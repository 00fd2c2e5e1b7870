"""Charts as plain data, in the units of the drawing they become: the template makes SVG of it.

All are drawn narrow, as a telephone shows them: wide windows put several side by side rather than stretch one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from raylora.report.scales import Scale

WIDTH = 400
SHAPES = {
    "finished": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "stopped_early": "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "failed": "M-3.6-3.6L3.6 3.6M3.6-3.6L-3.6 3.6",
    "running": "M0-4.4L4.4 3.4H-4.4z",
    "guide": "M0-6L6 0L0 6L-6 0z",
    "halo": "M-8 0a8 8 0 1 0 16 0a8 8 0 1 0-16 0z",
    "mean": "M0-8V8",
    "seed": "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "search": "M-4-4H4V4H-4z",
}
"""Outlines of marks around (0, 0): shapes tell them apart, not colours alone."""


@dataclass(frozen=True)
class Mark:
    """A point with a shape."""

    x: float
    y: float
    shape: str
    title: str
    trial: str = ""
    role: str = ""

    @property
    def outline(self) -> str:
        return SHAPES[self.shape]


@dataclass(frozen=True)
class Line:
    """A line through points, `M…L…`."""

    path: str
    kind: str
    title: str = ""
    trial: str = ""


@dataclass(frozen=True)
class Text:
    """Words at a place."""

    x: float
    y: float
    words: str
    anchor: str = "middle"
    kind: str = ""
    trial: str = ""


@dataclass(frozen=True)
class Chart:
    """A drawing with its words."""

    key: str
    title: str
    says: str
    """What it shows, for who can't see it."""
    height: float
    grid: Sequence[Line] = ()
    lines: Sequence[Line] = ()
    marks: Sequence[Mark] = ()
    texts: Sequence[Text] = ()
    note: str = ""
    width: float = WIDTH


@dataclass(frozen=True)
class Frame:
    """A rectangle with two axes; y points up."""

    x: Scale
    y: Scale
    x_name: str
    y_name: str
    height: float = 250
    left: float = 44
    right: float = 12
    top: float = 26
    bottom: float = 40
    width: float = WIDTH
    has_heights: bool = True
    """Whether the upward axis says anything."""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A place, 0 to 1 on both axes, in the drawing."""
        wide, high = self.width - self.left - self.right, self.height - self.top - self.bottom
        return round(self.left + x * wide, 1), round(self.height - self.bottom - y * high, 1)

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Two values, in the drawing; what has no place stands at the lower end."""
        return self.at(self.x.place(x) or 0.0, self.y.place(y) or 0.0)

    @property
    def grid(self) -> list[Line]:
        """A line at each tick of the upward axis, and the axis along the bottom."""
        across = [Line(path_of([self.at(0, tick.place), self.at(1, tick.place)]), "grid") for tick in self.y.ticks]
        return [*across, Line(path_of([self.at(0, 0), self.at(1, 0)]), "axis")]

    @property
    def texts(self) -> list[Text]:
        """What stands beside the axes."""
        x_ticks = [(self.at(tick.place, 0), tick.label) for tick in self.x.ticks]
        y_ticks = [(self.at(0, tick.place), tick.label) for tick in self.y.ticks if self.has_heights]
        middle = self.left + (self.width - self.left - self.right) / 2
        return [
            *(Text(x, y + 14, label, _anchor(x, self.width), "tick") for (x, y), label in x_ticks),
            *(Text(x - 6, y + 3.5, label, "end", "tick") for (x, y), label in y_ticks),
            Text(middle, self.height - 6, self.x_name, kind="axis-name"),
            Text(4, 12, self.y_name, "start", "axis-name"),
        ]

    def rungs(self, at: Iterable[float]) -> list[Line]:
        """Upright lines where all trials are measured."""
        places = [place for images in at if (place := self.x.place(images)) is not None]
        return [Line(path_of([self.at(place, 0), self.at(place, 1)]), "rung") for place in places]


def _anchor(x: float, width: float) -> str:
    """Labels at the right end stay inside."""
    return "end" if x > width - 20 else "middle"


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """A line through points; empty for fewer than two."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points) if len(points) > 1 else ""


def steps_of(points: Sequence[tuple[float, float]]) -> str:
    """The same with steps: each height lasts until the next point."""
    corners = [corner for before, after in itertools.pairwise(points) for corner in (before, (after[0], before[1]))]
    return path_of([*corners, *points[-1:]])
