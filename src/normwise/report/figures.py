"""Figures of a report: who stays accurate under attack, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..records import Score
from . import columns, curves
from .cells import Cell, compared_with, references
from .names import Point, draw_names
from .plot_style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    SERIES,
    Drawn,
    bare,
    belong,
    belonging,
    in_percent,
    mark,
    new,
    save,
    short,
    style,
)
from .tables import duration
from .words import training, where

_RING: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.8}
_MARKERS = {False: "o", True: "D"}  # of independent images, of coupled ones
_ROW = 0.22  # inches


def draw(found: Sequence[Cell], out: Path) -> list[Drawn]:
    """Draw what the cells allow: accuracy always, several attackers where there are, cost against accuracy from two trained cells on, curves where there are."""
    with style():
        drawn = [save("accuracy", _attacks(found[0]) if len(found) == 1 else _accuracy(found), out)]
        if columns.names(found):
            drawn.append(save("columns", columns.draw(found), out))
        if sum(bool(cell.seconds) for cell in found) > 1:
            drawn.append(save("cost", _cost(found), out))
        drawn += [save(over, curves.draw(found, over), out) for over in curves.TITLES if curves.of(found, over)]
    return drawn


def recipes(found: Sequence[Cell]) -> dict[str, str]:
    """The colour of each recipe."""
    names = dict.fromkeys(cell.recipe for cell in found)
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(names)}


def _bar(axes: Any, y: float, score: Score, colour: str, marker: str) -> None:
    axes.plot([100 * score.low, 100 * score.high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=3)
    axes.plot([100 * score.value], [y], marker, color=colour, markersize=6.5, zorder=4, **_RING)


def _accuracy(found: Sequence[Cell]) -> Any:
    """One panel per recipe, one line per norm: clean (ring) and worst case (filled) with its interval; the band is the
    interval of the worst case that others are compared with."""
    panels: dict[tuple[str, str], list[Cell]] = {}
    for cell in found:
        panels.setdefault((cell.setting, cell.recipe), []).append(cell)
    sizes = [len(panel) for panel in panels.values()]
    figure = new(0.6 + sum(_ROW * size + 0.52 for size in sizes))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=[size + 0.2 for size in sizes])
    legend(
        figure,
        keys(
            (cell.coupled for cell in found),
            any(cell.paired for cell in found),
            compared_with(shown) if (shown := references(found)) else "",
        ),
    )
    colours = recipes(found)
    for axes, ((setting, recipe), panel) in zip(grid[:, 0], panels.items(), strict=True):
        colour = colours[recipe]
        for cell in panel:
            if cell in references(panel):
                axes.axvspan(100 * cell.worst.low, 100 * cell.worst.high, color=colour, alpha=0.13, linewidth=0)
                break
        for y, cell in enumerate(panel):
            with belonging(axes, found.index(cell), _values(cell), y):
                _line(axes, y, cell, colour)
        axes.set_yticks(range(len(panel)), [f"{'! ' if cell.doubts else ''}{short(cell.norm)}" for cell in panel])
        for cell, name in zip(panel, axes.get_yticklabels(), strict=True):
            belong(found.index(cell), [name])
        axes.set_ylim(len(panel) - 0.4, -0.6)
        title = where(training(recipe), setting)
        axes.set_title(short(title[:1].upper() + title[1:], 90), loc="left", fontsize=9, fontweight="bold", color=colour)
        bare(axes, grid="x")
        axes.tick_params(labelbottom=True)
        in_percent(axes.xaxis)
    grid[-1, 0].set_xlim(-1.5, 101.5)
    grid[-1, 0].set_xlabel("accuracy on test images, with 95% intervals")
    return figure


def _line(axes: Any, y: float, cell: Cell, colour: str) -> None:
    clean, worst = cell.clean, cell.worst
    axes.plot([100 * worst.value, 100 * clean.value], [y, y], color=FAINT, linewidth=1, zorder=1)
    axes.plot([100 * clean.low, 100 * clean.high], [y, y], color=MUTED, linewidth=1.4, zorder=2)
    axes.plot([100 * clean.value], [y], "o", markersize=5.5, color=PAPER, markeredgecolor=MUTED, zorder=3)
    if len(cell.results) > 1:
        seeds = [100 * r.evaluation.headline.value for r in cell.results]
        axes.plot(seeds, [y + 0.22] * len(seeds), "|", color=colour, markersize=4, zorder=3)
    if cell.paired:
        axes.plot([100 * cell.protocol.value], [y], "|", color=colour, markersize=9, markeredgewidth=1.4, zorder=3)
    _bar(axes, y, worst, colour, _marker(cell))
    beside(axes, y, str(worst), colour)


def beside(axes: Any, y: float, text: str, colour: str) -> None:
    """Write a row's figures right of it."""
    axes.annotate(text, (1.02, y), xycoords=("axes fraction", "data"), va="center_baseline", fontsize=7.5, color=colour)


def _values(cell: Cell, cost: bool = False) -> str:
    """What a mark says of its network."""
    name = where(where(cell.norm, training(cell.recipe) if cell.seconds else ""), cell.setting)
    parts = [f"clean {cell.clean}", *[f"protocol alone {cell.protocol}"] * cell.paired, f"worst case {cell.worst}"]
    parts += ["coupled images"] * cell.coupled + [f"trained in {duration(cell.seconds)}"] * cost
    return f"{name}: {'; '.join(parts)}"


def _marker(cell: Cell) -> str:
    return _MARKERS[cell.coupled]


def _marks(coupled: Iterable[bool], what: str) -> list[Any]:
    """Legend: what the filled marks mean."""
    from matplotlib.lines import Line2D

    used = {_MARKERS[each] for each in coupled}
    texts = (
        {"o": f"{what}, independent images", "D": f"{what}, coupled images"}
        if len(used) > 1
        else {"o": what, "D": f"{what}, coupled images"}
    )
    return [
        Line2D([], [], linestyle="none", marker=marker, label=text, color=MUTED, markersize=5.5, **_RING)
        for marker, text in texts.items()
        if marker in used
    ]


def _colours(found: Sequence[Cell]) -> list[Any]:
    """Legend: what the colours mean."""
    from matplotlib.patches import Patch

    return [Patch(color=colour, label=training(recipe)) for recipe, colour in recipes(found).items()]


def keys(coupled: Iterable[bool], paired: bool, reference: str = "") -> list[Any]:
    """Legend of accuracies: the ring without an attack, the marks of the worst case with its bar, the protocol's stroke, the band of the norm that others are compared with."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    clean = Line2D([], [], linestyle="none", marker="o", label="no attack", markersize=5, color=PAPER, markeredgecolor=MUTED)
    stroke: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 8, "markeredgewidth": 1.4, "color": MUTED}
    protocol = Line2D([], [], label="under the protocol alone", **stroke)
    bar = Line2D([], [], color=MUTED, linewidth=2.2, label="95% intervals")
    band = Patch(color=MUTED, alpha=0.2, label=f"95% interval of {reference}")
    kept = [clean, *_marks(coupled, "worst case under attack"), *[protocol] * paired, bar]
    return [*kept, *([band] if reference else [])]


def legend(figure: Any, keys: Sequence[Any]) -> None:
    """Put a legend above a figure."""
    figure.legend(
        handles=keys,
        loc="outside upper left",
        ncols=3 if len(keys) > 4 else 4,
        frameon=False,
        fontsize=7.5,
        labelcolor=MUTED,
        handletextpad=0.4,
        handlelength=1.2,
        columnspacing=1.4,
    )


def _attacks(cell: Cell) -> Any:
    """One network: a line for clean images, for each attack, for the worst case."""
    scores = {"clean": cell.clean}
    if len(cell.results) == 1:
        scores |= {name.upper(): score for name, score in cell.results[0].evaluation.per_attack.items()}
    if cell.paired:
        scores["protocol"] = cell.protocol
    scores["worst case"] = cell.worst
    figure = new(0.55 + _ROW * len(scores))
    axes = figure.subplots()
    for y, (name, score) in enumerate(scores.items()):
        with belonging(axes, 0, f"{name}: {score}", y):
            _bar(axes, y, score, SERIES[0] if name == "worst case" else MUTED, _marker(cell))
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.4, -0.6)
    axes.set_xlim(-1.5, 101.5)
    in_percent(axes.xaxis)
    axes.set_xlabel("accuracy on test images, with 95% intervals")
    bare(axes, grid="x")
    return figure


def _cost(found: Sequence[Cell]) -> Any:
    """Training time against worst-case accuracy, one panel per setting; each point carries its norm's name."""
    settings: dict[str, list[Cell]] = {}
    for cell in found:
        if cell.seconds:
            settings.setdefault(cell.setting, []).append(cell)
    figure = new(0.3 + 3.7 * len(settings))
    colours = recipes(found)
    legend(figure, [*_colours(found), *_marks((cell.coupled for cell in found), "")])
    for axes, (setting, panel) in zip(figure.subplots(len(settings), 1, squeeze=False)[:, 0], settings.items(), strict=True):
        points = [_point(cell, found.index(cell)) for cell in panel]
        for cell, p in zip(panel, points, strict=True):
            with belonging(axes, p.of):
                axes.plot([p.x, p.x], [p.low, p.high], color=colours[cell.recipe], linewidth=1.6, alpha=0.5, zorder=2)
                axes.plot([p.x], [p.y], _marker(cell), color=colours[cell.recipe], markersize=6, zorder=3, **_RING)
                mark(axes, p.x, p.y, _values(cell, cost=True), p.of)
        axes.set_xscale("log")
        top = 20 * math.ceil(max(p.high for p in points) / 20 + 0.1)
        axes.set_ylim(-0.04 * top, 1.02 * top)
        draw_names(axes, points, size=7.5, colour=INK, line=MUTED)
        axes.set_xticks(_round_times(*axes.get_xlim()))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.4g} s")
        axes.minorticks_off()
        axes.set_xlabel("training time (wall clock, logarithmic)")
        axes.set_ylabel("worst-case accuracy")
        axes.set_title(short(setting, 90), loc="left", fontsize=9, fontweight="bold")
        in_percent(axes.yaxis)
        bare(axes, grid="y")
    return figure


def _point(cell: Cell, number: int) -> Point:
    worst = cell.worst
    return Point(cell.seconds or 0.0, 100 * worst.value, 100 * worst.low, 100 * worst.high, short(cell.norm), number)


def _round_times(low: float, high: float) -> list[float]:
    """Round times for a logarithmic axis: evenly spaced in a narrow range, else 1, 2, 5, 10 and on, or powers of ten."""
    from matplotlib.ticker import MaxNLocator

    if high / low < 8:
        times = [float(time) for time in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    else:
        times = [digit * 10.0**power for power in range(-4, 9) for digit in ((1, 2, 5) if high / low < 300 else (1,))]
    return [time for time in times if low <= time <= high]
