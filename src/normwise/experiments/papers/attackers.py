"""Where an effect comes from: one network, one radius, and attackers from the illusions of older protocols to AutoAttack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import nn

from ...attacks import FGSM, PGD, AutoAttack
from ...evaluation.coupling import Coupling
from ...evaluation.curves import survivors
from ...evaluation.evaluator import searched
from ...evaluation.plan import AttackPlan
from ...models.abnn import ABNN, detached
from ...norms.surgery.adaptation import share_of, with_share
from ...threats import Linf, Normalized
from ...types import Batch
from ...utils.per_row import bits
from . import figures
from .scale import Scale

ROWS = 500  # of the test images, the first ones, in whole batches
NOBODY = "no attack"
NORMALIZED = "eps in normalized units"
CRAFTED = "crafted on batch statistics, judged on running ones"
JUDGED = "crafted on running statistics, judged on batch statistics"
TARGET = "gradient of the target alone"
ILLUSIONS = (NORMALIZED, CRAFTED, JUDGED, TARGET)  # what older protocols did: no robust accuracy
GROWING = ("FGSM", "the papers' PGD", "PGD-100", "APGD", "AutoAttack")  # each beside those before it
ATTACKERS = (*ILLUSIONS, *GROWING)


class _Illusion(NamedTuple):
    """Another threat model, network that answers, or network on which images are made."""

    name: str
    plan: AttackPlan
    judged: nn.Module
    crafted_on: nn.Module | None = None


def through(model: nn.Module, batches: Sequence[Batch], scale: Scale, radius: float, seed: int) -> dict[str, Any]:
    """Accuracy under one attacker after the other, at one radius; "strongest" is what is left of all that grow.

    The illusions stand alone, each under the scale's own attack. Those that grow are summed up: an image that one of them
    broke counts as broken for those after it (of coupled images the batch of which fewest are left). Coupled images, of
    which every search takes whole batches, are not given to AutoAttack.
    """
    some = batches[: max(1, ROWS // scale.batch_size)]
    plan = AttackPlan(Linf(eps=radius), (scale.paper,), seed=seed)
    longer = PGD(steps=100 if scale.evidence else 10, relative_step=0.1)
    last = AutoAttack() if scale.evidence else AutoAttack(steps=5, queries=50)
    grow = [replace(plan, attacks=attacks) for attacks in ((FGSM(),), (scale.paper,), (longer,), scale.strongest)]
    found = survivors(model, some, grow)
    correct = found.correct
    if not found.coupling.coupled:
        alone = found._replace(correct=found.correct[-1:])
        correct = correct + survivors(model, some, [replace(plan, attacks=(last,))], earlier=alone).correct
    rows = {name: bits(left) for name, left in zip(GROWING, correct, strict=False)}
    for one in _illusions(model, plan, scale, found.coupling):
        verdict = searched(one.judged, some, one.plan, craft_on=one.crafted_on)
        rows[one.name] = bits(verdict.correct)
    key, clean = f"{radius:.6g}", bits(found.clean)
    end = bits(correct[-1])
    return {
        "clean": figures.share(clean),
        "coupled": found.coupling.coupled,
        "attackers": {name: figures.share(rows[name]) for name in ATTACKERS if name in rows},
        "strongest": {key: figures.share(end)},
        "rows": {"clean": clean, "attackers": rows, "strongest": {key: end}},
    }


def _illusions(model: nn.Module, plan: AttackPlan, scale: Scale, coupling: Coupling) -> Iterator[_Illusion]:
    """Those that this network can be given: one that reads the batch already, or has no norms, has no other statistics."""
    assert isinstance(plan.threat, Linf)
    units = Normalized(eps=plan.threat.eps, mean=scale.data.mean, std=scale.data.std)
    yield _Illusion(NORMALIZED, replace(plan, threat=units), model)
    if isinstance(model, ABNN):
        yield _Illusion(TARGET, plan, model, detached(model))
    elif not coupling.coupled and share_of(model) is not None:
        reading = with_share(model, 1.0)
        yield _Illusion(CRAFTED, plan, model, reading)
        yield _Illusion(JUDGED, plan, reading, model)
