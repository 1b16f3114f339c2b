"""The table at the end of a verb: what came out, in a few lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..auditing.checks.record import Audited
from ..records import Check, Result, Score
from ..report import before, cells, tables
from ..report.card import radius
from ..report.claims import figure
from ..report.columns import under
from ..report.findings import farthest, sides
from ..report.shifts import called
from ..report.texts import one_line
from ..report.words import percent

WIDTH = 120  # columns, where no terminal says another number
WIDE = 9  # columns of a table, beyond which figures stand without their intervals


def show(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> None:
    """Print a table; its last `numbers` columns are set right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place >= len(heads) - numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    with console.capture() as held:
        console.print(table)
    print("\n".join(line.rstrip() for line in held.get().splitlines()))


def of_result(result: Result) -> None:
    """One network: clean, each attack, and the two figures that count."""
    e = result.evaluation
    scores: dict[str, Score | None] = {"clean": e.clean_accuracy, **e.per_attack}
    scores["protocol"] = e.pair[0] if e.strongest else None
    scores["joint"] = e.robust_accuracy if e.single else None
    scores["single"] = e.single
    which = f" (the lower of joint and single: {'single' if e.headline is e.single else 'joint'})" if e.single else ""
    scores[f"worst case{which}"] = e.headline
    scores |= {one.name: one.worst for one in under(result)}
    rows = [(name, percent(one.value), tables.interval(one), one.sample) for name, one in scores.items() if one]
    images = f"{'coupled' if e.coupled else 'independent'} images"
    show((f"{radius(e.threat)}; {images}", "accuracy", "95% interval", "of"), rows, numbers=3)


def of_results(results: Sequence[Result]) -> None:
    """Several networks: the columns that their page shows first."""
    columns, rows = tables.main(cells.of(results))
    places = [place for place, column in enumerate(columns) if column.headline]
    wide = len(places) > WIDE  # then without intervals
    lines = [
        [row.values[place].text if wide else row.values[place].line or row.values[place].text for place in places]
        for row in rows
    ]
    show([columns[place].title for place in places], lines, sum(columns[place].kind != "words" for place in places))


def of_dead(results: Sequence[Result]) -> None:
    """A warning for each network that gives almost all images one class."""
    for cell in cells.of(results):
        if cell.dead:
            print(
                f"warn: {before.how(cell)}: almost all images get one class, so its worst case of {cell.worst} is no robustness"
            )


def of_checks(checks: Sequence[Check]) -> None:
    """The tests of an attack."""
    show(("status", "test", "measured"), [(one.status, one.name, one.measured) for one in checks])


def of_audit(found: Audited) -> None:
    """The claim and the bound."""
    low, high = found.interval
    failed = sum(one.status == "fail" for one in found.checks)
    row = (
        radius(found.threat),
        found.verdict,
        percent(found.claimed_accuracy),
        percent(found.upper_bound),
        f"{100 * low:.1f}–{100 * high:.1f}",
    )
    show(
        ("threat model", "verdict", "claimed", "left at most", "95% interval", "failed checks"),
        [(*row, str(failed))],
        numbers=4,
    )


def of_audits(audits: Sequence[Mapping[str, Any]]) -> None:
    """Several audits, a line each."""
    rows = [
        (
            one["run"],
            one["verdict"],
            *(percent(one[key]) for key in ("claimed_accuracy", "upper_bound")),
            str(sum(check["status"] == "fail" for check in one["checks"])),
        )
        for one in audits
    ]
    show(("network", "verdict", "claimed", "left at most", "failed checks"), rows, numbers=3)


def of_diagnosis(record: Mapping[str, Any]) -> None:
    """How far the attack moves each network, where drift was measured."""
    found = [(side.model, far) for side in sides(record, "drift") if (far := farthest(side.rows))]
    rows = [(name, far.site, f"{far.moved:.2g}", "–" if far.noise is None else f"{far.noise:.2g}") for name, far in found]
    if rows:
        show(("network", "moved most", "by the attack, deviations", "by noise"), rows, numbers=2)


def of_shifts(record: Mapping[str, Any]) -> None:
    """Clean accuracy and the mean under corruption."""
    show(
        ("network", "clean", "under corruption"),
        [(called(one), *(percent(one[key]["value"]) for key in ("clean", "mean"))) for one in record["networks"]],
        numbers=2,
    )


def of_ways(record: Mapping[str, Any]) -> None:
    """The network as it is, and each way that was tried, with the minutes that all of it took: search, training, evaluation."""
    rows = [record["before"], *record["ways"]]
    show(
        ("network", "clean", "worst case", "clean, validation", "worst, validation", "minutes"),
        [(one["name"] + _remark(one, record["chosen"]), *_way(one)) for one in rows],
        numbers=5,
    )


def _remark(one: Mapping[str, Any], chosen: str) -> str:
    return " (chosen)" if one["name"] == chosen else " (almost all images get one class)" if one.get("dead") else ""


def _way(one: Mapping[str, Any]) -> Iterator[str]:
    if one["state"] != "tried":
        yield from (one["state"], "–", "–", "–", "–")
        return
    yield from (percent(of[key]["value"]) for of in (one, one["validation"]) for key in ("clean", "worst"))
    yield f"{one['seconds'] / 60:.1f}"


def of_claims(claims: Sequence[Mapping[str, Any]]) -> None:
    """Verdicts, and the figure that decides."""
    rows = [
        (
            one["number"],
            one["claim"],
            one["verdict"] + (f" ({one['why']})" if one["why"] else ""),
            one["size"],
            figure(one["strongest"]) if one["strongest"] else "–",
        )
        for one in claims
    ]
    show(("", "claim", "verdict", "size", "strongest attack"), rows, numbers=1)
