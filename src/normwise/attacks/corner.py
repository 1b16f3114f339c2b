"""Corner: the far ends of the region, where a model whose output depends on its input has to give in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..types import Images, Labels, Region
from .base import BaseAttack, at_least
from .best_iterate import Best
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class Corner(BaseAttack):
    """Tries the allowed images nearest to far ones: black, white, grey, other images of the batch, and the corner of the
    box that the sign of the gradient names.

        x_adv = project(z),   z in {0, 1, 1/2, x_j, (1 + sign(grad_x loss(x, y))) / 2}

    A sanity check of evaluations: at a radius of 1 in linf every image is allowed, and a model that keeps an accuracy above
    that of its most frequent answer has not been attacked.

    Options
        others  how many other images of the batch are tried

    Cost: at most others + 5 forwards and one backward per image; independent rows stop as soon as they fall.
    Source: the test at unbounded radius of Carlini et al. 2019, arXiv:1902.06705, sec. 5. Differs: no search; only ends.
    """

    name: ClassVar[str] = "corner"

    others: int = 5

    def __post_init__(self) -> None:
        at_least(self.name, 0, others=self.others)

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        here = oracle.gradient(x, y, oracle.margin, region.victims)
        best.check(oracle, best.standing, x, y, 0, here.logits)
        ends = [(1 + here.grad.sign()) / 2, torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 0.5)]
        ends += [x.roll(shift, 0) for shift in range(1, min(self.others, len(x) - 1) + 1)]
        for step, end in enumerate(ends, 1):
            rows = best.standing
            if len(rows) == 0:
                break
            best.check(oracle, rows, region.select(rows).project(end[rows]), y[rows], step)
        return best.x_adv, best.first_hit
