"""FGSM: one step as long as the radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..types import Images, Labels, Region
from .base import BaseAttack
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class FGSM(BaseAttack):
    """Fast gradient sign method: one step of steepest ascent, as long as the radius, from the clean image.

        x_adv = project(x + ascend(grad_x loss(x, y), radius))

    Options
        loss    what is raised: "ce", "dlr" or "margin"

    Cost: one forward and one backward per image.
    Source: Goodfellow et al. 2015, arXiv:1412.6572, sec. 4. Differs: any region's steepest ascent, not only linf's sign.
    """

    name: ClassVar[str] = "fgsm"

    loss: str = "ce"

    def __post_init__(self) -> None:
        losses.named(self.loss)

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        here = oracle.gradient(x, y, oracle.loss(self.loss), region.victims)
        x_adv = region.project(region.ascend(x, here.grad, region.radius))
        return x_adv, torch.full_like(y, -1)  # the image is not looked at
