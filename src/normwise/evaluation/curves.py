"""Robust accuracy over the radius, or over the attacks' steps: curves that can only fall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..records import Curve, Score
from ..types import Batch, Report, silent
from ..utils import intervals
from ..utils.batches import Rows, as_batches
from .coupling import Coupling
from .evaluator import searched
from .plan import AttackPlan
from .verdict import Verdict

Over = Literal["eps", "steps"]


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

    What broke at a value counts as broken at every larger one: the image is allowed there too, and could have been found with
    fewer steps. So the curve is exactly monotone, and of independent rows only those that stay correct are attacked again. Of
    coupled rows a batch keeps its fewest survivors so far. `craft_on` as in `evaluate`; images are not judged again in other
    batches. Raises ValueError for no values, for a threat model or attacks without what is varied, and as `evaluate` does.
    """
    given = sorted(set(values))
    if not given:
        raise ValueError(f"a curve over {over} needs at least one value; got none")
    batches = as_batches(batches)
    left, scores, least, coupling = list(batches), list[Score](), torch.empty(0), None
    rows = sum(len(batch.y) for batch in batches)
    for number, value in enumerate(given):
        if left:
            verdict = searched(model, left, at(plan, over, value), craft_on=craft_on, coupling=coupling)
            coupling = Coupling(**verdict.evaluation.coupling)
            survivors = _survivors(verdict)
            if coupling.coupled:
                least = torch.minimum(least, survivors) if number else survivors
            else:
                left = _standing(left, verdict)
        if left and coupling and coupling.coupled:
            scores.append(intervals.of_batches(least.tolist(), len(left[0].y)))
        else:
            scores.append(intervals.of_rows(sum(len(batch.y) for batch in left), rows))
        report(f"{over} {value:g}, {100 * scores[-1].value:.1f}%", number + 1, len(given))
    return Curve(over=over, values=tuple(given), scores=tuple(scores))


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


def _survivors(verdict: Verdict) -> Tensor:
    """Per batch, how many rows stay correct."""
    return torch.stack([part.sum() for part in verdict.correct.split([len(batch.y) for batch in verdict.batches])])


def _standing(batches: Sequence[Batch], verdict: Verdict) -> list[Batch]:
    """The rows that nothing broke so far, in the batches they were in."""
    stands = (verdict.rows.broken_by == -1).split([len(batch.y) for batch in batches])
    kept = [Batch(*(part[rows.to(part.device)] for part in batch)) for batch, rows in zip(batches, stands, strict=True)]
    return [batch for batch in kept if len(batch.y)]
