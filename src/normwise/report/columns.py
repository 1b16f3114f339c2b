"""What each network keeps under several attackers: columns of the table, and a figure of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ..records import Result, Score
from .card import Card, of
from .cells import Cell, over_seeds
from .plot_style import INK, PAPER, SERIES, new, short
from .words import percent, training, where

NAMES = {"linf": "PGD-linf", "l2": "PGD-l2", "multav": "MultAV", "roa": "ROA", "af": "AF", "spa": "SPA"}
HOVERS = {
    "PGD-l2": "Worst case where the image may move by a Euclidean length",
    "MultAV": "Worst case where every pixel may be multiplied by a factor",
    "ROA": "Worst case where a square anywhere may change",
    "AF": "Worst case where a frame around the picture may change",
    "SPA": "Worst case where a few pixels may change",
    "Mean": "Mean of the worst cases under each of the attackers, Linf among them",
    "Union": "Share of images that stay correct under every one of the attackers; of coupled images, the worst attacker of each batch counts",
}


class Under(NamedTuple):
    """What a network keeps under one attacker, or under several: its name, after the protocol, after all, and its threat card."""

    name: str
    protocol: Score | None
    worst: Score
    card: Card | None = None


def under(result: Result) -> list[Under]:
    """What a network keeps under each further attacker, on average and under all of them; nothing where there are none."""
    if not (several := result.several):
        return []
    found = [
        Under(NAMES.get(kind, kind), e.protocol_accuracy, e.headline, of(replace(result, evaluation=e, several=None)))
        for kind, e in several.evaluations.items()
    ]
    both = Under("Mean", several.protocol_mean, several.mean), Under("Union", several.protocol_union, several.union)
    return [*found, *both]


def names(found: Sequence[Cell]) -> list[str]:
    """The names of the columns, mean and union last."""
    each = dict.fromkeys(one.name for cell in found for result in cell.results for one in under(result))
    return [name for name in each if name not in ("Mean", "Union")] + [name for name in ("Mean", "Union") if name in each]


def numbered(found: Sequence[Cell]) -> dict[Card, int]:
    """The different cards of a report, numbered from 1: those of the networks' own threat models first."""
    results = [result for cell in found for result in cell.results]
    cards = [*map(of, results), *(one.card for result in results for one in under(result) if one.card)]
    return {card: number for number, card in enumerate(dict.fromkeys(cards), 1)}


def scores(cell: Cell) -> dict[str, Score]:
    """What a cell keeps, over its seeds: clean, under its own threat model, and in each column."""
    each = [{one.name: one.worst for one in under(result)} for result in cell.results]
    common = [name for name in each[0] if all(name in one for one in each)]
    return {"Clean": cell.clean, NAMES["linf"]: cell.worst} | {
        name: over_seeds([one[name] for one in each]) for name in common
    }


def draw(found: Sequence[Cell]) -> Any:
    """A row per network, a column per attacker: the more a network keeps, the darker."""
    shown = [cell for cell in found if any(map(under, cell.results))]
    heads = ["Clean", NAMES["linf"], *names(shown)]
    figure = new(0.5 + 0.3 * len(shown))
    axes = figure.subplots()
    for y, cell in enumerate(shown):
        for x, score in ((heads.index(name), score) for name, score in scores(cell).items()):
            axes.barh(y, 0.96, left=x - 0.48, height=0.9, color=SERIES[0], alpha=0.08 + 0.82 * score.value, linewidth=0)
            axes.text(
                x, y, percent(score.value), ha="center", va="center", color=PAPER if score.value > 0.5 else INK, fontsize=8
            )
    axes.set_xticks(range(len(heads)), heads, fontsize=7.5)
    axes.xaxis.tick_top()
    called = [short(where(f"{cell.norm}, {training(cell.recipe)}", cell.setting)) for cell in shown]
    axes.set_yticks(range(len(shown)), called)
    axes.set_xlim(-0.5, len(heads) - 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    return figure
