"""Before anything is attacked: on which network answers are checked, which are searched, and what is known of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from ..norms.surgery.unmapped import unmapped, untrained
from ..types import Batch, Labels
from ..utils.model_state import digest
from .acceleration import faster
from .coupling import PROBED, Coupling, coupling_in, probed
from .plan import AttackPlan, check_attacks
from .predictor import Predictor, check_images, check_weights, classes_of

CRAFTED = "model crafted on"


class Prepared(NamedTuple):
    """The network whose answers count, those that are searched, what is known of the model, which batches count, and what attacks are after.

    `attacked`: the network to search on first, and the last for rows on which the network itself does not agree (see
    `batch`).
    """

    predictor: Predictor
    plan: AttackPlan
    attacked: list[nn.Module]
    coupling: Coupling
    batches: list[int]
    size: int
    aims: list[Labels]  # per batch, what attacks are given as y
    difference: str  # why a faster copy that was made is not searched

    def digests(self) -> list[str]:
        """Of the model whose answers count, then of those that are searched: what no attack may change."""
        return [digest(one) for one in (self.predictor.model, *self.attacked)]


def check_trained(model: nn.Module) -> None:
    """Refuse a network with layers that took a norm's place with another function and were not trained since. Raises ValueError."""
    new = [path for path, module in model.named_modules() if untrained(module)]
    if new:
        raise ValueError(
            f"{len(new)} norms were converted to another function ({new[0]}: {unmapped(model)[new[0]]}); "
            "as it is the network's accuracy says nothing"
        )


def prepare(
    model: nn.Module,
    batches: Sequence[Batch],
    plan: AttackPlan,
    craft_on: nn.Module | None = None,
    coupling: Coupling | None = None,
) -> Prepared:
    """Try the model on the first batch, measure its coupling unless that is given, and refuse what cannot be scored. Raises ValueError."""
    if len(batches) == 0:
        raise ValueError("there is nothing to evaluate on: no batches; give at least one batch of images and labels")
    for one in (model, craft_on or model):
        check_weights(one)
    seed, stateful = plan.seed, plan.stateful
    speed = plan.speed if plan.mode == "eval" else plan.speed.on_the_model
    predictor = Predictor(model, seed, targeted=plan.targeted)
    check_images(batches[0])
    predictor.classes = classes_of(predictor, batches[0].x[:PROBED])
    found = predictor.classes if craft_on is None else classes_of(Predictor(craft_on, seed), batches[0].x[:PROBED], CRAFTED)
    if found != predictor.classes:
        raise ValueError(
            f"the {CRAFTED} has {found} classes, the model {predictor.classes}; use a surrogate with the same classes"
        )
    check_trained(model)
    aims = plan.labels_to_attack(batches, predictor.classes)
    check_attacks(plan.every, plan.threat, batches[0], plan.goal)
    sizes, shown = [len(y) for y in aims], probed(batches)
    size = max(sizes)
    coupling = coupling or coupling_in(model, batches, seed=seed)
    if coupling.stateful and stateful == "refuse":
        raise ValueError(
            "a forward pass in this mode changes the model's buffers, or tensors that it holds, so that a verdict depends on what was "
            "asked before; evaluate in eval mode, or pass stateful='restore' to put them back after each pass, or stateful='sequence' to "
            "keep what each attacked batch leaves"
        )
    predictor.adjust(coupling)
    attacked = [craft_on or model]
    speed = speed.whole if coupling.coupled else speed
    still = stateful != "sequence" or not coupling.stateful  # a copy would not move along
    asked = (shown[0] if coupling.coupled else shown[0][:8]).to(predictor.device)
    copies = faster(attacked[0], speed if still else speed.on_the_model, asked, seed)
    attacked = [*copies.made, *attacked]
    if coupling.coupled and any(one != size for one in sizes[:-1]):
        raise ValueError(
            f"batches of coupled rows are of {sorted(set(sizes))} rows; give one size, but for a shorter last one"
        )
    whole = [i for i, one in enumerate(sizes) if one == size or not coupling.coupled]
    return Prepared(predictor, replace(plan, speed=speed), attacked, coupling, whole, size, aims, copies.difference)
