"""PGD: projected gradient ascent on the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import losses
from .. import rows as views
from ..types import Images, Labels, Region
from .base import BaseAttack, at_least, positive
from .best import Best
from .oracle import Oracle

_TINY = 1e-30  # keeps a gradient of zeros zero


@dataclass(frozen=True, kw_only=True)
class PGD(BaseAttack):
    """Projected gradient ascent on the loss, inside any threat model.

        g     <- decay * g + grad loss(x_adv, y) / |grad loss(x_adv, y)|_1
        x_adv <- project(x_adv + ascend(g, relative_step * radius))

    Options
        steps           gradient evaluations per restart
        relative_step   step length as a fraction of the radius (0.25 of 8/255 is 2/255)
        restarts        independent searches; with more than one, all but the first start at random
        random_start    begin the first search too at a random allowed point instead of x
        decay           weight of the earlier directions in the next one; 0: the gradient alone
        loss            what is raised: "ce", "dlr" or "margin" (the last gives the CW-style attack)
        keep            "best": the strongest image seen (per row, or per batch of coupled rows), one more forward per
                        restart; "last": the last one, as in adversarial training

    Cost: steps * restarts forwards and backwards per image, and one forward per restart with keep="best"; independent
    rows stop as soon as they fall.
    Source: Madry et al. 2018, arXiv:1706.06083, eq. 2. Differs: the step is relative, so that one value serves every
    radius; the best iterate is kept, not the last.

    >>> x_adv = PGD(steps=20)(model, x, y, Linf(eps=8 / 255), generator=generator).x_adv
    """

    name: ClassVar[str] = "pgd"

    steps: int = 20
    relative_step: float = 0.25
    restarts: int = 1
    random_start: bool = True
    decay: float = 0.0
    loss: str = "ce"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        at_least(self.name, 0, steps=self.steps)
        at_least(self.name, 1, restarts=self.restarts)
        positive(self.name, relative_step=self.relative_step)
        losses.named(self.loss)
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay of {self.name} is a weight; got {self.decay}; give a number from 0 to 1")
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep of pgd is {self.keep!r}; give 'best' or 'last'")
        if self.keep == "last" and self.restarts > 1:
            raise ValueError("keep='last' of pgd returns one search's last image; with restarts > 1 use keep='best'")

    @property
    def label(self) -> str:
        return f"{self.name}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels, independent: bool) -> tuple[Images, Tensor]:
        best = Best(x, region.victims, independent=independent and self.keep == "best")
        loss = losses.named(self.loss)
        x_adv = x
        for restart in range(self.restarts):
            rows = best.standing
            if len(rows) == 0:
                break
            around, label = region.select(rows), y[rows]
            x_adv = around.start() if self.random_start or restart else around.project(x[rows])
            direction = torch.zeros_like(x_adv)
            for step in range(self.steps):
                look = oracle.gradient(x_adv, label, loss, around.victims)
                direction = self.decay * direction + look.grad / views.over(views.l1(look.grad).clamp_min(_TINY), look.grad)
                if self.keep == "best":
                    fallen = ~losses.correct(look.logits, label)
                    best.offer(rows, x_adv, look.loss, fallen, step)
                    if best.independent and fallen.any():
                        rows, label, x_adv, direction = (part[~fallen] for part in (rows, label, x_adv, direction))
                        around = around.select(~fallen)
                        if len(rows) == 0:
                            break
                x_adv = around.project(around.ascend(x_adv, direction, self.relative_step * around.radius))
            if self.keep == "best" and len(rows):
                logits = oracle.logits(x_adv)
                best.offer(rows, x_adv, loss(logits, label), ~losses.correct(logits, label), self.steps)
        return (best.x_adv if self.keep == "best" else x_adv), best.first_hit


@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """Basic iterative method: PGD from the clean image.

    Source: Kurakin et al. 2017, arXiv:1607.02533. Options and differences as in `pgd`.
    """

    name: ClassVar[str] = "bim"

    random_start: bool = False


@dataclass(frozen=True, kw_only=True)
class MIM(BIM):
    """Momentum iterative method: earlier directions carry on, each gradient scaled to L1 length 1.

    Source: Dong et al. 2018, arXiv:1710.06081, alg. 1. Differs: as in `pgd`.
    """

    name: ClassVar[str] = "mim"

    decay: float = 1.0
