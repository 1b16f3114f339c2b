"""Name the points of a plot: names stand in columns, in the order of their points, and none covers another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .plot_style import belonging

_GAP, _LINE = 14, 1.15  # points from a group of points to its column of names; line spacing


class Point(NamedTuple):
    """A point in data coordinates with a vertical bar, a name, and the number of its cell."""

    x: float
    y: float
    low: float
    high: float
    name: str
    of: int


def draw_names(axes: Any, points: Sequence[Point], *, size: float, colour: str, line: str) -> None:
    """Name the points of a plot with logarithmic x, right of each group of points, thin lines leading there.

    A group ends where the next point is further away than a column of names is wide. Sets the x limits.
    """
    axes.figure.draw_without_rendering()  # the layout settles, so that a width in inches is a width in data
    inches = axes.get_window_extent().width / axes.figure.dpi
    column = (0.56 * size * max(len(p.name) for p in points) + 2 * _GAP) / 72 / inches  # share of the axes' width
    xs = [math.log10(p.x) for p in points]
    first, last = min(xs), max(xs)
    span = max((last - first) / (1 - column - 0.06), 0.3)
    left = first - max(0.04 * span, (span * (1 - column) - (last - first)) / 2)
    axes.set_xlim(10**left, 10 ** (left + span))
    bottom, top = axes.get_ylim()
    height = _LINE * size / 72 / (axes.get_window_extent().height / axes.figure.dpi) * (top - bottom)
    for group in _groups(sorted(points), column * span):
        start = 10 ** (math.log10(group[-1].x) + _GAP / 72 / inches * span)
        group.sort(key=lambda p: (p.y, p.x))
        for point, y in zip(group, _apart([p.y for p in group], height, bottom, top), strict=True):
            text_style = {"fontsize": size, "color": colour, "va": "center_baseline", "in_layout": False}
            with belonging(axes, point.of):
                axes.plot([point.x, start], [point.y, y], color=line, linewidth=0.5, zorder=1)
                axes.annotate(point.name, (start, y), xytext=(2.5, 0), textcoords="offset points", **text_style)


def _groups(points: Sequence[Point], width: float) -> list[list[Point]]:
    groups = [[points[0]]]
    for before, point in pairwise(points):
        if math.log10(point.x / before.x) > width:
            groups.append([])
        groups[-1].append(point)
    return groups


def _apart(ys: Sequence[float], height: float, bottom: float, top: float) -> list[float]:
    """Move sorted heights apart, as little as possible (isotonic regression by pooling), between bottom and top."""
    pools: list[list[float]] = []
    for i, y in enumerate(ys):
        pools.append([y - i * height])
        while len(pools) > 1 and _mean(pools[-2]) > _mean(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    shifts = [_mean(pool) for pool in pools for _ in pool]
    least, most = bottom + height / 2, top - (len(ys) - 0.5) * height
    return [min(max(shift, least), max(most, least)) + i * height for i, shift in enumerate(shifts)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
