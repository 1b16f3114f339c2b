"""Does a stronger, longer, gradient-free or wider search find more than the claim admits?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ...attacks import APGD, PGD, AutoAttack, Corner, SparseRS, Square
from ...attacks.strongest import verdict_for
from ...evaluation.predictor import Predictor, classes_of
from ...seeding import generator
from ...threats import Linf
from ...types import Attack
from ...utils.model_state import running
from ..broken_defenses import Scale
from .case import GAP, Case, Found, found, question

STEPS = (1, 2, 5, 10, 20, 50, 100, 200)
LARGEST = {"linf": 1.0}  # radius beyond which a ball holds every image; of other balls the curve ends at 16 eps


@question(
    "more steps",
    "accuracy that rises with the steps is a sign of masked gradients; if it still falls after 20 steps, PGD-20 is too weak to "
    "be quoted",
)
def steps(case: Case) -> Found:
    """PGD with 1 to 200 steps, each searched anew: in a patch at another place, so that a rise only warns."""
    values = [case.accuracy(PGD(steps=steps)) for steps in STEPS]
    late = values[STEPS.index(20)] - values[-1] > GAP
    return found(
        _curve(STEPS, values),
        case.scored,
        fail=_rise(values) > GAP and case.pixels != "patch",
        warn=late or _rise(values) > case.tolerance,
        series=_series("PGD steps", STEPS, values),
    )


@question("more starts", "if other random starts find more, one start is too few")
def starts(case: Case) -> Found:
    """PGD-20 from one random start and from five."""
    one, five = case.accuracy(PGD(steps=20)), case.accuracy(PGD(steps=20, restarts=5))
    measured = f"pgd-20 leaves {100 * one:.1f}% from one start, {100 * five:.1f}% from 5"
    return found(measured, case.scored, warn=one - five > GAP)


@question(
    "other losses",
    "if cross-entropy finds much less than a loss on logits, its gradients are imbalanced (label smoothing, scaled logits): "
    "quote the lowest figure",
)
def losses(case: Case) -> Found:
    """PGD-50 on cross-entropy, margin, DLR (which does not change with the scale of the logits), and on logits rescaled."""
    values = {loss: case.accuracy(PGD(steps=50, loss=loss), called=f"pgd-50 on {loss}") for loss in ("ce", "margin", "dlr")}
    batch = case.first()
    with running(case.model, "eval"):
        size = float(Predictor(case.model, case.seed).answers(batch.x, batch.y)[1].abs().median())
    rescaled = nn.Sequential(case.model, Scale(1 / max(size, 1e-12)))
    values["ce, median margin scaled to 1"] = case.accuracy(
        PGD(steps=50), craft_on=rescaled, called="pgd-50 on rescaled logits"
    )
    measured = ", ".join(f"{loss} {100 * value:.1f}%" for loss, value in values.items())
    return found(measured, case.scored, fail=values["ce"] - min(values.values()) > GAP)


def strongest(case: Case) -> tuple[Attack, ...]:
    """AutoAttack where its parts work and rows may leave the batch one by one; else the parts that are affordable."""
    if case.options.strongest:
        return (case.options.strongest,)
    published = verdict_for(case.threat)
    if published != (AutoAttack(),):
        return published
    if case.random:
        return (AutoAttack(version="rand"),)
    return (APGD(), APGD(targets=9)) if case.coupled else published


@question("stronger search", "a parameter-free search finds what a fixed step size misses: quote AutoAttack")
def stronger(case: Case) -> Found:
    """AutoAttack on the images that are still correct, against the claim."""
    attacks, rows = strongest(case), case.standing()
    white = case.pgd20()
    for part in (
        [rows] if case.coupled else case.turned([[batch] for batch in rows])
    ):  # what falls counts, should the time run out
        try:
            case.evaluate(*attacks, batches=part)
        except ValueError:  # no gradient to follow
            attacks = (SparseRS() if case.pixels in SparseRS.kinds else Square(),)
            case.evaluate(*attacks, batches=part)
    known = case.bound()
    if known is None:
        raise ValueError("no attack could run")
    left = known[0]
    called = " and ".join(str(getattr(attack, "label", attack.name)) for attack in attacks)
    measured = f"after {called}, on the images that were still correct, {left} is left; pgd-20 {100 * white:.1f}%, claimed {100 * (case.claim or 0.0):.1f}%"
    return found(measured, left.rows, fail=case.exceeds(left), warn=white - left.value > GAP)


@question(
    "radius curve",
    "accuracy that rises with the radius, or does not end at 0, means that the attack fails: use a stronger attack",
)
def radii(case: Case) -> Found:
    """PGD-20 at a quarter of the radius, and on by doubling until nothing is left."""
    eps, name = getattr(case.threat, "eps", None), case.threat.name
    if name not in ("linf", "l2", "l1") or not eps:
        return found(f"not measured: it needs linf, l2 or l1 and a radius above 0; got {name}", None, warn=True)
    values, scores = list[float](), list[float]()
    for power in range(-2, 5):
        radius = min(eps * 2**power, LARGEST.get(name, eps * 16))
        if radius in values or (scores and scores[-1] == 0):
            break
        wider: Any = dataclasses.replace(case.threat, eps=radius)  # type: ignore[type-var]
        values.append(radius)
        scores.append(case.accuracy(PGD(steps=20), threat=None if power == 0 else wider, inside=power < 0))
    measured = _curve([f"{value:.3g}" for value in values], scores)
    series = _series("radius", values, scores)
    return found(measured, case.scored, fail=_rise(scores) > case.tolerance, warn=scores[-1] > 0.2, series=series)


@question(
    "radius one",
    "where every image is allowed no image can stay correct, so the attack fails: use a stronger attack",
)
def radius_one(case: Case) -> Found:
    """Corners and PGD in linf at eps 1. A network with a constant answer is dead, and that is not a failing attack."""
    left = case.accuracy(Corner(), PGD(steps=20), threat=Linf(eps=1.0))
    measured, batch = f"{100 * left:.1f}% left at linf eps 1", case.first()
    if left > 0:
        rng = generator(case.seed, "radius one")
        noise = [
            torch.rand(batch.x.shape, generator=rng, dtype=torch.float32).to(batch.x),
            torch.randint(0, 2, batch.x.shape, generator=rng).to(batch.x),
        ]
        said = torch.cat([Predictor(case.model, case.seed).answers(x, batch.y)[0] for x in (batch.x, *noise)])
        if len(said.unique()) == 1:
            return found(f"{measured}: the answer is the same for images and for noise", case.scored, warn=True)
    return found(measured, case.scored, fail=left > 0)


@question(
    "random search",
    "if random search finds more than gradients do, the gradients mislead: quote the lower figure, and craft on a copy",
)
def black_box(case: Case) -> Found:
    """Square with 500 queries, in patches, frames and few pixels Sparse-RS, beside PGD-20."""
    search = SparseRS(steps=500) if case.pixels in SparseRS.kinds else Square(steps=500)
    left, white = case.accuracy(search), case.pgd20()
    measured = f"{search.name} with 500 queries leaves {100 * left:.1f}%, pgd-20 {100 * white:.1f}%"
    return found(measured, case.scored, fail=left < white - case.tolerance)


@question(
    "transfer from an undefended twin",
    "if images made on another network do more harm than the network's own gradients, these gradients mislead: quote the lower "
    "figure, and craft on a copy",
)
def transfer(case: Case) -> Found:
    """PGD-50 on an undefended reference network, checked on the network itself, beside PGD-20 on the network itself."""
    if case.options.twin is None:
        raise ValueError("no undefended reference (twin) was given")
    batch = case.first(2)
    theirs, ours = (
        classes_of(Predictor(one, case.seed), batch.x, called)
        for one, called in ((case.options.twin, "twin"), (case.model, "model"))
    )
    if theirs != ours:
        raise ValueError(
            f"the undefended reference has {theirs} classes, the network {ours}; name one with the same classes as --twin"
        )
    left, white = case.accuracy(PGD(steps=50), craft_on=case.options.twin, called="transfer"), case.pgd20()
    measured = (
        f"images made on an undefended reference leave {100 * left:.1f}%, pgd-20 on the network itself {100 * white:.1f}%"
    )
    return found(measured, case.scored, fail=left < white - case.tolerance)


def _rise(values: Sequence[float]) -> float:
    return max((later - min(values[: i + 1]) for i, later in enumerate(values[1:])), default=0.0)


def _curve(over: Sequence[Any], values: Sequence[float]) -> str:
    return ", ".join(f"{point}: {100 * value:.1f}%" for point, value in zip(over, values, strict=True))


def _series(over: str, values: Sequence[float], scores: Sequence[float]) -> dict[str, Any]:
    return {"over": over, "values": list(values), "scores": list(scores), "of": "robust accuracy"}
