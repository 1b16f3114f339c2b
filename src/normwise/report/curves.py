"""Curves of a report: worst-case accuracy over the radius, and over the attacks' steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..records import Curve, Result
from .cells import Cell
from .plot_style import SERIES, bare, belonging, in_percent, mark, new, short
from .words import training, where

TITLES = {"eps": "Accuracy over the radius", "steps": "Accuracy over the attack's steps"}
_AXES = {"eps": "radius in 1/255 of the pixel range", "steps": "gradient steps of the attack"}
_AT = {"eps": "radius", "steps": "steps"}
_STYLES = ("-", "--", ":", "-.")


def of(found: Sequence[Cell], over: str) -> list[tuple[str, Curve, Result, int]]:
    """The curves over one thing, each with the name of its network, its result and the number of its cell."""
    several = sum(len(cell.results) for cell in found) > 1
    return [
        (_name(cell, result) if several else cell.norm, curve, result, number)
        for number, cell in enumerate(found)
        for result in cell.results
        for curve in result.evaluation.curves
        if curve.over == over
    ]


def _name(cell: Cell, result: Result) -> str:
    name = where(f"{cell.norm}, {training(cell.recipe)}" if result.training else cell.norm, cell.setting)
    return f"{name}, seed {result.evaluation.seed}" if len(cell.results) > 1 else name


def value(curve: Curve, number: float) -> str:
    """Write a value as people say it: a radius in 255ths, steps as a number."""
    return f"{255 * number:.3g}/255" if curve.over == "eps" else f"{number:g}"


def draw(found: Sequence[Cell], over: str) -> Any:
    """A line per network, with its 95% intervals."""
    lines = of(found, over)
    figure = new(2.6)
    axes = figure.subplots()
    for number, (name, curve, _, cell) in enumerate(lines):
        colour, style = SERIES[number % len(SERIES)], _STYLES[number // len(SERIES) % len(_STYLES)]
        x = [255 * one if over == "eps" else one for one in curve.values]
        low, y, high = ([100 * getattr(score, part) for score in curve.scores] for part in ("low", "value", "high"))
        with belonging(axes, cell):
            axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
            axes.plot(x, y, style, marker="o", markersize=4, linewidth=1.4, color=colour, label=short(name))
        for place, at, score in zip(x, curve.values, curve.scores, strict=True):
            mark(axes, place, 100 * score.value, f"{name}, {_AT[over]} {value(curve, at)}: {score}", cell)
    axes.set_ylim(-1.5, 101.5)
    axes.set_xlabel(_AXES[over])
    axes.set_ylabel("worst-case accuracy")
    in_percent(axes.yaxis)
    bare(axes, grid="y")
    if len(lines) > 1:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=7.5)
    return figure
