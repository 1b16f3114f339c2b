"""Robust accuracy over the radius, or over the attacks' steps: curves that can only fall."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..records import Curve, Score
from ..types import Attack, Batch, Report, ThreatModel, silent
from ..utils import intervals
from ..utils.batches import Rows, as_batches
from .coupling import Coupling
from .evaluator import evaluate
from .verdict import Verdict


def curve(
    model: nn.Module,
    batches: Rows,
    threat: ThreatModel,
    attacks: Sequence[Attack],
    over: Literal["eps", "steps"],
    values: Sequence[float],
    *,
    report: Report = silent,
    **options: Any,
) -> Curve:
    """Robust accuracy at each of the values of `over`: "eps" of the threat model (pixels), or "steps" of the attacks.

    What broke at a value counts as broken at every larger one: the image is allowed there too, and could have been found with
    fewer steps. So the curve is exactly monotone, and of independent rows only those still standing are attacked again. Of
    coupled rows a batch keeps its fewest survivors so far. `options` are those of `evaluate`; images are not
    judged again in other batches unless `again` is among them.

    Raises ValueError for no values, for a threat model or attacks without what is varied, and as `evaluate` does.
    """
    given = sorted(set(values))
    if not given:
        raise ValueError(f"a curve over {over} needs at least one value; got none")
    batches = as_batches(batches)
    left, scores, least = list(batches), list[Score](), torch.empty(0)
    known = {"again": False, **options}
    rows = sum(len(batch.y) for batch in batches)
    for number, value in enumerate(given):
        if left:
            verdict = evaluate(model, left, *_at(threat, attacks, over, value), **known)
            coupled = verdict.evaluation.coupled
            known["coupling"] = Coupling(**verdict.evaluation.coupling)
            survivors = _survivors(verdict)
            if coupled:
                least = torch.minimum(least, survivors) if number else survivors
            else:
                left = _standing(left, verdict)
        if left and coupled:
            scores.append(intervals.of_batches(least.tolist(), len(left[0].y)))
        else:
            scores.append(intervals.of_rows(sum(len(batch.y) for batch in left), rows))
        report(f"{over} {value:g}, {100 * scores[-1].value:.1f}%", number + 1, len(given))
    return Curve(over=over, values=tuple(given), scores=tuple(scores))


def check(threat: ThreatModel, attacks: Sequence[Attack], over: Literal["eps", "steps"], values: Sequence[float]) -> None:
    """Refuse values that a threat model or the attacks cannot take. Raises ValueError."""
    for value in values:
        _at(threat, attacks, over, value)


def _at(threat: Any, attacks: Sequence[Any], over: str, value: float) -> tuple[ThreatModel, list[Attack]]:
    """The threat model and the attacks at one value."""
    if over == "eps":
        if not hasattr(threat, "eps"):
            raise ValueError(f"{threat.name} has no eps to vary; give a threat model with a radius")
        return dataclasses.replace(threat, eps=float(value)), list(attacks)
    varied = [dataclasses.replace(one, steps=int(value)) if hasattr(one, "steps") else one for one in attacks]
    if varied == list(attacks) and not any(hasattr(one, "steps") for one in attacks):
        raise ValueError("none of the attacks has steps to vary; give one such as pgd")
    return threat, varied


def _survivors(verdict: Verdict) -> Tensor:
    """Per batch, how many rows are still classified as their label."""
    right = verdict.rows.predictions == verdict.rows.y
    return torch.stack([part.sum() for part in right.split([len(batch.y) for batch in verdict.batches])])


def _standing(batches: Sequence[Batch], verdict: Verdict) -> list[Batch]:
    """The rows that nothing broke so far, in the batches they were in."""
    stands = (verdict.rows.broken_by == -1).split([len(batch.y) for batch in batches])
    kept = [Batch(*(part[rows.to(part.device)] for part in batch)) for batch, rows in zip(batches, stands, strict=True)]
    return [batch for batch in kept if len(batch.y)]
