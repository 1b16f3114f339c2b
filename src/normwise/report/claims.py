"""The page of the claims: one HTML file that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .frame import rendered


class Network(NamedTuple):
    """One row of the headline table: per radius the paper's protocol and the strongest attack, means over seeds."""

    name: str
    about: str
    coupled: bool
    seeds: int
    pairs: list[tuple[float, float]]


def figure(side: Mapping[str, Any]) -> str:
    """Write a difference with its interval: in points, or as it is where it is no difference of accuracies."""
    scale, unit = (1, "") if "log" in side["what"] or "shift of" in side["what"] else (100, " points")
    interval = "" if side["low"] is None else f" [{scale * side['low']:+.3g}, {scale * side['high']:+.3g}]"
    return f"{scale * side['value']:+.3g}{interval}{unit}"


def to_html(
    claims: Sequence[Mapping[str, Any]], networks: Sequence[Network], columns: Sequence[str], preset: str, command: str
) -> str:
    """Render the page; text from records is escaped."""
    told = [
        {**one, **{key: one[key] and {**one[key], "figure": figure(one[key])} for key in ("protocol", "strongest")}}
        for one in claims
    ]
    tally = Counter(one["verdict"] for one in claims).most_common()
    tally.sort(key=lambda pair: pair[0].startswith("not decided"))  # what was decided comes first
    return rendered(
        "claims.html",
        title=f"normwise reproduce, preset {preset}",
        lead="; ".join(f"{count} {verdict}" for verdict, count in tally).capitalize() + ".",
        rest=f"{len(claims)} claims of four papers, each decided by a rule that was fixed before anything ran.",
        claims=told,
        networks=networks,
        columns=columns,
        command=command,
    )


def to_markdown(
    claims: Sequence[Mapping[str, Any]], networks: Sequence[Network], columns: Sequence[str], preset: str
) -> str:
    """The same tables as Markdown."""

    def side(one: Mapping[str, Any] | None) -> str:
        return f"{figure(one)}: {one['what']}" if one else "not measured"

    lines = [f"# Claims, preset {preset}", "", "| # | claim | the paper | its protocol | strongest attack | verdict |"]
    lines += ["|---|---|---|---|---|---|"]
    for one in claims:
        verdict = one["verdict"] + (f" ({one['why']})" if one["why"] else "")
        told = (one["number"], one["claim"], one["paper"], side(one["protocol"]), side(one["strongest"]), verdict)
        lines.append(f"| {' | '.join(told)} |")
    lines += [
        "",
        "Differences are paired over test rows and seeds, with 95% intervals; a claim holds where the whole interval lies beyond its",
        "smallest effect, and does not hold where it lies on the other side.",
    ]
    if networks:
        lines += ["", f"| network | what | seeds | {' | '.join(columns)} |", "|---|---|---|" + "---|" * len(columns)]
    for row in networks:
        cells = [f"{100 * paper:.1f} / {100 * strongest:.1f}" for paper, strongest in row.pairs]
        cells[0] = cells[0].split(" / ")[0]
        about = row.about + "; coupled rows, attacked jointly" * row.coupled
        lines.append(f"| `{row.name}` | {about} | {row.seeds} | {' | '.join(cells)} |")
    if networks:
        lines += ["", "Accuracy in percent under the paper's protocol / the strongest attack, mean over seeds."]
    return "\n".join(lines) + "\n"
