"""LOAP: gradient ascent on a patch that moves while it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..threats.masked import PatchRegion
from ..types import Images, Labels, Region
from ..utils.per_row import over
from .base import BaseAttack, at_least, positive, restarted
from .best_iterate import Best
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class LOAP(BaseAttack):
    """Location-optimized patch: at every step the patch moves to a place nearby, if the loss is higher there; else its pixels are changed.

        place <- place + reach * (one of up, down, left, right),       reach from 1 to half the side, which shrinks to 1
        x_adv <- project(x_adv + ascend(grad loss(x_adv, y), size)),   size = relative_step * radius * (1 - step / steps)

    Of coupled rows all move, or none. A frame cannot move, and its pixels are changed at every step.

    Options
        steps           gradient evaluations per restart
        restarts        independent searches, each from another random place
        relative_step   first step length as a fraction of the radius
        loss            what is raised: "ce", "dlr" or "margin"

    Cost: steps * restarts backwards and twice as many forwards per image; independent rows stop as soon as they fall.
    Source: Rao et al. 2020, arXiv:2005.02313, sec. 3 (random direction). Differs: the reach is random; steps shrink;
    a patch moves or changes, which saves a look.
    """

    name: ClassVar[str] = "loap"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "frame")

    steps: int = 100
    restarts: int = 5
    relative_step: float = 0.1
    loss: str = "ce"

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps, restarts=self.restarts)
        positive(self.name, relative_step=self.relative_step)
        losses.named(self.loss)

    @property
    def label(self) -> str:
        return f"{self.name}-{self.steps}x{self.restarts}"

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        for restart in range(self.restarts):
            left = best.standing
            if len(left) == 0:
                break
            self._climb(oracle, restarted(region.select(left), restart), y[left], left, best)
        return best.x_adv, best.first_hit

    def _climb(self, oracle: Oracle, region: Region, y: Labels, rows: Tensor, best: Best) -> None:
        loss, x_adv = oracle.loss(self.loss), region.start()
        for step in range(self.steps):
            here = oracle.gradient(x_adv, y, loss, region.victims, fallen=not best.leaves)
            fallen = oracle.reached(here.logits, y)
            best.offer(rows, x_adv, here.loss, fallen, step)
            grad, now = here.grad, here.loss
            if best.leaves and fallen.any():
                rows, y, x_adv, grad, now = (part[~fallen] for part in (rows, y, x_adv, grad, now))
                region = region.select(~fallen)
                if len(rows) == 0:
                    return
            share = 1 - step / self.steps
            climbed = region.project(region.ascend(x_adv, grad, share * self.relative_step * region.radius))
            if not isinstance(region, PatchRegion):
                x_adv = climbed
                continue
            there = self._nearby(region, share)
            moved = there.pasted(region.cut(x_adv))
            logits = oracle.logits(moved)
            new = loss(logits, y)
            best.offer(rows, moved, new, oracle.reached(logits, y), step)
            better = new > now
            if not best.independent:
                better = (new[region.victims].mean() > now[region.victims].mean()).expand_as(better)
            x_adv = torch.where(over(better, x_adv), moved, climbed)
            region = region.placed(torch.arange(len(y), device=y.device), torch.where(better, there.place, region.place))
        logits = oracle.logits(x_adv)
        best.offer(rows, x_adv, loss(logits, y), oracle.reached(logits, y), self.steps)

    def _nearby(self, region: PatchRegion, share: float) -> PatchRegion:
        """The patch a little up, down, left or right of where it is."""
        rows, axes = region.corner.shape
        draws = torch.rand(3, rows, generator=region.generator, dtype=torch.float32).to(region.corner.device)
        reach = 1 + (draws[0] * max(1, round(share * region.size / 2))).long()
        by = torch.zeros_like(region.corner)
        by.scatter_(1, (draws[1] * axes).long()[:, None], torch.where(draws[2] < 0.5, -reach, reach)[:, None])
        return region.placed(torch.arange(rows, device=by.device), region.moved(by))
