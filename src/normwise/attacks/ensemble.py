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
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class AutoAttack(BaseAttack):
    """The parameter-free ensemble, in its published order: the worst case over its parts.

    "standard": APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5,000 queries), 100 steps and one start each.

    Options
        version     "standard"

    Cost: on independent rows each part sees only what the parts before it left standing; of coupled rows each part sees
    every batch whole, and the batch with fewest survivors is kept.
    Source: Croce and Hein 2020, arXiv:2003.01690, sec. 5.
    """

    name: ClassVar[str] = "autoattack"

    version: Literal["standard"] = "standard"

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        """The attacks, in order."""
        return (APGD(), APGD(targets=9))

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
