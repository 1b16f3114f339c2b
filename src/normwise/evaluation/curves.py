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
from ..utils.batches import Rows, as_batches
from .coupling import Coupling
from .evaluator import searched
from .plan import AttackPlan

Over = Literal["eps", "steps"]


class Survivors(NamedTuple):
    """Who stays correct at each of several radii (or numbers of steps).

    `batches` are those that count (a short last batch of coupled rows does not); `clean` and each of `correct` hold one answer
    per row of these, in their order.
    """

    batches: list[Batch]
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

    So independent rows that are misclassified under a plan count so under every later one, and are not attacked again. Of coupled
    rows a batch keeps whichever of its attacked batches left fewest correct, and is not attacked again once none is left. `earlier`
    is what other attacks left under plans of the same threat models: the worst case is over both. `report` is told the number of
    the plan and the share that is left. Raises ValueError for no plans, and as `evaluate` does.
    """
    if not plans:
        raise ValueError("a curve needs at least one value; got none")
    first = searched(model, batches, plans[0], craft_on=craft_on) if earlier is None else None
    if first is not None:
        clean = first.rows.clean_predictions == first.rows.y
        found = Survivors(list(first.batches), clean, [], Coupling(**first.evaluation.coupling))
    else:
        assert earlier is not None
        found = earlier._replace(correct=[])
    coupled, so_far = found.coupling.coupled, torch.ones_like(found.clean)
    for number, plan in enumerate(plans):
        known = so_far if earlier is None else _fewer(so_far, earlier.correct[number], found.batches, coupled)
        if number or first is None:
            alive, some = torch.zeros_like(known), chosen(found.batches, known, coupled)
            if some:
                verdict = searched(model, some, plan, craft_on=craft_on, coupling=found.coupling)
                rows = _parts(known, found.batches)
                there = torch.cat([part.any().expand_as(part) if coupled else part for part in rows])
                alive[there] = verdict.correct
        else:
            alive = first.correct
        so_far = _fewer(known, alive, found.batches, coupled)
        found.correct.append(so_far)
        report(number, float(so_far.float().mean()))
    return found


def chosen(batches: Sequence[Batch], rows: Tensor, coupled: bool) -> list[Batch]:
    """These rows of the batches; of coupled rows the whole batches that hold any of them."""
    marked = zip(batches, _parts(rows, batches), strict=True)
    kept = [(batch, slice(None) if coupled else mask.to(batch.y.device)) for batch, mask in marked if mask.any()]
    return [Batch(*(part[mask] for part in batch)) for batch, mask in kept]


def _parts(rows: Tensor, batches: Sequence[Batch]) -> tuple[Tensor, ...]:
    """One answer per row, batch by batch."""
    return rows.split([len(batch.y) for batch in batches])


def _fewer(one: Tensor, other: Tensor, batches: Sequence[Batch], coupled: bool) -> Tensor:
    """What stays correct in both; of coupled rows, per batch, the one in which fewer do."""
    if not coupled:
        return one & other
    pairs = zip(_parts(one, batches), _parts(other, batches), strict=True)
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
    """Robust accuracy at each of the values of `over`: "eps" of the threat model (pixels), or "steps" of the attacks.

    What broke at a value counts as broken at every larger one (see `survivors`), so that the curve is exactly monotone. `craft_on` as
    in `evaluate`; images are not scored again in other batches. Raises ValueError for no values, for a threat model or attacks
    without what is varied, and as `evaluate` does.
    """
    given = sorted(set(values))

    def told(number: int, share: float) -> None:
        report(f"{over} {given[number]:g}, {100 * share:.1f}%", number + 1, len(given))

    plans = [at(plan, over, value) for value in given]
    found = survivors(model, as_batches(batches), plans, craft_on=craft_on, report=told)

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
    varied = [replace(one, steps=int(value)) if hasattr(one, "steps") else one for one in plan.attacks]  # type: ignore[type-var]
    return replace(plan, attacks=varied)
