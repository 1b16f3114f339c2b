"""The page: one HTML file that needs nothing else, and the tables and figures beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .. import records
from ..records import Check, Result
from ..registry import plain
from . import answer, cells, columns, curves, figures, tables
from .apart import flat
from .card import card, compared, facts, of, subtitle
from .frame import rendered
from .plot_style import SERIES
from .robustbench import Entry
from .sheet import Example, examples_of
from .words import anchor, docs, joined, percent, training, where

SCHEMA = 1


def write(
    out: Path,
    results: Sequence[Result],
    *,
    title: str,
    provenance: Mapping[str, Any],
    failures: Mapping[str, str] | None = None,
    published: Sequence[Entry] = (),
    examples: Sequence[Sequence[Mapping[str, Any]]] = (),
) -> Path:
    """Write `report.html`, `results.json`, `.csv`, `.md`, `.tex` and `figures/` into the folder `out`; returns the page's path.

    `failures` are cells that did not end, with the reason; `published` are entries of RobustBench to compare with;
    `examples` are the adversarial images that each result's run kept, one sequence per result (`sheet.examples_of`). The
    same arguments give the same bytes. Raises ValueError for no results: there is nothing to report.
    """
    if not results:
        raise ValueError("a report needs at least one result; got none; run normwise bench, train or evaluate first")
    failed, found = dict(failures or {}), cells.of(results)
    data = {"schema": SCHEMA, "title": title, "provenance": plain(provenance), "cells": plain(list(results))}
    records.write(out / records.RESULTS, json.dumps(data | {"failures": failed}, indent=2, allow_nan=False) + "\n")
    for kind, write_table in (("csv", tables.to_csv), ("md", tables.to_markdown), ("tex", tables.to_latex)):
        records.write(out / f"results.{kind}", write_table(results))
    drawn, shown = figures.draw(found, out), data["provenance"]
    said = answer.of(found, failed)
    trust = "".join(f"{short}. " for short, _ in said.cautions).strip()
    page = rendered(
        "page.html",
        title=title,
        answer=said,
        under=[compared(found), *said.exceptions, *([("How far to trust it", trust)] if trust else [])],
        docs=docs(out),
        pictures=_pictures(found, results, examples),
        failures=failed,
        published=published,
        figures=[(one, _CAPTIONS[one.name](found)) for one in drawn],
        provenance=[(key, text) for key, text in facts(shown) if key != "command"],
        command=shown.get("command") or "",
        made=_made(shown, [r for cell in found for r in cell.results]),
        **_of_cells(found),
        **_WORDS,
    )
    return records.write(out / "report.html", page)


_WORDS = {
    "of": of,
    "anchor": anchor,
    "percent": percent,
    "interval": tables.interval,
    "duration": tables.duration,
    "count": tables.count,
}


def _of_cells(found: Sequence[cells.Cell]) -> dict[str, Any]:
    """What the page shows of the cells alone."""
    results = [r for cell in found for r in cell.results]
    heads, rows = tables.main(found)
    return {
        "subtitle": subtitle(found),
        "card": card(found),
        "cards": columns.numbered(found),
        "columns": heads,
        "several": columns.scores,
        "attackers": ["Clean", columns.NAMES["linf"], *columns.names(found)],
        "rows": rows,
        "headline": [place for place, column in enumerate(heads) if column.headline],
        "colours": {recipe: f"--series{SERIES.index(colour)}" for recipe, colour in figures.recipes(found).items()},
        "curves": lambda over: curves.of(found, over),
        "value_text": curves.value,
        "cells": found,
        "filters": _filters(found),
        "results": results,
        "coupled": [(cell, r) for cell in found for r in cell.results if r.evaluation.coupled],
        "concerns": _concerns(found),
        "checks": list(dict.fromkeys(check.name for r in results for check in r.evaluation.checks)),
        "settings": _shared(results),
        "seeds": joined(dict.fromkeys(str(r.experiment.get("seed", r.evaluation.seed)) for r in results)),
        "attacks": joined(cells.attackers(results) or ["no attack"]),
        "paired": any(cell.paired for cell in found),
        "alone": any(r.evaluation.single for r in results),
        "protocol": joined(cells.attackers(results, further=False) or ["no attack"]),
        "where": partial(_name, seeds=any(len(cell.results) > 1 for cell in found)),
    }


def _filters(found: Sequence[cells.Cell]) -> dict[str, dict[str, list[int]]]:
    """By what a reader may choose cells: each choice with the numbers of its cells; what all have in common is no choice."""
    choices: dict[str, dict[str, list[int]]] = {"Normalization": {}, "Training": {}, "Setting": {}}
    for number, cell in enumerate(found):
        for choice, name in zip(choices.values(), (cell.norm, cell.recipe, cell.setting), strict=True):
            choice.setdefault(name, []).append(number)
    return {what: choice for what, choice in choices.items() if len(choice) > 1}


def _accuracy_caption(found: Sequence[cells.Cell]) -> tuple[str, str]:
    if len(found) == 1:
        return "Accuracy under attack", "Each bar is a 95% interval. The worst case is taken over all attacks together."
    text = "Each line is one network. The figures at the right are its worst case under attack, with its 95% interval."
    if shown := cells.references(found):
        text += f" It counts as more robust than {cells.compared_with(shown)} if it keeps at least 5 points more, and chance does not explain them, for all comparisons together."
    text += "".join(f" {stand} at test time: {joined(names)}." for stand, names in _reads(found).items())
    if any(cell.doubts for cell in found):
        text += " !: a sanity check warns about the network."
    if any(len(cell.results) > 1 for cell in found):
        text += " Small strokes below a mark are single seeds."
    return "Worst-case and clean accuracy", text


def _reads(found: Sequence[cells.Cell]) -> dict[str, list[str]]:
    """Which norms read what at test time, where they do not read the same."""
    reads: dict[str, list[str]] = {}
    for cell in found:
        what = tables.reading(cell.results[0].evaluation.norm_reads)
        names = reads.setdefault(_READ.get(what, what), [])
        if cell.norm not in names:
            names.append(cell.norm)
    return reads if len(reads) > 1 else {}


_READ = {
    "running": "Uses statistics kept from training",
    "batch": "Reads the batch",
    "sample": "Reads each image alone",
    "none": "Reads nothing",
}


def _cost_caption(found: Sequence[cells.Cell]) -> tuple[str, str]:
    text = "Training time against worst-case accuracy, with 95% intervals. Up and to the left is better."
    return "What robustness costs", f"{text} Times are wall-clock times, and depend on the machine and its load."


def _curve_caption(over: str) -> Callable[[Sequence[cells.Cell]], tuple[str, str]]:
    text = "An image broken at one value counts as broken at every larger one, so no curve rises. Bands are 95% intervals."
    return lambda found: (curves.TITLES[over], text)


def _columns_caption(found: Sequence[cells.Cell]) -> tuple[str, str]:
    text = "Accuracy under the strongest attack of each attacker, their mean, and the share of images that stay correct under all of them."
    return "Under several attackers", f"{text} The darker, the more stay correct."


_CAPTIONS = {"accuracy": _accuracy_caption, "columns": _columns_caption, "cost": _cost_caption} | {
    over: _curve_caption(over) for over in curves.TITLES
}


def _name(cell: cells.Cell, result: Result, seeds: bool) -> str:
    """Name one result in a list: norm, recipe, and what else tells it from others."""
    name = where(f"{cell.norm}, {training(cell.recipe)}" if result.training else cell.norm, cell.setting)
    return f"{name}, seed {result.experiment.get('seed', result.evaluation.seed)}" if seeds else name


def _pictures(
    found: Sequence[cells.Cell], results: Sequence[Result], examples: Sequence[Sequence[Mapping[str, Any]]]
) -> list[tuple[str, list[Example]]]:
    """The adversarial images that runs kept, each sheet with the name of its network."""
    kept = zip(results, examples, strict=True) if examples else ()
    names = {id(r): _name(cell, r, seeds=len(cell.results) > 1) for cell in found for r in cell.results}
    return [(names[id(r)], sheet) for r, given in kept if id(r) in names and (sheet := examples_of(given))]


def _concerns(found: Sequence[cells.Cell]) -> dict[tuple[str, str], list[tuple[cells.Cell, Result, Check]]]:
    """Raised checks by name and reason, with the cells that raised them and what was measured there."""
    concerns: dict[tuple[str, str], list[tuple[cells.Cell, Result, Check]]] = {}
    for cell in found:
        for result in cell.results:
            for check in cells.raised([result]):
                concerns.setdefault((check.name, check.why), []).append((cell, result, check))
    return concerns


def _made(provenance: Mapping[str, Any], results: Sequence[Result]) -> list[list[tuple[str, str]]]:
    """How the networks came to be, where that is not how the report did."""
    made = []
    for lines in (facts(plain(r.evaluation.provenance)) for r in results):
        if lines and lines not in made and not set(lines) <= set(facts(provenance)):
            made.append(lines)
    return made


def _shared(results: Sequence[Result]) -> list[tuple[str, str]]:
    """The settings that all results have in common."""
    each = [flat(r.experiment) for r in results]
    return [(key, json.dumps(value)) for key, value in each[0].items() if all(key in e and e[key] == value for e in each)]
