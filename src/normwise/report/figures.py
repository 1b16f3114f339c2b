"""Figures of a report, drawn with matplotlib's objects alone; the same records give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..record import Result
from .tables import label, scores

INK = "#1a1c1f"  # becomes the page's own text colour in the inline drawing
CLEAN, WORST, COUPLED = "#4c9ed9", "#d95f43", "#a06cd5"  # told apart by shape too
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "normwise",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


class Drawing(NamedTuple):
    """One figure: its file name, title, what it shows in words, and both renderings."""

    name: str
    title: str
    alt: str
    svg: str
    png: bytes


def draw(results: Sequence[Result]) -> list[Drawing]:
    """Draw the figures that the results allow."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        drawings = [_accuracy(results)]
        if any(result.training for result in results):
            drawings.append(_cost([result for result in results if result.training]))
    return drawings


def _name(result: Result) -> str:
    return label(result, "norm") if result.experiment.get("norm") else result.name


def _accuracy(results: Sequence[Result]) -> Drawing:
    recipes = list(dict.fromkeys(label(result, "recipe") for result in results))
    norms = list(dict.fromkeys(_name(result) for result in results))
    figure, axes = _figure(9, 1.4 + 0.42 * len(norms), len(recipes))
    for axis, recipe in zip(axes, recipes, strict=True):
        for result in results:
            if label(result, "recipe") != recipe:
                continue
            y = norms.index(_name(result))
            found = scores(result)
            for score, colour, marker, shift in (
                (found["clean"], CLEAN, "o", -0.12),
                (
                    found["worst case"],
                    COUPLED if result.evaluation.coupled else WORST,
                    "D" if result.evaluation.coupled else "s",
                    0.12,
                ),
            ):
                axis.plot(
                    [100 * score.low, 100 * score.high], [y + shift] * 2, color=colour, linewidth=2, solid_capstyle="butt"
                )
                axis.plot([100 * score.value], [y + shift], marker, color=colour, markersize=6)
        axis.set(xlim=(-2, 102), ylim=(len(norms) - 0.5, -0.5), xlabel="accuracy, %", yticks=range(len(norms)))
        axis.set_yticklabels(norms if axis is axes[0] else [])
        axis.set_title("" if recipe == "–" else f"{recipe} training", fontsize=10, loc="left")
        axis.grid(axis="x", color="#8885", linewidth=0.6)
    marks = [("clean", CLEAN, "o"), ("worst case, independent rows", WORST, "s"), ("worst case, coupled rows", COUPLED, "D")]
    handles = [axes[0].plot([], [], marker, color=colour, label=text)[0] for text, colour, marker in marks]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return _drawing(
        figure,
        "accuracy",
        "Clean and worst-case accuracy",
        "Clean accuracy and worst-case accuracy with 95% intervals for each norm, one panel for each way of training; "
        "the numbers are in the table above.",
    )


def _cost(results: Sequence[Result]) -> Drawing:
    figure, (axis,) = _figure(9, 3.6, 1)
    markers = dict(zip(dict.fromkeys(label(result, "recipe") for result in results), "osD^v<>", strict=False))
    for result in results:
        assert result.training is not None
        x, y = result.training.seconds, 100 * result.evaluation.robust_accuracy.value
        colour = COUPLED if result.evaluation.coupled else WORST
        axis.plot([x], [y], markers.get(label(result, "recipe"), "o"), color=colour, markersize=6)
        short = str((result.experiment.get("norm") or {}).get("name") or result.name)
        axis.annotate(short, (x, y), xytext=(0, 6), textcoords="offset points", fontsize=8, ha="center")
    axis.set(xlabel="training, seconds", ylabel="worst-case accuracy, %", ylim=(-4, 104), xscale="log")
    axis.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axis.xaxis.set_minor_formatter(lambda value, position: f"{value:g}" if str(f"{value:e}")[0] in "25" else "")
    axis.grid(color="#8885", linewidth=0.6)
    handles = [axis.plot([], [], marker, color="#888", label=f"{recipe} training")[0] for recipe, marker in markers.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return _drawing(
        figure,
        "cost",
        "What it costs",
        "Training time against worst-case accuracy, one point for each trained network; the numbers are in the table above.",
    )


def _figure(width: float, height: float, panels: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _drawing(figure: Any, name: str, title: str, alt: str) -> Drawing:
    svg, png = io.StringIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Title": title}, transparent=True)
    figure.savefig(png, format="png", dpi=150, facecolor="white", metadata={"Software": None})
    return Drawing(name, title, alt, svg.getvalue(), png.getvalue())
