"""Robust accuracy over the radius, or over the attacks' steps: curves that can only fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..records import Curve, Score
from ..types import Batch, Report, silent
from ..utils import intervals
from ..utils.batches import Masked, Rows, as_batches, sizes_of
from .coupling import Coupling
from .evaluator import searched
from .plan import AttackPlan

Over = Literal["eps", "steps"]


class Survivors(NamedTuple):
    """Who stays correct at each of several radii (or numbers of steps).

    `batches` are those that count (a short last batch of coupled rows does not); `clean` and each of `correct` hold one
    answer per row of these, in their order.
    """

    batches: Sequence[Batch]
    clean: Tensor
    correct: list[Tensor]
    coupling: Coupling


def survivors(
    model: nn.Module,
    batches: Sequence[Batch],
    plans: Sequence[AttackPlan],
    *,
    earlier: Survivors | None = None,
    craft_on: nn.Module | None = None,
    report: Callable[[int, float], None] = lambda number, share: None,
) -> Survivors:
    """Who stays correct under each of the plans, the weakest first: an image that is allowed in one is allowed in those after it.

    So independent rows that are misclassified under a plan count so under every later one, and are not attacked again. Of
    coupled rows a batch keeps whichever of its attacked batches left fewest correct, and is not attacked again once none is
    left. `earlier` is what other attacks left under plans of the same threat models: the worst case is over both. `report`
    gets the number of the plan and the share that is left. Raises ValueError for no plans, and as `evaluate` does.
    """
    if not plans:
        raise ValueError("a curve needs at least one value; got none")
    found = earlier and earlier._replace(correct=[])
    for number, plan in enumerate(plans):
        if found is None:
            verdict = searched(model, batches, plan, craft_on=craft_on)
            clean, coupling = verdict.rows.clean_predictions == verdict.rows.y, Coupling(**verdict.evaluation.coupling)
            found = Survivors(verdict.batches, clean, [verdict.correct], coupling)
        else:
            known = found.correct[-1] if number else torch.ones_like(found.clean)
            known = known if earlier is None else _fewer(known, earlier.correct[number], found)
            found.correct.append(_fewer(known, _attacked(model, plan, found, known, craft_on), found))
        report(number, float(found.correct[-1].float().mean()))
    assert found is not None
    return found


def _attacked(model: nn.Module, plan: AttackPlan, found: Survivors, known: Tensor, craft_on: nn.Module | None) -> Tensor:
    """Which rows stay correct under a plan, of those that did so far; of coupled rows of all in the batches that hold any."""
    coupled, alive = found.coupling.coupled, torch.zeros_like(known)
    there = torch.cat([part.any().expand_as(part) if coupled else part for part in _parts(known, found.batches)])
    if some := Masked(found.batches, _parts(there, found.batches)):
        classes = [one for one, kept in zip(plan.classes, there.tolist(), strict=False) if kept]
        mine = replace(plan, classes=classes)
        alive[there] = searched(model, some, mine, craft_on=craft_on, coupling=found.coupling).correct
    return alive


def _parts(rows: Tensor, batches: Sequence[Batch]) -> tuple[Tensor, ...]:
    """One answer per row, batch by batch."""
    return rows.split(sizes_of(batches))


def _fewer(one: Tensor, other: Tensor, found: Survivors) -> Tensor:
    """What stays correct in both; of coupled rows, per batch, the one in which fewer do."""
    if not found.coupling.coupled:
        return one & other
    pairs = zip(_parts(one, found.batches), _parts(other, found.batches), strict=True)
    return torch.cat([min(pair, key=lambda part: int(part.sum())) for pair in pairs])


def curve(
    model: nn.Module,
    batches: Rows,
    plan: AttackPlan,
    over: Over,
    values: Sequence[float],
    *,
    craft_on: nn.Module | None = None,
    report: Report = silent,
) -> Curve:
    """Robust accuracy at each of the values of `over`: "eps" of the threat model (pixels), or "steps" of the attacks, without `strongest`.

    What broke at a value counts as broken at every larger one (see `survivors`), so that the curve is exactly monotone.
    `craft_on` as in `evaluate`; images are not scored again in other batches. Raises ValueError for no values, for a threat
    model or attacks without what is varied, and as `evaluate` does.
    """
    given = sorted(set(values))

    def progress(number: int, share: float) -> None:
        report(f"{over} {given[number]:g}, {100 * share:.1f}%", number + 1, len(given))

    plans = [at(plan, over, value) for value in given]
    found = survivors(model, as_batches(batches), plans, craft_on=craft_on, report=progress)

    def score(correct: Tensor) -> Score:
        if found.coupling.coupled:
            return intervals.of_batches(
                [int(part.sum()) for part in _parts(correct, found.batches)], len(found.batches[0].y)
            )
        return intervals.of_rows(int(correct.sum()), len(correct))

    return Curve(over=over, values=tuple(given), scores=tuple(map(score, found.correct)))


def at(plan: AttackPlan, over: Over, value: float) -> AttackPlan:
    """The plan at one value. Raises ValueError for one that its threat model or attacks cannot take."""
    if over == "eps":
        if not hasattr(plan.threat, "eps"):
            raise ValueError(f"{plan.threat.name} has no eps to vary; give a threat model with a radius")
        return replace(plan, threat=replace(plan.threat, eps=float(value)))  # type: ignore[type-var]
    if not any(hasattr(one, "steps") for one in plan.attacks):
        raise ValueError("none of the attacks has steps to vary; give one such as pgd")
    if value != int(value):
        raise ValueError(f"steps are counted; got {value:g}; give a whole number")
    varied = [replace(one, steps=int(value)) if hasattr(one, "steps") else one for one in plan.attacks]  # type: ignore[type-var]
    return replace(plan, attacks=varied, strongest=())
