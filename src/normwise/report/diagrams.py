"""Figures of a diagnosis: networks side by side, over sites, steps and quantiles, and slices as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from . import slices
from .findings import ALL, Row, Side
from .plot_style import FAINT, INK, MUTED, PAPER, SERIES, Drawn, bare, in_percent, mark, new, save, short, style
from .words import joined, plural

_KINDS = {"clean": MUTED, "noise": SERIES[0], "adversarial": SERIES[1]}
_CORRUPTED = SERIES[2]  # inputs of other names
_MARKS = ("o", "s", "^", "D")
_STYLES = ("-", "--", ":", "-.")
Points = Mapping[str, Sequence[float]]  # per line its values over the sites


def draw(diagnosis: str, sides: Sequence[Side], out: Path) -> list[tuple[Drawn, str]]:
    """Draw what there are figures for, each with its caption."""
    shown = [side for side in sides if side.rows]
    if not shown or diagnosis not in _DRAWN:
        return []
    with style():
        return [(save(name, figure, out), caption) for name, figure, caption in _DRAWN[diagnosis](shown)]


def _drift(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    kinds = {row["input"]: _KINDS.get(row["input"], _CORRUPTED) for side in sides for row in side.rows}
    for name, column, unit, caption in _DISTANCES:
        figure = _over_sites(sides, partial(_by_kind, kinds, column), unit, kinds, together=_reference)
        yield name, figure, f"{caption} {_references(sides)}"
    alike = {reference: [side for side in sides if _reference(side) == reference] for reference in map(_reference, sides)}
    figure = new(2.4)
    panels = figure.subplots(1, len(alike), squeeze=False)[0]
    for axes, (reference, group) in zip(panels, alike.items(), strict=True):
        for side in group:
            attacked = [row for row in side.rows if row["input"] in ("adversarial", "clean")]
            steps = sorted({row["steps"] for row in attacked})
            means = [_mean([row["moved"] for row in attacked if row["steps"] == step]) for step in steps]
            axes.plot(steps, means, label=short(side.model), **_line(sides.index(side)))
            for step, mean in zip(steps, means, strict=True):
                mark(axes, step, mean, f"{side.model}, {plural(step, 'step')}: {mean:.3g} deviations")
        axes.set_xticks(sorted({row["steps"] for side in group for row in side.rows if row["steps"] is not None}))
        axes.set_xlabel("steps of PGD")
        axes.set_ylabel("mean moved, in deviations" + (f"\n({joined(reference)})" if len(alike) > 1 else ""))
        bare(axes, grid="y")
    lines = [axes.get_legend_handles_labels() for axes in panels]
    _legend(figure, tuple([one for line in lines for one in line[part]] for part in (0, 1)))
    yield "steps", figure, "How far the attack moves means from those of the clean batch, by step: mean over layers."


_DISTANCES = (
    (
        "moved",
        "moved",
        "mean moved, in deviations",
        "How far the inputs of each norm layer move their mean from that of the clean batch.",
    ),
    (
        "shift",
        "shift",
        "distance, in deviations",
        "Distance of the mean of the inputs of each norm layer from the reference, also for clean images.",
    ),
    ("spread", "log variance ratio", "|log variance ratio|", "Distance of their spread from the reference."),
)
_WORDS = {"running": "its running statistics", "clean": "the clean batch"}


def _reference(side: Side) -> tuple[str, ...]:
    """What a network's layers are compared with."""
    return tuple(sorted({str(row["reference"]) for row in side.rows}))


def _references(sides: Sequence[Side]) -> str:
    """Say what each network is compared with: where these differ, so do the distances of clean images."""
    references = {side.model: [_WORDS.get(one, one) for one in _reference(side)] for side in sides}
    alone = " Panels with other references have their own axes." if len(set(map(_reference, sides))) > 1 else ""
    return f"Reference: {'; '.join(f'{model}: {joined(words)}' if len(references) > 1 else joined(words) for model, words in references.items())}.{alone}"


def _by_kind(kinds: Iterable[str], column: str, rows: Sequence[Row]) -> Points:
    """Per kind of input the figures over sites; of adversarial inputs those after most steps."""
    last = max((row["steps"] for row in rows if row["input"] == "adversarial"), default=None)
    return {
        kind: [
            _number(row[column]) for row in rows if row["input"] == kind and (kind != "adversarial" or row["steps"] == last)
        ]
        for kind in kinds
    }


def _flips(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    columns = {
        "mended: clean batch's": ("repaired", SERIES[2]),
        "mended: image's own": ("by row", SERIES[3]),
        "mended: read again": ("reread", SERIES[0]),
        "broken: attack's": ("broken", SERIES[1]),
    }
    figure = _over_sites(
        sides,
        lambda rows: {name: [100 * _number(row[column]) for row in rows] for name, (column, _) in columns.items()},
        "share of images",
        {name: colour for name, (_, colour) in columns.items()},
        bars=True,
    )
    yield (
        "flips",
        figure,
        "Mended: share of the images broken by the attack that become right with other mean and spread in a layer. These are the clean "
        "batch's, each image's own clean ones, or those of the attacked batch, read again. Broken: share of the right images that "
        "become wrong with the attack's. A place without a bar is 0%.",
    )


def _gamma(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    colours = {"tiny": SERIES[0], "dead": SERIES[1], "constant": SERIES[2], "off": SERIES[3]}
    yield (
        "gamma",
        _over_sites(
            sides,
            lambda rows: {name: [100 * _number(row[name]) for row in rows] for name in colours},
            "share of channels",
            colours,
        ),
        "Channels whose scale is tiny or dead relative to the layer's largest, whose output is constant, or never above 0.",
    )


def _saturation(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    colours = {"saturated": SERIES[0], "saturated under attack": SERIES[1], "passes": SERIES[2]}
    figure = _over_sites(
        sides,
        lambda rows: {name: [100 * _number(row[name]) for row in rows] for name in colours},
        "share of units, of gradient",
        colours,
    )
    yield "saturation", figure, "Units whose slope is below a share of the largest one, and how much of the gradient passes."


def _over_sites(
    sides: Sequence[Side],
    points: Callable[[Sequence[Row]], Points],
    label: str,
    colours: Mapping[str, str],
    bars: bool = False,
    together: Callable[[Side], Any] = bool,
) -> Any:
    """A panel per network, two beside each other: lines or bars over its sites; a `label` of shares is in percent. Those that are `together` share an axis."""
    across = min(2, len(sides))
    down = math.ceil(len(sides) / across)
    figure = new(0.4 + 2.5 * down)
    grid = figure.subplots(down, across, squeeze=False)
    first: dict[Any, Any] = {}
    for number, (axes, side) in enumerate(zip(grid.flat, sides, strict=False)):
        axes.sharey(first.setdefault(together(side), axes))
        if number % across and together(side) == together(sides[number - 1]):
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(label)
        axes.set_xlabel("norm layer")
        names = list(dict.fromkeys(row["site"] for row in side.rows))
        drawn = {name: values for name, values in points(side.rows).items() if not all(map(math.isnan, values))}
        for line, (name, values) in enumerate(drawn.items()):
            places = [float(at) for at in range(len(values))]
            if bars:
                width = 0.8 / len(drawn)
                places = [at - 0.4 + width * (line + 0.5) for at in places]
                axes.bar(places, values, width, color=colours[name], label=short(name, 24))
            else:
                axes.plot(
                    places,
                    values,
                    color=colours[name],
                    marker=_MARKS[line % 4],
                    label=short(name, 24),
                    **_MARKED,
                )
            for site, at, value in zip(names, places, values, strict=False):
                text = f"{value:.1f}%" if label.startswith("share") else f"{value:.3g} ({label})"
                mark(axes, at, value, f"{side.model}, {site}, {name}: {text}")
        every = math.ceil(len(names) / 24)  # more names than these do not fit
        axes.set_xticks(
            range(0, len(names), every),
            ["all layers" if name == ALL else short(name, 22) for name in names[::every]],
            rotation=90,
            fontsize=6.5,
        )
        if ALL in names:
            axes.axvline(len(names) - 1.5, color=FAINT, linewidth=0.8)
        axes.set_title(short(side.model, 40), loc="left", fontsize=9, fontweight="bold", color=INK)
        bare(axes, grid="y")
        if label.startswith("share"):
            in_percent(axes.yaxis)
    for axes in first.values():
        axes.set_ylim(bottom=0)  # once all is drawn: it ends the growing of the shared axis
    for axes in grid.flat[len(sides) :]:
        axes.set_visible(False)
    _legend(figure, max((axes.get_legend_handles_labels() for axes in grid.flat), key=lambda found: len(found[1])))
    return figure


def _margins(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    figure = new(2.4)
    axes = figure.subplots()
    linf = sides[0].rows[0]["geometry"] == "linf" if sides else False
    for number, side in enumerate(sides):
        found = [row for row in side.rows if row["distance"] is not None]
        x = [row["distance"] * (255 if linf else 1) for row in found]
        axes.plot(x, [row["quantile"] for row in found], label=short(side.model), **_line(number))
        for at, row in zip(x, found, strict=True):
            text = f"{side.model}: {row['quantile']:g}% of images at most {at:.3g}{'/255' * linf} away"
            mark(axes, at, row["quantile"], text)
    axes.set_ylim(-5, 105)
    axes.set_xlim(left=0)
    axes.set_xlabel("distance to the nearest misclassified image" + " in 1/255 of the pixel range" * linf)
    axes.set_ylabel("images at most this far")
    in_percent(axes.yaxis)
    bare(axes, grid="both")
    _legend(figure)
    yield "margins", figure, "Further to the right, images must change more to be misclassified."


def _smoothness(sides: Sequence[Side]) -> Iterator[tuple[str, Any, str]]:
    names = list(dict.fromkeys(row["figure"] for side in sides for row in side.rows))
    figure = new(0.3 + len(names) * (0.55 + 0.24 * len(sides)))
    for axes, name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0] if names else (), names, strict=True):
        unit = ""
        for y, side in enumerate(sides):
            for row in side.rows:
                if row["figure"] == name and row["median"] is not None:
                    unit, colour = row["unit"], SERIES[y % len(SERIES)]
                    axes.plot([row["5%"], row["95%"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
                    axes.plot([row["median"]], [y], "o", color=colour, markersize=6, markeredgecolor=PAPER)
                    text = f"median {row['median']:.3g}, 5% {row['5%']:.3g}, 95% {row['95%']:.3g}"
                    mark(axes, row["median"], y, f"{side.model}, {name}: {text} ({unit})")
        axes.set_yticks(range(len(sides)), [short(side.model, 30) for side in sides])
        axes.set_ylim(len(sides) - 0.4, -0.6)
        axes.set_title(short(f"{name[:1].upper()}{name[1:]}, {unit}", 60), loc="left", fontsize=8.5, color=INK)
        bare(axes, grid="x")
    yield "smoothness", figure, "Medians over images, with bars from 5% to 95% of them."


_MARKED: dict[str, Any] = {"markersize": 3.5, "linewidth": 1.3}


def _line(number: int) -> dict[str, Any]:
    """How the line of one network looks."""
    style = _STYLES[number // len(SERIES) % len(_STYLES)]
    return {"color": SERIES[number % len(SERIES)], "linestyle": style, "marker": "o", **_MARKED}


def _legend(figure: Any, found: Any = ()) -> None:
    figure.legend(*found, loc="outside upper left", ncols=4, frameon=False, fontsize=7.5, labelcolor=MUTED)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value


_DRAWN: dict[str, Callable[[Sequence[Side]], Iterator[tuple[str, Any, str]]]] = {
    "drift": _drift,
    "flips": _flips,
    "margins": _margins,
    "slices": slices.draw,
    "smoothness": _smoothness,
    "gamma": _gamma,
    "saturation": _saturation,
}
