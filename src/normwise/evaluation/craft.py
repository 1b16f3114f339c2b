"""Adversarial images of one batch, without a verdict."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from ..attacks import PGD, worst_case
from ..seeding import generator
from ..types import Attack, Batch, Images, Labels, ThreatModel
from ..utils.model_state import device_of, running
from .acceleration import EAGER
from .plan import AttackPlan, planned
from .preflight import prepare


def attack(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel | AttackPlan,
    by: Attack | None = None,
    *,
    seed: int | None = None,
) -> Images:
    """Search for images in `threat.around(x)` that the model misclassifies; returns them, on the model's device.

    x are images (b, c, ...) with pixels in [0, 1], y their labels (b,). `by` is the attack (None: PGD-20). Or `threat` is an
    `AttackPlan` with one attack or several, the strongest among them, with a seed, and with a class to reach, if one is
    wanted. Whether rows are coupled is measured first; coupled rows are attacked as one batch. The model is left as it was.
    Whether an image is misclassified is for the model to say, or for `evaluate`, which checks. Raises ValueError as
    `evaluate` does.
    """
    plan = planned(threat, by or (None if isinstance(threat, AttackPlan) else PGD()))
    if seed is not None and isinstance(threat, AttackPlan):
        raise ValueError("seed is given beside a plan, which has its own; give it in the plan")
    plan = plan if seed is None else replace(plan, seed=seed)
    batch = Batch(x.to(device_of(model)), y.to(device_of(model)), y)
    with running(model, plan.mode):
        prepared = prepare(model, [batch], replace(plan, stateful="restore", speed=EAGER))
        search = plan.search(not prepared.coupling.coupled, prepared.predictor.draws == 1)
        one = plan.every[0] if len(plan.every) == 1 else worst_case(*plan.every)  # type: ignore[arg-type]
        return one(
            model, batch.x, prepared.aims[0], plan.threat, generator=generator(plan.seed, "attack"), search=search
        ).x_adv
