"""TRADES: accuracy on clean images, and answers that do not change around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ...attacks.base import BaseAttack, at_least, positive
from ...attacks.oracle import Oracle
from ...registry import check_words
from ...seeding import by_row
from ...types import Cost, Images, Labels, Mode, Region, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .crafting import craft
from .standard import check_smoothing


@dataclass(frozen=True, kw_only=True)
class Diverge(BaseAttack):
    """Projected gradient ascent on KL(p(x) || p(x_adv)), from x + 0.001 z, z standard normal.

    Options
        steps           gradient evaluations
        relative_step   step length as a fraction of the radius

    Cost: steps + 1 forwards and steps backwards per image.
    Source: Zhang et al. 2019, arXiv:1901.08573, alg. 1, as in their code.
    """

    name: ClassVar[str] = "diverge"

    steps: int = 10
    relative_step: float = 0.25

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        clean = oracle.logits(x).log_softmax(1)
        noise = by_row(
            lambda n: torch.empty(n, *x.shape[1:], dtype=torch.float32).normal_(generator=region.generator), len(x)
        ).to(x)
        x_adv = region.project(x + 0.001 * noise)
        for _ in range(self.steps):
            evaluated = oracle.gradient(x_adv, y, _divergence, region.victims, clean)
            x_adv = region.project(region.ascend(x_adv, evaluated.grad, self.relative_step * region.radius))
        return x_adv, torch.full_like(y, -1)


@dataclass(frozen=True, kw_only=True)
class TRADES:
    """CE(p(x), y) + beta * KL(p(x) || p(x_adv)); x_adv maximizes the divergence, and gradients go through both terms.

    Options
        beta                weight of the divergence
        steps               PGD steps per batch
        relative_step       step length as a fraction of the radius
        craft_in            mode of the network while images are made: "eval" or "train". Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1, in the cross-entropy

    Cost: steps + 3 forwards and steps + 2 backwards per image.
    Source: Zhang et al. 2019, arXiv:1901.08573, eq. 5 (beta is their 1 / lambda). Differs: the step is relative (theirs is
    0.007 at radius 0.031), two training forwards instead of three, so that running statistics see the clean images once.
    """

    name: ClassVar[str] = "trades"
    label: ClassVar[str] = "TRADES"
    robust: ClassVar[bool] = True

    beta: float = 6.0
    steps: int = 10
    relative_step: float = 0.25
    craft_in: Mode = "eval"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        positive(self.name, relative_step=self.relative_step)
        check_smoothing(self.name, self.label_smoothing)
        check_words(self)
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"beta of {self.name} is a weight; got {self.beta}; give a finite number >= 0")

    def prepare(self, model: nn.Module) -> nn.Module:
        return copied(model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        attack = Diverge(steps=self.steps, relative_step=self.relative_step)
        crafted = craft(attack, model, x, y, threat, self.craft_in, generator=generator)
        clean, adversarial = logits_of(model, x), logits_of(model, crafted.x_adv)
        loss = F.cross_entropy(clean, y, label_smoothing=self.label_smoothing)
        loss = loss + self.beta * _divergence(adversarial, y, clean.log_softmax(1)).mean()
        return Cost(loss, adversarial.detach(), crafted.forwards + 2 * len(x), crafted.backwards + 2 * len(x))


def _divergence(logits: Tensor, y: Labels, clean: Tensor) -> Tensor:
    """KL(p || q) per row: p from the logarithms `clean`, q from the logits."""
    return F.kl_div(logits.log_softmax(1), clean, reduction="none", log_target=True).sum(1)
