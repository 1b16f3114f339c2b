"""Several attacks as one: each sees only the rows that the ones before it left standing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from .. import losses
from ..types import Images, Labels, Region
from .apgd import APGD
from .base import BaseAttack
from .best import Best
from .fab import FAB
from .oracle import Oracle
from .square import Square


@dataclass(frozen=True, kw_only=True)
class AutoAttack(BaseAttack):
    """The parameter-free ensemble, in its published order: the worst case over its parts.

    "standard": APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5,000 queries); 100 steps and one start each.
    "plus": APGD-CE, APGD-DLR and untargeted FAB with 5 starts each, Square, APGD-T, FAB-T.

    Options
        version     "standard" or "plus"
        steps       of APGD and FAB
        queries     of Square

    Cost: on independent rows each part sees only what the parts before it left standing; of coupled rows each part sees
    every batch whole, and the batch with fewest survivors is kept.
    Source: Croce and Hein 2020, arXiv:2003.01690, sec. 5.
    """

    name: ClassVar[str] = "autoattack"

    version: Literal["standard", "plus"] = "standard"
    steps: int = 100
    queries: int = 5000

    def __post_init__(self) -> None:
        if self.version not in ("standard", "plus"):
            raise ValueError(f"version of autoattack is {self.version!r}; give 'standard' or 'plus'")
        _ = self.parts  # check their own options

    @property
    def label(self) -> str:
        return f"autoattack-{self.version}"

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        """The attacks, in order."""
        steps, square = self.steps, Square(steps=self.queries)
        targeted = APGD(steps=steps, targets=9), FAB(steps=steps)
        if self.version == "standard":
            return APGD(steps=steps), *targeted, square
        untargeted = (
            APGD(steps=steps, restarts=5),
            APGD(steps=steps, loss="dlr", restarts=5),
            FAB(steps=steps, targets=0, restarts=5),
        )
        return *untargeted, square, *targeted

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels, independent: bool) -> tuple[Images, Tensor]:
        best = Best(x, region.victims, independent=independent)
        for part in self.parts:
            left = best.standing
            if len(left) == 0:
                break
            x_adv, _ = part.search(oracle, region.select(left), x[left], y[left], independent)
            logits = oracle.logits(x_adv)
            best.offer(left, x_adv, losses.margin(logits, y[left]), ~losses.correct(logits, y[left]), 0)
        return best.x_adv, best.first_hit
