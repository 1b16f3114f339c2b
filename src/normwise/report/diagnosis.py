"""The page of a diagnosis: one section per diagnosis, networks side by side, and the tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import records
from .apart import label
from .card import ALONE, FIXED, JOINT, KNOWS, Card, allowed, coupling, moves, radius, rows
from .diagrams import draw
from .findings import Side, headline, labels, sentences, sides, within
from .frame import rendered
from .plot_style import Drawn
from .words import anchor, capital, joined, plural, where

_TITLES = {
    "flips": (
        "Which layer flips the decision",
        "Mean and spread of the inputs, swapped at one norm layer after the other and at all. In late layers an image's own "
        "channel means hold the class itself: that they mend images there says little. In early layers it would say much.",
    ),
    "drift": (
        "Drift",
        "How far the inputs of each norm layer move from those of clean images. Deviations are standard deviations.",
    ),
    "margins": (
        "Margins",
        "The distance to the nearest misclassified image; the radius of the threat model does not limit it.",
    ),
    "slices": ("Slices of the decision", "Planes through an image, along the attack and along a random direction."),
    "smoothness": ("Smoothness", "Input gradients, how fast they change, and how far logits can be moved."),
    "gamma": ("Use of features", "The scales of the norm layers, and which of their outputs vary over clean images."),
    "saturation": (
        "Saturation",
        "Bounded functions in a norm's place (Dynamic Tanh, Derf): where they are flat, little gradient passes, and attacks see little.",
    ),
}


_CLIMBED = "PGD on the cross-entropy from the clean image, nothing stops early, the last image counts"
_ATTACKS = {  # what each diagnosis does to images; its options follow
    "drift": f"{_CLIMBED}; beside it noise of the same size, and a natural corruption",
    "flips": _CLIMBED,
    "margins": "FMN, which looks for the nearest misclassified image: eps does not limit it",
    "slices": "no attack, points along a step of steepest ascent of one radius and a random one",
    "smoothness": f"{_CLIMBED}; gradients at random points of the region",
    "gamma": "no attack, clean images",
    "saturation": _CLIMBED,
}


RECORD = "diagnose.json"


class Section(NamedTuple):
    """What the page says of one diagnosis; `id` is its place in the page."""

    id: str
    name: str
    title: str
    about: str
    findings: list[str]
    notes: list[str]
    figures: list[tuple[Drawn, str]]
    columns: list[tuple[str, str]]  # with their units
    rows: list[list[Any]]


def write(out: Path, record: Mapping[str, Any]) -> tuple[Path, list[str]]:
    """Write `diagnose.html`, `tables/` and `figures/` into `out`; returns the page's path and what it finds, in sentences.

    `record` is what `diagnose.json` holds. The same record gives the same bytes.
    """
    names = list(dict.fromkeys(name for one in record["models"] for name in one["tables"]))
    sections = [_section(record, name, out) for name in sorted(names, key=_order)]
    for name in names:
        records.write(out / "tables" / f"{name}.csv", _csv(record, name))
    lead, more = headline(record)
    page = rendered(
        "diagnosis.html",
        title="normwise diagnose",
        subtitle=f"{plural(len(record['models']), 'network')} · {plural(record['n'], 'image')} · {_threat(record['threat'])}",
        lead=lead,
        under=_under(record, more),
        card=_card(record),
        sections=sections,
        models=list(zip(labels([one["model"] for one in record["models"]]), record["models"], strict=True)),
        command=record["provenance"].get("command") or "the command was not recorded",
        weights=record["provenance"].get("weights"),
        written=_written,
    )
    return records.write(out / "diagnose.html", page), [text for one in sections for text in one.findings + one.notes]


def _order(name: str) -> int:
    return list(_TITLES).index(name) if name in _TITLES else len(_TITLES)


def _under(record: Mapping[str, Any], more: str) -> list[tuple[str, str]]:
    """What stands under the headline, as (what, words)."""
    settings, models = record["settings"], record["models"]
    reads = [one["norm_reads"].items() or [("", 0)] for one in models]
    reads = [
        joined(f"{count} norm layers{f' that read {_READ.get(what, what)}' if what else ''}" for what, count in each)
        for each in reads
    ]
    names = labels([one["model"] for one in models])
    called = joined(f"{name} ({read})" for name, read in zip(names, reads, strict=True))
    if len(set(reads)) == 1 < len(names):
        called = f"{joined(names)} (each with {reads[0]})"
    compared = f"The {'networks' if len(names) > 1 else 'network'} {called}. On {record['n']} test images of {label(settings['data'])}, clean and attacked by {_attacker(settings)}"
    compared += "".join(f". {capital(text)}" for text in [moves(record["threat"])] if text)
    trust = f"These {plural(len(models), 'network')} and {plural(record['n'], 'image')} alone, one seed, no intervals: a few images more or less say nothing."
    return [
        ("Compared", f"{compared}."),
        *([("Also found", more)] if more else []),
        ("How far to trust it", f"{trust} To swap statistics is an experiment; it proves nothing of other networks."),
    ]


def _attacker(settings: Mapping[str, Any]) -> str:
    """The attack of the first diagnoses, with its steps."""
    given = [one.get("steps") for one in settings.get("only", ()) if one["name"] in ("drift", "flips")]
    steps = [step for some in given for step in (some if isinstance(some, list | tuple) else [some]) if step]
    return f"PGD ({plural(max(steps), 'step')})" if steps else "PGD"


_READ = {"running": "running statistics", "batch": "the batch", "sample": "each image"}


def _threat(threat: Mapping[str, Any]) -> str:
    if "eps" in threat:
        return radius(threat)
    options = [f"{key} {_written(value)}" for key, value in threat.items() if key != "name"]
    return where(str(threat["name"]), ", ".join(options))


def _card(record: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """The threat card of every figure on the page: who controls what, by what attack, on how many images."""
    settings, models = record["settings"], record["models"]
    attacks = tuple(map(_attack, settings.get("only", ())))
    coupled = dict.fromkeys(bool(one["coupled"]) for one in models)
    judged = f"{rows(record['n'], settings['data'], settings['batch_size'])}, the networks in eval mode"
    threat = allowed(record["threat"], label(settings["data"]))
    changes = tuple(
        (JOINT if each else ALONE) + (f" ({'coupled' if each else 'independent'} images)" if len(coupled) > 1 else "")
        for each in coupled
    )
    names = labels([one["model"] for one in models])
    return [
        *Card(threat, attacks, changes, FIXED, judged).lines,
        ("The attacker knows", [KNOWS]),
        ("Images", coupling(zip(names, (bool(one["coupled"]) for one in models), strict=True))),
    ]


def _attack(diagnosis: Mapping[str, Any]) -> str:
    """What a diagnosis does to images, with its options."""
    settings = {
        key: value if isinstance(value, list | tuple) else [value] for key, value in diagnosis.items() if key != "name"
    }
    options = ", ".join(f"{key} {joined(map(_written, value or ['none']))}" for key, value in settings.items())
    name = label(diagnosis)
    return f"{where(name, options)}: {_ATTACKS.get(name, 'see its description')}"


def _section(record: Mapping[str, Any], name: str, out: Path) -> Section:
    title, about = _TITLES.get(name, (name, ""))
    found = sides(record, name)
    columns, rows = _summary(found) if name == "slices" else _table(record, name)
    return Section(
        id=f"diagnosis-{anchor(name)}",
        name=name,
        title=title,
        about=about,
        findings=sentences(record, name),
        notes=[f"{side.model}: {name}{'' if side.rows else ' is not measured'}: {side.note}" for side in found if side.note],
        figures=draw(name, found, out),
        columns=columns,
        rows=rows,
    )


def _table(record: Mapping[str, Any], name: str) -> tuple[list[tuple[str, str]], list[list[Any]]]:
    """All networks' rows in one table, the network first."""
    tables = [one["tables"][name] for one in record["models"] if name in one["tables"]]
    columns = [("network", ""), *zip(tables[0]["columns"], tables[0]["units"], strict=True)]
    return columns, [[side.model, *row.values()] for side in sides(record, name) for row in side.rows]


def _summary(found: Sequence[Side]) -> tuple[list[tuple[str, str]], list[list[Any]]]:
    """Slices have a row per point: of each picture the page tells what it shows."""
    rows = []
    for side in found:
        for image in dict.fromkeys(row["row"] for row in side.rows):
            cells = [row for row in side.rows if row["row"] == image]
            here = min(cells, key=lambda row: abs(row["a"]) + abs(row["b"]))
            ahead = [row for row in cells if abs(row["b"]) < 1e-6 and row["a"] > -1e-6 and row["class"] != row["label"]]
            first = min((abs(row["a"]) for row in ahead), default=None)
            rows.append([side.model, image, here["label"], here["class"], here["margin"], first, within(cells)])
    units = ("", "", "", "", "logits", "radii", "share of points")
    names = ("network", "row", "label", "answer", "margin", "first wrong straight ahead", "wrong within one radius")
    return list(zip(names, units, strict=True)), rows


def _csv(record: Mapping[str, Any], name: str) -> str:
    columns, rows = _table(record, name)
    held = io.StringIO()
    lines = csv.writer(held, lineterminator="\n")
    lines.writerow([f"{title} [{unit}]" if unit else title for title, unit in columns])
    lines.writerows(["" if value is None else value for value in row] for row in rows)
    return held.getvalue()


def _written(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
