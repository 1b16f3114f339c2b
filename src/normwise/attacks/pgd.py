"""PGD: projected gradient ascent on the loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import losses
from ..registry import check_words
from ..types import Images, Labels, Region
from ..utils import per_row as views
from .base import BaseAttack, at_least, check_draws, positive, restarted
from .best_iterate import Best
from .oracle import Oracle

_TINY = 1e-30  # keeps a gradient of zeros zero


@dataclass(frozen=True, kw_only=True)
class PGD(BaseAttack):
    """Projected gradient ascent on the loss, inside any threat model.

        g     <- decay * g + grad loss(x_adv, y) / |grad loss(x_adv, y)|_1        (decay 0: the gradient itself)
        x_adv <- project(x_adv + ascend(g, relative_step * radius))

    Options
        steps           gradient evaluations per restart
        relative_step   step length as a fraction of the radius (0.25 of 8/255 is 2/255)
        restarts        independent searches; with more than one, all but the first start at random
        random_start    begin the first search too at a random allowed point instead of x
        decay           weight of the earlier directions in the next one; 0: the gradient alone
        loss            what is raised: "ce", "dlr" or "margin" (the last gives the CW-style attack)
        targets         0: untargeted; k: per restart one search for each of the k most likely wrong classes (where there are
                        fewer, all), raising logit_target - logit_y
        draws           gradients are means over so many draws (expectation over randomness)
        over            what is drawn: "noise" of the model's own, or "peers": clean images in place of half of the batch
        keep            "best": the strongest image seen (per row, or per batch of coupled rows), one more forward per
                        restart; "last": the last one, as in adversarial training

    Cost: steps * restarts forwards and backwards per image (times targets, times draws, twice that with peers), and one
    forward per search with keep="best"; independent rows stop as soon as they fall.
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
    targets: int = 0
    draws: int = 1
    over: Literal["noise", "peers"] = "noise"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        at_least(self.name, 0, steps=self.steps, targets=self.targets)
        at_least(self.name, 1, restarts=self.restarts)
        positive(self.name, relative_step=self.relative_step)
        losses.named(self.loss)
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay of {self.name} is a weight; got {self.decay}; give a number from 0 to 1")
        check_words(self)
        check_draws(self.name, self.draws, self.over)
        if self.keep == "last" and (self.restarts > 1 or self.targets):
            raise ValueError(
                "keep='last' of pgd returns one search's last image; with targets, or restarts > 1, use keep='best'"
            )

    @property
    def label(self) -> str:
        marks = (self.restarts > 1, f"x{self.restarts}"), (self.targets, "-t"), (self.draws > 1, f"-e{self.draws}")
        return f"{self.name}-{self.steps}" + "".join(mark for shown, mark in marks if shown)

    @property
    def classes(self) -> int:
        return 2 if self.targets else super().classes  # towards a target it is such a difference anyhow

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        oracle = oracle.averaged(self.draws, self.over, x, region.generator)
        whole = self.keep == "last"  # one image of all rows: none leaves
        best = Best(x, region.victims, replace(oracle.how, independent=False) if whole else oracle.how)
        targets: list[tuple[Tensor, ...]] = [()]
        if self.targets:
            targets = [(target,) for target in losses.likely_wrong(oracle.logits(x), y, self.targets).unbind(1)]
        last = x
        for restart, target in product(range(self.restarts), targets):
            rows = best.standing
            if len(rows) == 0:
                break
            around = restarted(region.select(rows), restart)
            start = around.start() if self.random_start or restart else around.project(x[rows])
            last = self._climb(oracle, around, start, y[rows], [one[rows] for one in target], rows, best)
        return (best.x_adv if self.keep == "best" else last), best.first_hit

    def _climb(
        self, oracle: Oracle, region: Region, x_adv: Images, y: Labels, target: list[Tensor], rows: Tensor, best: Best
    ) -> Tensor:
        """One search over the rows that still stand, from `x_adv`; returns its last images."""
        loss = oracle.loss(losses.gap if target else self.loss)
        earlier = torch.zeros_like(x_adv)
        for step in range(self.steps):
            here = oracle.gradient(x_adv, y, loss, region.victims, *target, fallen=not best.leaves)
            direction = here.grad
            if self.decay:
                direction = self.decay * earlier + direction / views.over(views.l1(direction).clamp_min(_TINY), direction)
                earlier = direction
            if self.keep == "best":
                fallen = oracle.reached(here.logits, y)
                margin = oracle.margin(here.logits, y)
                best.offer(rows, x_adv, margin if target else here.loss, fallen, step)
                if best.leaves and fallen.any():
                    rows, y, x_adv, direction, earlier, *target = (
                        part[~fallen] for part in (rows, y, x_adv, direction, earlier, *target)
                    )
                    region = region.select(~fallen)
                    if len(rows) == 0:
                        return x_adv
            x_adv = region.project(region.ascend(x_adv, direction, self.relative_step * region.radius))
        if self.keep == "best":
            logits = oracle.logits(x_adv)
            rank = oracle.margin(logits, y) if target else loss(logits, y)  # losses for several targets cannot be compared
            best.offer(rows, x_adv, rank, oracle.reached(logits, y), self.steps)
        return x_adv


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


@dataclass(frozen=True, kw_only=True)
class MultiTargeted(PGD):
    """PGD for each of the most likely wrong classes in turn, on the difference of two logits.

    Source: Gowal et al. 2019, arXiv:1910.09338, sec. 3. Differs: targets in the order of their logits; otherwise as in
    `pgd`.
    """

    name: ClassVar[str] = "multitargeted"

    targets: int = 9
