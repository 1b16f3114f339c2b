"""Pictures of a diagnosis: planes through an image, and which class the network gives at each point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from .findings import Row, Side, within
from .plot_style import FAINT, INK, PAPER, SERIES, new, short


def draw(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    """A row of planes per network, one plane per image: name, figure and caption."""
    most = max((len({row["row"] for row in side.rows}) for side in sides), default=1)
    figure = new(0.2 + len(sides) * (7.2 / max(most, 3) + 0.1))
    grid = figure.subplots(max(len(sides), 1), most, squeeze=False)
    for line, side in zip(grid, sides, strict=False):
        images: dict[int, list[Row]] = {}
        for row in side.rows:
            images.setdefault(row["row"], []).append(row)
        for axes, (image, cells) in zip(line, images.items(), strict=False):
            _picture(axes, cells)
            wrong = f"{100 * within(cells):.0f}% wrong"
            axes.set_title(f"{short(side.model, 22)}, image {image}: {wrong}", loc="left", fontsize=7, color=INK)
        for axes in line[len(images) :]:
            axes.set_visible(False)
    yield (
        "slices",
        figure,
        "The decision around an image: to the right the step of steepest ascent, upwards a random one, in radii; the square is "
        "one radius, the ring the image. Pale is the label, each colour another class; wrong counts points in the square.",
    )


def _picture(axes: Any, cells: Sequence[Row]) -> None:
    from matplotlib.patches import Rectangle

    places = sorted({row["a"] for row in cells})
    size, label = places[1] - places[0], cells[0]["label"]
    others = dict.fromkeys(row["class"] for row in cells if row["class"] != label)
    colours = {label: FAINT} | {name: SERIES[number % len(SERIES)] for number, name in enumerate(others)}
    ordered = sorted(cells, key=lambda row: (row["b"], row["a"]))
    for (b, answer), run in groupby(ordered, key=lambda row: (row["b"], row["class"])):
        line = [row["a"] for row in run]
        wide = line[-1] - line[0] + size
        place = (line[0] - size / 2, b - size / 2)
        axes.add_patch(Rectangle(place, wide, size, color=colours[answer], linewidth=0.3))
    axes.add_patch(Rectangle((-1, -1), 2, 2, fill=False, edgecolor=INK, linewidth=0.8, linestyle=":"))
    axes.plot([0], [0], "o", color=PAPER, markeredgecolor=INK, markersize=4)
    reach = places[-1] + size / 2
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=6.5)
