"""The page of `normwise improve`: what each way reached and cost, and which network was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import write
from .card import UNKNOWN
from .frame import rendered
from .plot_style import FAINT, MUTED, PAPER, SERIES, Drawn, bare, belonging, in_percent, new, save, short, style

RECORD, PAGE = "improve.json", "improve.html"
Row = Mapping[str, Any]  # one way, or the network as it is given, as `improve.json` has it


def write_page(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `improve.html` and its figure into a folder; returns the page's path."""
    rows: list[Row] = [record["before"], *record["ways"]]
    measured = [one for one in rows if one["state"] == "tried"]
    page = rendered(
        PAGE,
        title="normwise improve",
        record=record,
        unknown=UNKNOWN,
        rows=rows,
        tried=len(measured) - 1,
        drawn=_accuracy(measured, record["chosen"], folder),
        share=_share,
        between=_between,
    )
    return write(folder / PAGE, page)


def _accuracy(rows: Sequence[Row], chosen: str, out: Path) -> Drawn:
    """A line per network: clean (ring), the protocol (tick) and the worst case (filled), with 95% intervals."""
    with style():
        figure = new(0.9 + 0.36 * len(rows))
        axes = figure.subplots()
        for y, one in enumerate(rows):
            with belonging(axes, y, _values(one), y):
                _line(axes, y, one, SERIES[0] if one["name"] == chosen else MUTED)
        names = [short(one["name"]) + " (chosen)" * (one["name"] == chosen) for one in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(-1.5, 101.5)
        axes.set_xlabel("accuracy on test images, with 95% intervals")
        in_percent(axes.xaxis)
        bare(axes, grid="x")
        return save("improve", figure, out)


def _line(axes: Any, y: float, one: Row, colour: str) -> None:
    clean, worst = one["clean"], one["worst"]
    axes.plot([100 * worst["value"], 100 * clean["value"]], [y, y], color=FAINT, linewidth=1, zorder=1)
    for score, width in ((clean, 1.4), (worst, 2.2)):
        axes.plot([100 * score["low"], 100 * score["high"]], [y, y], color=colour, linewidth=width, zorder=2)
    axes.plot([100 * clean["value"]], [y], "o", markersize=5.5, color=PAPER, markeredgecolor=colour, zorder=3)
    axes.plot([100 * one["protocol"]["value"]], [y], "|", color=colour, markersize=9, zorder=3)
    axes.plot([100 * worst["value"]], [y], "o", markersize=6.5, color=colour, zorder=4)


def _values(one: Row) -> str:
    """What a line says of its network."""
    scores = {"clean": one["clean"], "protocol alone": one["protocol"], "worst case": one["worst"]}
    return f"{one['name']}: {'; '.join(f'{name} {_share(score)}% {_between(score)}' for name, score in scores.items())}"


def _share(score: Row) -> str:
    return f"{100 * score['value']:.1f}"


def _between(score: Row) -> str:
    return f"[{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
