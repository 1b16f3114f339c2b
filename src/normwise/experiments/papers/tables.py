"""What stands beside the headline of the claims' page: the cost of training, other protocols, and what was not made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from ...report.claims import Table
from .papers import CELLS


def extra_tables(records: Mapping[str, Sequence[Mapping[str, Any]]], planned: Sequence[str] = ()) -> list[Table]:
    """The tables that the records of these cells allow; those `planned` and not there are listed."""
    known = {name: list(records[name]) for name in CELLS if records.get(name)}
    made = [
        _patches(known),
        _columns(known),
        _autoattack(known),
        _training(known),
        _legacy(known),
        _weaker(known),
        _missing([name for name in planned if name not in known]),
    ]
    return [table for table in made if table.rows]


def _patches(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Seeds may have been judged at different sizes: each mean is over those that were judged there."""
    each = {name: records for name, records in known.items() if CELLS[name].under == "patch"}
    paper, strongest = ({name: _each(records, side) for name, records in each.items()} for side in ("paper", "strongest"))
    sizes = sorted({size for seeds in paper.values() for one in seeds for size in one} - {"0"}, key=float)
    rows = []
    for name in each:
        sides = ([[one for one in seeds if size in one] for seeds in (paper[name], strongest[name])] for size in sizes)
        figures = (
            " / ".join(_percent(side, size) if side else "–" for side in both)
            for size, both in zip(sizes, sides, strict=True)
        )
        rows.append((name, _percent(paper[name], "0"), *figures))
    return Table(
        "Under patches",
        "Accuracy in percent under one search / under all searches; a patch may hold any pixels.",
        ("network", "clean", *(f"{size} x {size} pixels" for size in sizes)),
        rows,
    )


def _columns(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows, kinds = [], list[str]()
    for name, records in known.items():
        if CELLS[name].under == "columns":
            each = _each(records, "columns")
            kinds = list(each[0])
            clean = f"{100 * _mean(records, lambda one: one['figures']['clean']):.1f}"
            figures = (f"{_side(each, kind, 'protocol')} / {_side(each, kind, 'strongest')}" for kind in kinds)
            network = CELLS[name].needs[0]
            again = any(one.get("again") for one in known.get(network, ()))
            rows.append((network + " (again)" if again else network, f"{len(records)}", clean, *figures))
    return Table(
        "Several attackers",
        "Accuracy in percent under the protocol / under stronger searches too, on the first images. linf has half the radius of training, and the other attackers are scaled to it. Union: right under all of them. "
        "Again: the weights of the recorded network were not kept, and it was trained again; its loss is not quite that of the record.",
        ("network", "seeds", "clean", *kinds),
        rows,
    )


def _side(each: Sequence[Mapping[str, Any]], kind: str, side: str) -> str:
    values = [one[kind][side] for one in each]
    return "–" if None in values else f"{100 * sum(values) / len(values):.1f}"


def _autoattack(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows = []
    for name, records in known.items():
        if CELLS[name].under == "autoattack":
            before, after = _each(records, "before"), _each(records, "strongest")
            (radius,) = after[0]
            seeds = f"{len(records)}"
            rows.append((CELLS[name].needs[0], _radius(radius), seeds, _percent(before, radius), _percent(after, radius)))
    return Table(
        "AutoAttack",
        "Accuracy in percent under this preset's strongest attacks, and after AutoAttack (standard) on the images that they left correct.",
        ("network", "radius", "seeds", "strongest", "AutoAttack"),
        rows,
    )


def _training(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows = []
    for name, records in known.items():
        trained = [record["training"] for record in records if record["training"]]
        if trained:
            rates = sorted({one["lr"] for one in trained})
            epochs = trained[0]["epochs"]
            seconds = median(one["seconds"] for one in trained)
            searched = _passes(trained[0]["search"]) if trained[0].get("search") else "none"
            losses = [one["loss"] for one in trained if one.get("loss") is not None]
            loss = f"{sum(losses) / len(losses):.3g}" if losses else "not kept"
            counted = _passes(trained[0])
            figures = (
                counted,
                searched,
                loss,
                ", ".join(f"{rate:g}" for rate in rates),
                f"{trained[0]['trained_parameters']:,}",
            )
            rows.append((name, f"{epochs}", f"{seconds:.0f}", f"{seconds / epochs:.0f}", *figures))
    return Table(
        "Training",
        "Seconds on one core are medians over seeds, since other work ran beside some; the last loss is a mean over seeds. Networks that a cell starts from or uses as substitute are not counted. Passes are counted in images: forward, and backward as two each. The search for the learning rate, once for all seeds, is beside.",
        (
            "network",
            "epochs",
            "seconds",
            "per epoch",
            "passes",
            "search, passes",
            "loss",
            "learning rate",
            "trained parameters",
        ),
        rows,
    )


def _legacy(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    found = {name: each for name, records in known.items() if (each := _each(records, "legacy"))}
    radii = list(next(iter(found.values()))[0]) if found else []
    rows = [(name, *(_percent(each, radius) for radius in radii)) for name, each in found.items()]
    return Table(
        "RobustNorm's own protocol",
        "Accuracy in percent under the paper's attack, with eps in units of the normalized image and the range of the batch as box. Units here: the data's own standard deviations. Of seeds that do not decide.",
        ("network", *(f"eps {radius}" for radius in radii)),
        rows,
    )


def _weaker(known: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows, radii = [], list[str]()
    attackers = {"detached": "gradient of the target alone", "fixed": "substitute sees the clean image"}
    for name, records in known.items():
        for key, attacker in attackers.items():
            if each := _each(records, key):
                both = [record["figures"]["paper"] for record in records if key in record["figures"]]
                radii = list(each[0])
                rows.append((name, attacker, *(f"{_percent(each, r)} / {_percent(both, r)}" for r in radii)))
    return Table(
        "Weaker attackers of ABNN",
        "Accuracy in percent under the paper's attack, with the weaker attacker / through both networks. The first is no robust accuracy. Of seeds that do not decide.",
        ("network", "attacker", *map(_radius, radii)),
        rows,
        words=2,
    )


def _missing(names: Sequence[str]) -> Table:
    rows = [(name, CELLS[name].system, CELLS[name].about) for name in names]
    return Table("Not made yet", "Cells without a record with these settings.", ("network", "system", "what"), rows, words=3)


def _passes(cost: Mapping[str, Any]) -> str:
    return f"{cost['forwards'] + 2 * cost['backwards']:,}"


def _radius(radius: str) -> str:
    return f"{255 * float(radius):.3g}/255"


def _each(records: Sequence[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    return [record["figures"][key] for record in records if key in record["figures"]]


def _percent(each: Sequence[Mapping[str, Any]], key: str) -> str:
    return f"{100 * _mean(each, lambda one: one[key]):.1f}"


def _mean(each: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float]) -> float:
    return sum(map(of, each)) / len(each)
