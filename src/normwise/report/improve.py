"""The page of `normwise improve`: what each way reached and cost, and which network was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import write
from .apart import attacker, label
from .card import UNKNOWN, moves, radius
from .figures import beside, keys, legend
from .frame import rendered
from .plot_style import FAINT, MUTED, PAPER, SERIES, Drawn, bare, belonging, in_percent, new, save, short, style
from .words import capital, joined

RECORD, PAGE = "improve.json", "improve.html"
_AUDITED = {
    "trustworthy": " (further attacks take little off its figure)",
    "not established": " (the audit ended without an answer to whether further attacks take more off its figure)",
    "doubtful": " (further attacks take much off its figure, or a check found a fault)",
}
HALF = 0.5  # clean accuracy below which a reader is warned
Row = Mapping[str, Any]  # one way, or the network as it is given, as `improve.json` has it


def write_page(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `improve.html` and its figure into a folder; returns the page's path."""
    rows: list[Row] = [record["before"], *record["ways"]]
    measured, settings = [one for one in rows if one["state"] == "tried"], record["settings"]
    page = rendered(
        PAGE,
        title="normwise improve",
        subtitle=" · ".join((f"{label(settings['model'])} on {label(settings['data'])}", radius(settings["threat"]))),
        under=_under(record, measured),
        record=record,
        unknown=UNKNOWN,
        rows=rows,
        drawn=_accuracy(measured, record["chosen"], folder),
        share=_share,
        between=_between,
    )
    return write(folder / PAGE, page)


def _under(record: Mapping[str, Any], measured: Sequence[Row]) -> list[tuple[str, str]]:
    """What stands under the headline, as (what, words)."""
    settings, (before, *ways) = record["settings"], measured
    what = f"The network {label(settings['model'])} as it was given"
    if ways:
        what += f", and trained further: {'; '.join('{name}: {says}'.format(**one) for one in ways)}"
    by = [joined(map(attacker, settings[part])) for part in ("attacks", "strongest") if settings.get(part)]
    compared = f"{what}. On {before['worst']['rows']} test images of {label(settings['data'])}"
    compared += (
        f", attacked by {' (the protocol), then by the stronger '.join(by)}" if by else ""
    ) + ". Worst case: right under every attack."
    compared += "".join(f" {capital(text)}." for text in [moves(settings["threat"])] if text)
    late = [one["name"] for one in record["ways"] if one["state"] != "tried"]
    there = joined(f"{one['name']} {_share(one['validation']['worst'])}%" for one in measured)
    decided = f"{before['validation']['n']} validation images decided, not the test images of the figure. Under attack there: {there}"
    trust = ["One training each (one seed)", decided]
    known = record.get("validation") or {}
    if known.get("learned") and known.get("from") == "own":
        trust.append("The network as given may know them")
    trust += _doubts(before, record)
    if late:
        trust.append(f"Not tried: {joined(late)}")
    trust += ["A stronger attack can only lower a worst case."]
    why = [] if record["chosen"] or not ways else [("Why not", _nearest(ways))]
    return [("Compared", compared), *why, ("How far to trust it", ". ".join(trust))]


def _nearest(ways: Sequence[Row]) -> str:
    """What speaks against the way that is best on the validation images."""
    best = max(ways, key=lambda one: float(one["validation"]["worst"]["value"]))
    return f"Best is {best['name']}, but {best['against']}."


def _doubts(before: Row, record: Mapping[str, Any]) -> list[str]:
    """What the figures themselves leave open."""
    found = []
    if before["clean"]["value"] < HALF:
        found.append(
            f"The network as given is right on only {_share(before['clean'])}% of clean images: it may not have learned"
        )
    if near := record.get("near"):
        found.append(f"They do not tell {record['chosen']} from {joined(near)}: chance explains the lead")
    which = {"after": "chosen network", "before": "network as given"}
    found += [
        f"Audit of the {which[when]}: {verdict}{_AUDITED.get(verdict, '')}"
        for when in which
        if when in record["audits"]
        for verdict in [record["audits"][when]["verdict"]]
    ][:1]
    return found


def _accuracy(rows: Sequence[Row], chosen: str, out: Path) -> Drawn:
    """A line per network: clean (ring), the protocol (tick) and the worst case (filled), with 95% intervals."""
    kept = chosen or rows[0]["name"]
    with style():
        figure = new(0.9 + 0.36 * len(rows))
        axes = figure.subplots()
        legend(figure, keys((one["coupled"] for one in rows), paired=True))
        for y, one in enumerate(rows):
            with belonging(axes, y, _values(one), y):
                _line(axes, y, one, SERIES[0] if one["name"] == kept else MUTED)
        said = " (chosen)" if chosen else " (keep)"
        names = [short(one["name"]) + said * (one["name"] == kept) for one in rows]
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
        axes.plot(
            [100 * score["low"], 100 * score["high"]], [y, y], color=colour, linewidth=width, solid_capstyle="butt", zorder=2
        )
    axes.plot([100 * clean["value"]], [y], "o", markersize=5.5, color=PAPER, markeredgecolor=colour, zorder=3)
    axes.plot([100 * one["protocol"]["value"]], [y], "|", color=colour, markersize=9, markeredgewidth=1.4, zorder=3)
    axes.plot([100 * worst["value"]], [y], "D" if one["coupled"] else "o", markersize=6.5, color=colour, zorder=4)
    beside(axes, y, f"{_share(worst)}% {_between(worst)}, clean {_share(clean)}%", colour)


def _values(one: Row) -> str:
    """What a line says of its network."""
    scores = {"clean": one["clean"], "protocol alone": one["protocol"], "worst case": one["worst"]}
    return f"{one['name']}: {'; '.join(f'{name} {_share(score)}% {_between(score)}' for name, score in scores.items())}"


def _share(score: Row) -> str:
    return f"{100 * score['value']:.1f}"


def _between(score: Row) -> str:
    return f"[{100 * score['low']:.1f}, {100 * score['high']:.1f}]"
