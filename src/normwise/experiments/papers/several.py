"""A network before several attackers, those of the papers on adversarial videos: what each leaves, their mean and their union."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...evaluation.evaluator import evaluate
from ...evaluation.plan import AttackPlan
from ...evaluation.sanity_checks import MASKED
from ...evaluation.several import mean_and_union
from ...records import Evaluation
from ...threats import Linf
from ...types import Batch
from .scale import Scale

ROWS = 100  # of the test rows, the first ones, in whole batches


def before_several(model: nn.Module, batches: Sequence[Batch], scale: Scale, radius: float, seed: int) -> dict[str, Any]:
    """Accuracy under each attacker: what its protocol leaves, and what stronger searches leave; their mean and union.

    The first attacker is linf at `radius`, in pixels; the others are scaled to it. Of coupled rows, what stands under all
    protocols together is not known.
    """
    some = batches[: max(1, ROWS // scale.batch_size)]
    own = AttackPlan(Linf(eps=radius), (scale.paper,), strongest=scale.strongest, seed=seed)
    plans = {"linf": own, **scale.columns.plans(own, some[0].x.shape[1:])}
    found = {kind: evaluate(model, some, plan) for kind, plan in plans.items()}
    whole, first = mean_and_union(found), found["linf"].evaluation
    columns: dict[str, dict[str, Any]] = {kind: _column(verdict.evaluation) for kind, verdict in found.items()}
    for name, protocol, strongest in (
        ("mean", whole.protocol_mean, whole.mean),
        ("union", whole.protocol_union, whole.union),
    ):
        columns[name] = {"protocol": protocol.value if protocol else None, "strongest": strongest.value}
    return {
        "clean": first.clean_accuracy.value,
        "coupled": first.coupled,
        "n": first.n,
        "columns": columns,
        "threats": {kind: verdict.evaluation.threat for kind, verdict in found.items()},
        "strongest": {f"{radius:.6g}": whole.union.value},
    }


def _column(e: Evaluation) -> dict[str, Any]:
    """What the protocol and what stronger searches leave, and the checks that speak of the attacks."""
    protocol, strongest = e.pair
    checks = {one.name: one.measured for one in e.checks if one.status != "pass" or one.name == MASKED}
    return {"protocol": protocol.value, "strongest": strongest.value, "checks": checks}
