"""The page of the claims: one HTML file that needs nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .frame import rendered

LOG = "log of the "  # how the name of a figure begins that is the logarithm of a ratio


class Network(NamedTuple):
    """One row of the headline table: per radius the paper's protocol and the strongest attack, means over seeds."""

    name: str
    about: str
    coupled: bool
    seeds: int
    pairs: list[tuple[float, float]]


class Table(NamedTuple):
    """One table beside the headline: its title, what it shows, its rows as text, and how many columns are words, not numbers."""

    title: str
    lead: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


PLURAL = {
    "not attempted": "not attempted",
    "holds": "hold",
    "does not hold": "do not hold",
    "is not decided": "are not decided",
}  # of a verdict's first words


def figure(side: Mapping[str, Any]) -> str:
    """Write a difference with its interval: in points, as a factor where it is the logarithm of a ratio, or as it is."""
    interval = "" if side["low"] is None else f" [{_number(side['low'], side)}, {_number(side['high'], side)}]"
    return f"{_number(side['value'], side)}{interval}{_unit(side)}"


def _number(value: float, side: Mapping[str, Any]) -> str:
    if _unit(side) == " times":
        return f"{math.exp(value):.3g}"
    return f"{100 * value if _unit(side) else value:+.3g}"


def _unit(side: Mapping[str, Any]) -> str:
    if side["what"].startswith(LOG):
        return " times"
    return "" if "shift of" in side["what"] else " points"


def _told(one: Mapping[str, Any]) -> dict[str, Any]:
    """A claim with its figures in words, and the smallest effect in their unit."""
    sides = {key: one[key] and {**one[key], "figure": figure(one[key])} for key in ("protocol", "strongest")}
    for side in filter(None, sides.values()):
        side["what"] = side["what"].removeprefix(LOG)
    known = one["protocol"] or one["strongest"]
    return {**one, **sides, "smallest": f"{_number(one['effect'], known)}{_unit(known)}" if known else ""}


def _tally(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims hold, how many do not; what was decided comes first."""
    counts = Counter(one["verdict"].replace("not decided", "is not decided") for one in claims).most_common()
    counts.sort(key=lambda pair: pair[0].startswith(("is not decided", "not attempted")))
    parts = []
    for verdict, count in counts:
        start = next(words for words in PLURAL if verdict.startswith(words))
        parts.append(f"{count} {verdict if count == 1 else PLURAL[start] + verdict.removeprefix(start)}")
    return f"{', '.join(parts)}."


def to_html(
    claims: Sequence[Mapping[str, Any]],
    networks: Sequence[Network],
    columns: Sequence[str],
    more: Sequence[Table],
    preset: str,
    size: str,
    command: str,
) -> str:
    """Render the page; text from records is escaped."""
    return rendered(
        "claims.html",
        title=f"normwise reproduce, preset {preset}",
        lead=_tally(claims),
        rest=f"{len(claims)} claims of four papers, at one size: {size}. Each is decided by its interval and by a smallest effect that was "
        "fixed before. A claim is decided only if its networks were tuned, have learned, and meet the premise of the claim.",
        claims=[_told(one) for one in claims],
        networks=networks,
        columns=columns,
        more=more,
        command=command,
    )


def to_markdown(
    claims: Sequence[Mapping[str, Any]],
    networks: Sequence[Network],
    columns: Sequence[str],
    more: Sequence[Table],
    preset: str,
    size: str,
) -> str:
    """The same tables as Markdown."""

    def side(one: Mapping[str, Any] | None) -> str:
        return f"{one['figure']}: {one['what']}" if one else "not measured"

    heads = "| # | claim | the paper | its protocol | strongest attack | smallest effect | verdict |"
    lines = [
        f"# Claims, preset {preset}",
        "",
        f"Every figure is for one size: {size}. A verdict is about that size alone.",
        "",
        heads,
        "|---|---|---|---|---|---|---|",
    ]
    for one in map(_told, claims):
        verdict = one["verdict"] + (f" ({one['why']})" if one["why"] else "")
        sides = side(one["protocol"]), side(one["strongest"])
        told = (one["number"], one["claim"], one["paper"], *sides, one["smallest"], verdict)
        lines.append(f"| {' | '.join(told)} |")
    lines += [
        "",
        "Differences are paired over test images and seeds, with 95% intervals. A claim holds if the whole interval lies beyond its",
        "smallest effect, and does not hold if it lies on the other side.",
    ]
    if networks:
        lines += ["", f"| network | what | seeds | {' | '.join(columns)} |", "|---|---|---|" + "---|" * len(columns)]
    for row in networks:
        cells = [f"{100 * paper:.1f} / {100 * strongest:.1f}" for paper, strongest in row.pairs]
        cells[0] = cells[0].split(" / ")[0]
        about = row.about + "; coupled images, whole batches attacked" * row.coupled
        lines.append(f"| `{row.name}` | {about} | {row.seeds} | {' | '.join(cells)} |")
    if networks:
        lines += ["", "Accuracy in percent under the paper's protocol / the strongest attack, mean over seeds."]
    for table in more:
        lines += ["", f"## {table.title}", "", table.lead, ""]
        lines += [f"| {' | '.join(row)} |" for row in (table.heads, ["---"] * len(table.heads), *table.rows)]
    return "\n".join(lines) + "\n"
