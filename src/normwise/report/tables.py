"""Tables of a report: one row per result for HTML, CSV, Markdown and LaTeX; what is shown there and nothing about how."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..records import Result, Score
from . import cells, texts
from .apart import label
from .card import Card, of
from .columns import HOVERS, Under, names, numbered, under
from .words import percent


class Value(NamedTuple):
    """What one place of a table shows, what it adds in lines of small print and on hover, what it is sorted by, how it is
    written on one line, and the number of its own threat card, where that is not the row's."""

    text: str
    small: tuple[str, ...] = ()
    hover: str = ""
    sort: float | str | None = None
    line: str = ""
    card: int = 0


class Column(NamedTuple):
    """A column of the main table; `kind` is words, number or score; the page shows those that are `headline` at first."""

    title: str
    kind: str
    hover: str = ""
    headline: bool = False


class Row(NamedTuple):
    """A row of the main table: one result; its first value names it. `of` is the number of its cell, `card` and `number` are the
    threat card of its figures, `n` what they were drawn from."""

    of: int
    name: str
    n: str
    card: Card
    number: int
    recipe: str
    coupled: bool
    reference: bool
    values: list[Value]


def interval(score: Score) -> str:
    """Write an interval in percent."""
    return f"{100 * score.low:.1f}–{100 * score.high:.1f}"


def duration(seconds: float | None) -> str:
    """Write seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def count(number: float | None) -> str:
    """Write a count to three figures: 1,234 / 12.3 k / 1.23 M."""
    if number is None:
        return "–"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size:
            scaled = number / (1e3 if unit == "k" else size)
            return f"{scaled:.{2 - min(int(math.log10(scaled)), 2)}f} {unit}"
    return f"{number:,.0f}"


def reading(norm_reads: dict[str, int]) -> str:
    """Say which statistics the normalization uses at test time."""
    return ", ".join(norm_reads) or "none"


def scalars(result: Result) -> dict[str, Any]:
    """Every number of a result under a flat name: a row of `results.csv`."""
    e, t = result.evaluation, result.training
    norm, recipe = result.experiment.get("norm"), result.experiment.get("recipe")
    row: dict[str, Any] = {
        "name": result.name,
        "norm": label(norm),
        "recipe": label(recipe, "as given, not trained here"),
        "model": e.model,
        "data": label(e.data, ""),
        "seed": result.experiment.get("seed", e.seed),
        "threat": label(e.threat, ""),
        "eps": e.threat.get("eps"),
        "mode": e.mode,
        "n": e.n,
        "batch_size": e.batch_size,
        "reads": reading(e.norm_reads),
        "coupled": e.coupled,
        "strongest": ", ".join(label(attack) for attack in e.strongest),
        **{f"coupling_{key}": value for key, value in e.coupling.items() if key != "coupled"},
    }
    several = {one.name.lower(): one.worst for one in under(result)}
    reached = {"protocol": e.pair[0]} | ({"joint": e.robust_accuracy, "single": e.single} if e.single else {})
    for name, score in {"clean": e.clean_accuracy, **e.per_attack, **reached, "worst_case": e.headline, **several}.items():
        row |= {f"{name}_{field}": getattr(score, field) for field in ("value", "low", "high", "n", "unit", "rows")}
    row |= {"rebatched_accuracy": e.rebatched_accuracy, "alone_accuracy": e.alone_accuracy}
    row["checks_raised"] = "; ".join(check.name for check in cells.raised([result]))
    row |= {f"evaluation_{field}": getattr(e, field) for field in ("seconds", "forwards", "backwards")}
    if t:
        fields = (
            "seconds",
            "forwards",
            "backwards",
            "epochs",
            "best_epoch",
            "parameters",
            "trained_parameters",
            "overfitted_epoch",
        )
        row |= {f"training_{field}": getattr(t, field) for field in fields}
        row |= {f"validation_{key}": value for key, value in t.validation.items()}
    return row


def to_csv(results: Sequence[Result]) -> str:
    """One row per result, one column per number; a number that a result lacks is empty."""
    return texts.to_csv([scalars(result) for result in results])


def to_markdown(results: Sequence[Result]) -> str:
    """The main table as Markdown, with 95% intervals and the threat cards below."""
    return texts.to_markdown(*_on_lines(results))


def to_latex(results: Sequence[Result]) -> str:
    """The main table as LaTeX, with 95% intervals and the threat cards below."""
    return texts.to_latex(*_on_lines(results))


def _on_lines(results: Sequence[Result]) -> tuple[list[str], list[list[str]], list[bool], list[str]]:
    """The main table with one line per place: head, rows, which columns are numbers, and the cards as notes."""
    found = cells.of(results)
    columns, rows = main(found)
    lines = [[*(value.line or value.text for value in row.values), row.n] for row in rows]
    notes = [f"Card {number}. {card_line(card)}" for card, number in numbered(found).items()]
    return (
        [*(column.title for column in columns), "n"],
        lines,
        [*(column.kind != "words" for column in columns), True],
        notes,
    )


def card_line(card: Card) -> str:
    """A threat card in a line."""
    return " ".join(f"{what}: {'; '.join(lines)}." for what, lines in card.lines)


_READS = "Statistics that the normalization uses at test time: running, of the batch, of each image (sample), or none"
_COUPLED = "Measured: does the answer to an image change when only the other images of the batch change?"
_PROTOCOL = "Accuracy under the attacks of the columns before, all together: what a paper's protocol would report"
_WORST = "Accuracy under all attacks together: taken image by image, or batch by batch where images are coupled"
_STRONGEST = f"{_WORST}; stronger attacks searched on the images that the protocol left correct"
_JOINT = "Coupled images: all images of a batch attacked together"
_SINGLE = "Coupled images: one image attacked among clean neighbours, one after the other, under the same eps"
_LOWER = "; for coupled images the lower of Joint and Single"
_INTERVALS = {"rows": "Wilson interval", "groups": "Wilson interval by groups", "batches": "bootstrap over batches"}
_CARD = "The threat model and attacks of this row: the threat cards are below the table"
_COST = (
    Column("Train time", "number", "Wall-clock time of the whole training", headline=True),
    Column(
        "Forwards", "number", "Images forward through the network in training, with making adversarial images and validation"
    ),
    Column("Backwards", "number", "Images back through the network in training, with making adversarial images"),
    Column("Parameters", "number", "Parameters of the network"),
)


def main(found: Sequence[cells.Cell]) -> tuple[list[Column], list[Row]]:
    """The main table: one row per result, cell by cell."""
    attacks = list(dict.fromkeys(name for cell in found for r in cell.results for name in r.evaluation.per_attack))
    settings, seeds = any(cell.setting for cell in found), any(len(cell.results) > 1 for cell in found)
    trained = any(r.training for cell in found for r in cell.results)
    paired, alone = any(cell.paired for cell in found), any(r.evaluation.single for cell in found for r in cell.results)
    columns = [Column("Normalization", "words", headline=True), Column("Training", "words", headline=True)]
    columns += [Column("Setting", "words", headline=True)] * settings + [Column("Seed", "number", headline=True)] * seeds
    columns += [Column("Reads", "words", _READS), Column("Images coupled", "words", _COUPLED, headline=True)]
    columns += [Column("Clean", "score", "Accuracy on clean images", headline=True)]
    columns += [Column(name.upper(), "score", "Accuracy under this attack") for name in attacks]
    columns += [Column("Protocol", "score", _PROTOCOL, headline=True)] * paired
    columns += [Column("Joint", "score", _JOINT), Column("Single", "score", _SINGLE)] * alone
    worst = (_STRONGEST if paired else _WORST) + _LOWER * alone
    columns += [Column("Worst case", "score", worst, headline=True)]
    more = names(found)
    columns += [Column(name, "score", HOVERS.get(name, ""), headline=True) for name in more]
    columns += [Column("Card", "number", _CARD)]
    columns += _COST * trained
    rows, cards = [], numbered(found)
    for place, cell in enumerate(found):
        for r in cell.results:
            e, reads = r.evaluation, reading(r.evaluation.norm_reads)
            values = [Value(cell.norm, sort=cell.norm), Value(cell.recipe, sort=cell.recipe)]
            values += [Value(cell.setting, sort=cell.setting)] * settings
            values += [_number(r.experiment.get("seed", e.seed))] * seeds
            values += [Value(reads, hover=", ".join(f"{n} sites: {what}" for what, n in e.norm_reads.items()), sort=reads)]
            values += [
                _coupled(r),
                *(_score(s) for s in (e.clean_accuracy, *map(e.per_attack.get, attacks), *[e.pair[0]] * paired)),
                *[_score(e.robust_accuracy if e.coupled else None), _score(e.single)] * alone,
                _score(e.headline, ("single" if e.headline is e.single else "joint") if e.single else ""),
            ]
            card, kept = of(r), {one.name: one for one in under(r)}
            values += [_under(kept.get(name), cards) for name in more]
            values += [Value(str(cards[card]), hover=card_line(card), sort=cards[card]), *_cost(r) * trained]
            n = e.headline.sample
            rows.append(Row(place, r.name, n, card, cards[card], cell.recipe, e.coupled, bool(cell.reference), values))
    return columns, rows


def _cost(result: Result) -> list[Value]:
    t = result.training
    time = Value(duration(t.seconds), hover=f"{t.seconds:,.1f} s", sort=t.seconds) if t else Value("–")
    return [time, *(_number(getattr(t, field, None)) for field in ("forwards", "backwards", "parameters"))]


def _number(number: float | None) -> Value:
    return Value(count(number), hover="" if number is None else f"{number:,}", sort=number)


def _score(score: Score | None, which: str = "") -> Value:
    if score is None:
        return Value("–")
    kind = _INTERVALS[score.unit]
    whole = f"{percent(score.value)} of {score.rows} images; 95% interval {interval(score)}% ({kind}, n = {score.sample})"
    line = f"{percent(score.value)} ({interval(score)}{', ' if which else ''}{which})"
    small = (interval(score), score.sample, *([which] if which else []))
    return Value(percent(score.value), small, whole, score.value, line)


def _under(one: Under | None, cards: Mapping[Card, int]) -> Value:
    if one is None:
        return Value("–")
    value = _score(one.worst)
    protocol = (f"protocol {percent(one.protocol.value)}",) if one.protocol else ()
    return value._replace(small=(*value.small[:1], *protocol), card=cards[one.card] if one.card else 0)


def _coupled(result: Result) -> Value:
    c = result.evaluation.coupling
    change = f"{c['largest_change']:.1e}" if "largest_change" in c else "not recorded"
    whole = f"largest change of an unchanged image's logits: {change} of the largest logit"
    if "tolerance" in c:
        whole += f" (tolerance {c['tolerance']:.1e})"
    if "flips" in c and "rows" in c:
        whole += f"; {c['flips']} of {c['rows']} unchanged images got another class"
    extra = tuple(word for word in ("random", "stateful") if c.get(word))
    answer = "yes" if result.evaluation.coupled else "no"
    return Value(answer, extra, whole, answer)
