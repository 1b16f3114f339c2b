"""A series as a small plot in the page's own colours: places in percent of its box, so that it fits a phone and a sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

LEFT, RIGHT, TOP, BOTTOM = 10.0, 97.0, 5.0, 84.0  # percent of the box
_CROWDED = 9.0  # percent: labels nearer than this to the one before are left out


class Tick(NamedTuple):
    """A place on an axis, in percent of the box, and what it is called; an empty name has no room."""

    at: float
    name: str


class Plot(NamedTuple):
    """Curves as (name, points), their axes, and the numbers behind them: a value, and a score per curve.

    A point is its place in percent of the box, and what it says.
    """

    over: str
    of: str
    curves: list[tuple[str, list[tuple[float, float, str]]]]
    x: list[Tick]
    y: list[Tick]
    numbers: list[tuple[str, ...]]


def plot(series: Mapping[str, Any], *, in_255ths: bool = False) -> Plot:
    """Lay out `{"over": "steps", "values": [...], "scores": [...]}`; scores are shares, unless they are `of` something that is no accuracy.

    `beside`, where there is one, has further curves over the same values: `{"along random directions": [...]}`. Values that
    span more than a factor of 20 lie on a logarithmic axis. `in_255ths`: radii are written so where three digits say them
    exactly. Raises ValueError for no values, or not as many scores.
    """
    over, of = str(series["over"]), str(series.get("of") or "accuracy")
    values = [float(one) for one in series["values"]]
    given = [(of, series["scores"]), *(series.get("beside") or {}).items()]
    curves = [(str(name), [float(one) for one in scores]) for name, scores in given]
    for name, scores in curves:
        if not values or len(values) != len(scores):
            counted = f"{len(values)} values and {len(scores)} scores"
            raise ValueError(f"a series of {name} over {over} has {counted}; give as many, one at least")
    shares = "accuracy" in of
    low, high, grid = (
        span([one for _, scores in curves for one in scores]) if not shares else (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0])
    )
    fraction = (
        in_255ths and over in ("radius", "eps") and all(math.isclose(float(f"{255 * v:.3g}"), 255 * v) for v in values)
    )

    def write(score: float) -> str:
        return f"{100 * score:.1f}%" if shares else f"{score:.3g}"

    def called(value: float) -> str:
        return f"{255 * value:.3g}/255" if fraction else f"{value:.3g}"

    def height(score: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (score - low) / (high - low), 2)

    places = _places(values)
    x, before = [], -math.inf
    for place, value in sorted(zip(places, values, strict=True)):
        roomy = place - before >= _CROWDED
        x.append(Tick(place, called(value) if roomy else ""))
        before = place if roomy else before
    return Plot(
        over,
        of,
        [
            (
                name,
                sorted(
                    (place, height(one), f"{name}, {over} {called(value)}: {write(one)}")
                    for place, value, one in zip(places, values, scores, strict=True)
                ),
            )
            for name, scores in curves
        ],
        x,
        [Tick(height(one), f"{100 * one:.0f}%" if shares else f"{one:.3g}") for one in grid],
        [(called(value), *map(write, each)) for value, *each in zip(values, *(scores for _, scores in curves), strict=True)],
    )


def _places(values: list[float]) -> list[float]:
    """Where values lie on the axis, in percent of the box."""
    logarithmic = min(values) > 0 and max(values) > 20 * min(values)
    scaled = [math.log(one) for one in values] if logarithmic else values
    low, span = min(scaled), max(scaled) - min(scaled) or 1.0
    return [round(LEFT + 3 + (RIGHT - LEFT - 6) * (one - low) / span, 2) for one in scaled]


def span(scores: list[float]) -> tuple[float, float, list[float]]:
    """The ends of an axis for any numbers, and three to six round places on it."""
    span = max(scores) - min(scores) or abs(scores[0]) or 1.0
    step = 10 ** math.floor(math.log10(span))
    step = next(step * part for part in (0.2, 0.5, 1, 2, 5) if span / (step * part) <= 5)
    low, high = step * math.floor(min(scores) / step), step * math.ceil(max(scores) / step)
    high = high if high > low else low + step
    return low, high, [low + step * k for k in range(round((high - low) / step) + 1)]
