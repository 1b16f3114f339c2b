"""PGD: projected gradient ascent on the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from .. import losses
from ..types import Images, Labels, Region
from .base import BaseAttack, at_least, positive
from .best import Best
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class PGD(BaseAttack):
    """Projected gradient ascent on the loss, inside any threat model.

        x_adv <- project(x_adv + ascend(grad loss(x_adv, y), relative_step * radius))

    Options
        steps           gradient evaluations per restart
        relative_step   step length as a fraction of the radius (0.25 of 8/255 is 2/255)
        restarts        independent searches; with more than one, all but the first start at random
        random_start    begin the first search too at a random allowed point instead of x
        loss            what is raised: "ce" or "margin" (the latter gives the CW-style attack)
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
    loss: str = "ce"
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        at_least(self.name, 0, steps=self.steps)
        at_least(self.name, 1, restarts=self.restarts)
        positive(self.name, relative_step=self.relative_step)
        losses.named(self.loss)
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep of pgd is {self.keep!r}; give 'best' or 'last'")
        if self.keep == "last" and self.restarts > 1:
            raise ValueError("keep='last' of pgd returns one search's last image; with restarts > 1 use keep='best'")

    @property
    def label(self) -> str:
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

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
            for step in range(self.steps):
                look = oracle.gradient(x_adv, label, loss, around.victims)
                if self.keep == "best":
                    fallen = ~losses.correct(look.logits, label)
                    best.offer(rows, x_adv, look.loss, fallen, step)
                    if best.independent and fallen.any():
                        rows, around, label, x_adv = (
                            rows[~fallen],
                            around.select(~fallen),
                            label[~fallen],
                            x_adv[~fallen],
                        )
                        look = look._replace(grad=look.grad[~fallen])
                        if len(rows) == 0:
                            break
                x_adv = around.project(around.ascend(x_adv, look.grad, self.relative_step * around.radius))
            if self.keep == "best" and len(rows):
                logits = oracle.logits(x_adv)
                best.offer(rows, x_adv, loss(logits, label), ~losses.correct(logits, label), self.steps)
        return (best.x_adv if self.keep == "best" else x_adv), best.first_hit
