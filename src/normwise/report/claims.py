"""The page of the claims: one HTML file that needs nothing else."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .frame import rendered
from .origins import LEAD, Origin
from .series import Tick, span
from .words import joined, plural

HISTORY = "It is history: these networks were made before arms were tuned and premises measured, so that nothing is decided from them."
PAPERS = {
    "robustnorm": "RobustNorm (arXiv 2006.11007)",
    "nofrost": "NoFrost (arXiv 2207.01156)",
    "fragile-features": "Fragile features (arXiv 2204.12393)",
    "abnn": "ABNN (arXiv 2405.11708)",
}
MEANS = {  # what a verdict says, in a line
    "reproduced": "the effect is there, and not below the smallest effect",
    "right direction, smaller than claimed": "the effect is there, and below the smallest effect",
    "no effect of the size asked": "the smallest effect is ruled out",
    "opposite direction": "the effect is there, and points the other way",
    "premise not met at this size": "the networks lack what the claim starts from, so nothing was compared",
    "not decided": "networks are missing, or the interval is too wide",
    "not attempted": "nothing of it was measured",
}
UNDECIDED = ("premise not met at this size", "not decided", "not attempted")
MET = {True: "met", False: "not met", None: "cannot be told"}  # whether a premise holds
LOG = "log of the "  # how the name of a figure begins that is the logarithm of a ratio


class Network(NamedTuple):
    """One row of a headline table: per radius the paper's protocol and the strongest attack, means over seeds.

    images  of each seed, in words, clean and where claims are decided
    """

    name: str
    about: str
    coupled: bool
    seeds: int
    images: str
    pairs: list[tuple[float, float]]


class Table(NamedTuple):
    """One table beside the headline: its title, what it shows, its rows as text, and how many columns are words, not numbers."""

    title: str
    lead: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


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


def _in_words(one: Mapping[str, Any]) -> dict[str, Any]:
    """A claim with its figures in words, and the smallest effect in their unit."""
    sides = {key: one[key] and {**one[key], "figure": figure(one[key])} for key in ("protocol", "strongest")}
    for side in filter(None, sides.values()):
        side["what"] = side["what"].removeprefix(LOG)
    known = one["protocol"] or one["strongest"]
    said = {"verdict": f"{one['verdict']}, at {one['size']}" if one["verdict"] != "not attempted" else one["verdict"]}
    curve = ", ".join(
        f"{at['radius'] if at['radius'] >= 1 else 255 * at['radius']:.3g}: {_number(at['value'], at)}" for at in one["curve"]
    )
    met = "; ".join(f"{each['what']} ({MET[each['holds']]})" for each in one["premises"])
    losses = ", ".join(f"{cell} {loss:.3g}" for cell, loss in one["losses"].items())
    texts = {"premise": met, "whole": curve, "trained": losses, "count": f"{one['seeds']} x {one['n']}"}
    return {**one, **sides, **said, **texts, "smallest": f"{_number(one['effect'], known)}{_unit(known)}" if known else ""}


def _headline(claims: Sequence[Mapping[str, Any]]) -> str:
    """How many claims were decided, and how."""
    counts = Counter(one["verdict"] for one in claims)
    decided = {verdict: count for verdict, count in counts.items() if verdict not in UNDECIDED}
    counted = joined([f"{count} {verdict}" for verdict, count in decided.items()] or ["none decided"])
    rest = "".join(f"; {verdict}: {counts[verdict]}" for verdict in UNDECIDED if counts[verdict] and decided)
    return f"Of {plural(len(claims), 'claim')}, {counted}{rest.replace(' at this size', '')}."


def _under(claims: Sequence[Mapping[str, Any]], preset: str, size: str) -> list[tuple[str, str]]:
    """What stands under the headline, as (what, words)."""
    papers = joined(PAPERS.get(name, name) for name in dict.fromkeys(one["system"] for one in claims))
    rule = "A claim is decided by the 95% interval of its effect, beside a smallest effect that was fixed before."
    trust = "Every verdict is for this size alone. A claim is decided only if its networks were tuned, have learned, and meet its premise."
    return [
        ("Compared", f"What these papers claim, with networks trained here: {papers}. The size, preset {preset}: {size}."),
        ("The rule", rule),
        ("How far to trust it", f"{trust} The file docs/laboratory/method.md says how."),
    ]


def _plain(words: Any) -> Any:
    """Put a claim's words as a page says them: a record says "less" for minus, "asked" for needed, "figure" for number."""
    if isinstance(words, str):
        return (
            re.sub(r"\bless (?!than)", "minus ", words)
            .replace(" asked ", " needed ")
            .replace("without a figure", "without a number")
        )
    return {key: _plain(value) for key, value in words.items()} if isinstance(words, Mapping) else words


class Outcome(NamedTuple):
    """A verdict, what it means, and its claims as (paper, [(number, claim)])."""

    verdict: str
    means: str
    papers: list[tuple[str, list[tuple[str, str]]]]

    @property
    def total(self) -> int:
        """How many claims have it."""
        return sum(len(found) for _, found in self.papers)


def _outcomes(claims: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """The claims by verdict, and by paper in each; what was decided comes first."""
    found: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for one in claims:
        papers = found.setdefault(one["verdict"], {})
        papers.setdefault(PAPERS.get(one["system"], one["system"]).split(" (")[0], []).append((one["number"], one["claim"]))
    outcomes = [Outcome(verdict, MEANS.get(verdict, ""), list(papers.items())) for verdict, papers in found.items()]
    return sorted(outcomes, key=lambda one: one.verdict in UNDECIDED)


class Effect(NamedTuple):
    """A claim's difference beside the smallest effect it asks, all in percent of the figure's width; `title` is what its mark says."""

    name: str
    title: str
    figure: str
    value: float
    low: float
    high: float
    asked: float


def _effects(claims: Sequence[Mapping[str, Any]]) -> tuple[list[Effect], list[Tick]]:
    """The claims that were measured in points, on one axis, and its ticks."""
    known = [one for one in claims if (side := one["strongest"]) and side["low"] is not None and _unit(side) == " points"]
    if not known:
        return [], []
    values = [0.0, *(100 * value for one in known for value in (*map(one["strongest"].get, ("low", "high")), one["effect"]))]
    low, high, places = span(values)

    def at(points: float) -> float:
        return round(2 + 96 * (points - low) / (high - low), 2)

    effects = []
    for one in known:
        value, least, most = (at(100 * one["strongest"][part]) for part in ("value", "low", "high"))
        measured, asked = figure(one["strongest"]), f"{100 * one['effect']:+.3g} points"
        title = f"Claim {one['number']}: {measured}, asked {asked}; {one['verdict']}"
        name = f"{one['number']}. {one['claim']}"
        effects.append(Effect(name, title, measured, value, least, most, at(100 * one["effect"])))
    return effects, [Tick(at(place), f"{round(place, 9) + 0.0:.3g}") for place in places]


def to_html(
    claims: Sequence[Mapping[str, Any]],
    networks: Mapping[tuple[str, ...], Sequence[Network]],
    more: Sequence[Table],
    origins: Sequence[Origin],
    size: tuple[str, str],
    command: str,
) -> str:
    """Render the page; text from records is escaped. `networks`: by the columns of their table. `size`: the preset's name, and what it is in words."""
    effects, ticks = _effects(claims)
    return rendered(
        "claims.html",
        title=f"normwise reproduce, preset {size[0]}",
        lead=_headline(claims),
        under=_under(claims, *size),
        outcomes=_outcomes(claims),
        effects=effects,
        ticks=ticks,
        claims=[_plain(_in_words(one)) for one in claims],
        networks=networks,
        more=more,
        origins=origins,
        origin=LEAD,
        command=command,
    )


def to_markdown(
    claims: Sequence[Mapping[str, Any]],
    networks: Mapping[tuple[str, ...], Sequence[Network]],
    more: Sequence[Table],
    origins: Sequence[Origin],
    size: tuple[str, str],
) -> str:
    """The same as Markdown, figures as tables."""
    preset, words = size
    lines = [
        f"# Claims, preset {preset}",
        "",
        f"Every figure is for one size: {words}. A verdict is about that size alone.",
        *([HISTORY] if preset == "cpu" else []),
        "",
        *_claims(claims),
        "",
        "Differences are paired over test images and seeds, with 95% intervals of each alone. Verdicts are corrected for the number of",
        "claims (Holm). docs/laboratory/method.md says how intervals are made and what the verdicts mean.",
        *_curves(claims),
    ]
    for columns, rows in networks.items():
        lines += [
            "",
            f"| network | what | seeds | images | {' | '.join(columns)} |",
            "|---|---|---|---|" + "---|" * len(columns),
        ]
        for row in rows:
            cells = [f"{100 * paper:.1f} / {100 * strongest:.1f}" for paper, strongest in row.pairs]
            cells[0] = cells[0].split(" / ")[0]
            about = row.about + "; coupled images, whole batches attacked" * row.coupled
            lines.append(f"| `{row.name}` | {about} | {row.seeds} | {row.images} | {' | '.join(cells)} |")
    if networks:
        lines += [
            "",
            "Accuracy in percent under the paper's protocol / the strongest attack, mean over seeds. Images: of each seed, clean and where claims are decided. At other radii seeds that decide have fewer, the first ones, so that a network may stand a little above its clean accuracy there.",
        ]
    for table in (*_tables(origins), *more):
        lines += ["", f"## {table.title}", "", table.lead, ""]
        lines += [f"| {' | '.join(row)} |" for row in (table.heads, ["---"] * len(table.heads), *table.rows)]
    return "\n".join(lines) + "\n"


def _tables(origins: Sequence[Origin]) -> list[Table]:
    """The numbers behind the figures."""
    return [
        Table(
            f"Where the effect of claim {one.number} comes from",
            f"{one.claim}. At {one.where}; accuracy in percent. {LEAD}",
            ("attacker", f"`{one.own}`", *([f"`{one.other}`", "difference"] if one.other else [])),
            one.rows,
        )
        for one in origins
    ]


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of claims in lines."""
    heads = ("#", "claim", "the paper", "premise", "its protocol", "strongest attack", "seeds x rows", "training loss")
    rows = [(*heads, "smallest effect", "verdict", "others"), ("---",) * (len(heads) + 3)]
    for one in map(_in_words, claims):
        sides = [
            f"{side['figure']}: {side['what']}" if (side := one[key]) else "not measured"
            for key in ("protocol", "strongest")
        ]
        verdict = one["verdict"] + (f" ({one['why']})" if one["why"] else "")
        about = one["number"], one["claim"], one["paper"], one["premise"]
        rows.append((*about, *sides, one["count"], one["trained"], one["smallest"], verdict, one["evidence"]))
    return [f"| {' | '.join(row)} |" for row in rows]


def _curves(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """The comparison at every radius, in lines; none where no claim has any."""
    lead = "Difference in points under the strongest attack, by radius in 1/255 (or pixels of a patch). It decides nothing."
    rows = [f"| {one['number']} | {one['whole']} |" for one in map(_in_words, claims) if one["whole"]]
    return ["", "## The whole curve", "", lead, "", "| # | difference |", "|---|---|", *rows] if rows else []
