"""What has to be true of a size before a claim can be decided there, and whether an arm may decide at all."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..tuning import Tuning
from .inference import Estimate, estimate
from .measures import Records, bits, cleaner, more_robust

LEARNED = 0.98  # of ln(classes): an arm whose training loss stays above has learned nothing
CLASSES = 3  # an arm that answers fewer classes than this on test rows has not learned either


class Shown(NamedTuple):
    """A premise as it was measured: in words, and whether it holds."""

    what: str
    holds: bool


class Premise(NamedTuple):
    """A premise: in words, the cells it is measured on, on the first seed (which decides nothing), and how.

    `learning`: it is about whether these cells learn at all.
    """

    name: str
    cells: tuple[str, ...]
    of: Callable[[Records], Shown]
    learning: bool = False


def gap(cell: str, baseline: str, share: float, least: float) -> Premise:
    """Robust accuracy of `cell` is at least so much higher than that of `baseline`, at a share of the radius of training."""

    def of(one: Records) -> Shown:
        sample = more_robust(cell, baseline, share)([one], "strongest")
        if sample is None:
            return Shown(f"{cell} and {baseline} were not judged at {share:.3g} of the radius of training", False)
        found = estimate(sample)
        return Shown(f"{sample.what}: {_points(found)}, asked {100 * least:+.0f}", found.value >= least)

    return Premise(
        f"{cell} {100 * least:.0f} points above {baseline} at {share:.3g} of the radius of training", (cell, baseline), of
    )


def close(cell: str, baseline: str, most: float, *, paired: bool = True) -> Premise:
    """Clean accuracies differ by at most so much; not `paired` where the two are judged on different test images."""

    def of(one: Records) -> Shown:
        sample = cleaner(cell, baseline)([one], "strongest")
        assert sample is not None
        found = estimate(sample._replace(paired=paired))
        return Shown(f"{sample.what}: {_points(found)}, asked within {100 * most:.0f}", abs(found.value) <= most)

    return Premise(f"{cell} within {100 * most:.0f} points of {baseline}, clean", (cell, baseline), of)


def _points(found: Estimate) -> str:
    """A difference of one seed with its interval over test images, in points."""
    low, high = (round(100 * end, 1) + 0.0 for end in found.interval() or (math.nan, math.nan))  # never "-0.0"
    return f"{100 * found.value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def calibrated(cell: str, clean: float, robust: float) -> Premise:
    """An adversarially trained network is within 12 points clean and 8 points at the radius of training of a cited figure."""

    def of(one: Records) -> Shown:
        figures = one[cell]["figures"]
        found = figures["clean"], figures["paper"][max(figures["paper"], key=float)]
        text = f"{cell}: {100 * found[0]:.1f}% clean, {100 * found[1]:.1f}% under PGD, cited {100 * clean:.1f} and {100 * robust:.1f}"
        return Shown(text, abs(found[0] - clean) <= 0.12 and abs(found[1] - robust) <= 0.08)

    return Premise(f"{cell} near {100 * clean:.1f}% clean, {100 * robust:.1f}% robust", (cell,), of)


def trains(cell: str, loss: float = 2.2, classes: int = 6, *, standing: bool = True) -> Premise:
    """Training went below a loss, and rows of so many classes stand under the strongest attack; or so many are answered."""

    def of(one: Records) -> Shown:
        reached, figures = one[cell]["training"].get("loss", math.inf), one[cell]["figures"]
        found = standing_classes(one[cell]) if standing else figures.get("answered", 0)
        text = f"{cell}: training loss {reached:.3g}, asked below {loss:g}; {found} classes {'standing' if standing else 'answered'}"
        return Shown(f"{text}, asked {classes}", reached < loss and found >= classes)

    name = f"{cell} trains below loss {loss:g}, {classes} classes {'standing' if standing else 'answered'}"
    return Premise(name, (cell,), of, learning=True)


def fragile(cell: str, most: float = 0.01) -> Premise:
    """What is fine-tuned has no robustness of its own at the radius of training."""

    def of(one: Records) -> Shown:
        left = min(one[cell]["figures"]["strongest"].values())
        return Shown(
            f"{cell} keeps {100 * left:.1f}% under the strongest attack, asked at most {100 * most:.0f}", left <= most
        )

    return Premise(f"{cell} keeps at most {100 * most:.0f}%", (cell,), of)


def standing_classes(record: Mapping[str, Any]) -> int:
    """How many classes have a row that stands at the largest radius under the strongest attack; 0 where labels are not kept."""
    figures = record["figures"]
    if "labels" not in figures:
        return 0
    rows = bits(record, "strongest", max(figures["strongest"], key=float)) > 0
    labels = np.array(figures["labels"].split())[: len(rows)]
    return len(set(labels[rows].tolist()))


def unfit(records: Sequence[Records], cells: Sequence[str], asked: Sequence[str] = ()) -> str:
    """Why the networks of a claim may decide nothing: one was not tuned, or has not learned. Nothing where all may.

    `asked`: the cells of which it is the question whether they learn.
    """
    for one in records:
        for name in _with_needs(one, cells):
            if one[name]["training"] and (why := untuned(one[name]) or (unlearned(one[name]) if name not in asked else "")):
                return f"{name} seed {one[name]['seed']} {why}" if "seed" in one[name] else f"{name} {why}"
    return ""


def _with_needs(one: Records, cells: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in cells:
        found += [*_with_needs(one, [need for need in one[name].get("needs", ()) if need in one]), name]
    return found


def untuned(record: Mapping[str, Any]) -> str:
    """Why a trained arm counts as not tuned; nothing where it is."""
    training = record["training"]
    search = training.get("search")
    if not search:
        return "was not tuned"
    if search["edge"] and not _flat(search):
        return f"was not tuned: the search ended at its edge, {training['lr']:g}"
    return ""


def _flat(search: Mapping[str, Any]) -> bool:
    """Whether the last step to the edge brought less than one standard error of an accuracy on the rows that judge a try."""
    found = [one["accuracy"] for one in sorted(search.get("tries", ()), key=lambda one: one["rate"])]
    first, second, *_ = found if search["rate"] == min(one["rate"] for one in search["tries"]) else found[::-1]
    return bool(first - second < math.sqrt(first * (1 - first) / Tuning().rows))


def unlearned(record: Mapping[str, Any]) -> str:
    """Why a trained arm counts as not converged; nothing where it has learned."""
    loss, classes = record["training"].get("loss", 0.0), record["figures"].get("classes")
    answered = record["figures"].get("answered")
    if classes and loss > LEARNED * math.log(classes):
        return f"did not converge: training loss {loss:.3g} of ln {classes} = {math.log(classes):.3g}"
    if answered is not None and answered < min(CLASSES, classes or CLASSES):
        return f"did not converge: it answers {answered} classes"
    return ""


def not_converged(records: Mapping[int, Mapping[str, Any]]) -> str:
    """Which of an arm's seeds count as not converged, in words; nothing where all have learned."""
    seeds = [f"{seed}" for seed, record in sorted(records.items()) if record["training"] and unlearned(record)]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)} not converged" if seeds else ""
