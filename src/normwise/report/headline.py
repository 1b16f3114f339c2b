"""What the records say, in words: every sentence is computed from them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from ..record import Result
from .tables import label, threat

REFERENCE = "bn"  # the norm that the others are compared with
MATTERS = 0.05  # a smaller difference in worst-case accuracy is told, and does not make the answer


class Headline(NamedTuple):
    """The answer in one sentence, the sentences behind it, and reasons for caution."""

    answer: str
    reasons: list[str]
    cautions: list[str]


class _Cell(NamedTuple):
    """One norm with one recipe, over its seeds. Intervals of several seeds: the mean of their ends."""

    norm: str
    is_reference: bool
    coupled: bool
    value: float
    low: float
    high: float
    clean: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f}% [{100 * self.low:.1f}, {100 * self.high:.1f}]"


def headline(results: Sequence[Result]) -> Headline:
    """Say what was found. A norm is told apart from BatchNorm where their 95% intervals do not touch."""
    if len(results) == 1:
        return _single(results[0])
    groups = {recipe: _cells([r for r in results if label(r, "recipe") == recipe]) for recipe in _recipes(results)}
    reasons, above = [], []
    for recipe, cells in groups.items():
        reference = next((cell for cell in cells if cell.is_reference), None)
        if reference is None:
            best = max(cells, key=lambda cell: cell.value)
            reasons.append(f"With {recipe} training the best is {best.norm}: {best} in the worst case.")
            continue
        others = [cell for cell in cells if cell is not reference]
        higher = [cell for cell in others if cell.low > reference.high]
        lower = [cell for cell in others if cell.high < reference.low]
        level = [cell for cell in others if cell not in higher and cell not in lower]
        above += [(recipe, cell) for cell in higher if not cell.coupled and cell.value - reference.value >= MATTERS]
        reasons.append(
            f"With {recipe} training {reference.norm} keeps {reference} of the test images in the worst case. "
            + _named("Above it", higher)
            + _named("Below it", lower)
            + _named("Not to be told from it", level)
        )
    return Headline(_answer(groups, above), [reason.strip() for reason in reasons], _cautions(results))


def _answer(groups: dict[str, list[_Cell]], above: list[tuple[str, _Cell]]) -> str:
    honest = [(recipe, cell) for recipe, cells in groups.items() for cell in cells if not cell.coupled]
    if not honest:
        return "Every network here couples the rows of a batch: none of these figures is the robustness of one image."
    recipe, best = max(honest, key=lambda pair: pair[1].value)
    tail = f" The most robust of them, {best.norm} with {recipe} training, keeps {best} in the worst case and {100 * best.clean:.1f}% clean."
    if not above:
        least = f"{100 * MATTERS:.0f} points or more"
        return f"No: no norm with independent rows is more robust than BatchNorm by {least}, whatever the training." + tail
    names = ", ".join(f"{cell.norm} ({recipe} training, {100 * cell.value:.1f}%)" for recipe, cell in above)
    return f"Yes, here: of the networks whose rows are independent, more robust than BatchNorm with the same training: {names}." + tail


def _cautions(results: Sequence[Result]) -> list[str]:
    found = []
    coupled = [r for r in results if r.evaluation.coupled]
    if coupled:
        sizes = ", ".join(str(size) for size in sorted({r.evaluation.batch_size for r in coupled}))
        found.append(
            f"{len(coupled)} of {len(results)} networks couple the rows of a batch (measured, marked †): their figures hold for whole "
            f"batches of {sizes} attacked jointly. An attack on one row among clean neighbours, or through a row's neighbours, is "
            "not in this report and may do more harm."
        )
    if len({r.evaluation.seed for r in results}) == 1:
        found.append("One seed: the intervals cover the choice of test images, not the chance of training.")
    found.append(
        "Gradient attacks give an upper bound: a network may be weaker than the worst case found here, never stronger. "
        "These attacks are not AutoAttack."
    )
    return found


def _single(result: Result) -> Headline:
    e = result.evaluation
    answer = f"{e.robust_accuracy} of the test images are still classified correctly in the worst case ({threat(result)}), {e.clean_accuracy} untouched."
    return Headline(answer, [], _cautions([result]))


def _recipes(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(label(result, "recipe") for result in results))


def _cells(results: Sequence[Result]) -> list[_Cell]:
    cells = []
    for name in dict.fromkeys(label(result, "norm") for result in results):
        same = [result for result in results if label(result, "norm") == name]
        found = [result.evaluation.robust_accuracy for result in same]
        norm = same[0].experiment.get("norm") or {}
        cells.append(
            _Cell(
                name,
                norm.get("name") == REFERENCE,
                any(result.evaluation.coupled for result in same),
                mean(score.value for score in found),
                mean(score.low for score in found),
                mean(score.high for score in found),
                mean(result.evaluation.clean_accuracy.value for result in same),
            )
        )
    return cells


def _named(what: str, cells: list[_Cell]) -> str:
    if not cells:
        return ""
    return (
        f"{what}: " + ", ".join(f"{cell.norm}{'†' if cell.coupled else ''} {100 * cell.value:.1f}%" for cell in cells) + ". "
    )
