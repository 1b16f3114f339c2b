"""Random search: from the present point of some rows to one that is no worse, asked for by one forward each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from .. import losses
from ..types import Images, Labels, PerRow, Region, Rows
from .base import BaseAttack, at_least
from .best_iterate import Best
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class RandomSearch(BaseAttack):
    """What random searches share: walks of the rows that stand, once per restart, each by its own or all of a batch together.

    A walk knows the present images and proposes others; `walks` has one for each kind of threat.
    """

    black_box: ClassVar[bool] = True
    walks: ClassVar[Mapping[str, Any]]

    steps: int = 5000
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        at_least(self.name, 0, steps=self.steps)
        at_least(self.name, 1, restarts=self.restarts)
        losses.named(self.loss)

    @property
    def label(self) -> str:
        return f"{self.name}-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        self._begin(oracle, x, y, best)
        for _ in range(self.restarts):
            rows = best.standing
            if len(rows) == 0:
                break
            walk = self.walks[region.kind](region.select(rows), x[rows])
            (self._alone if oracle.how.independent else self._together)(oracle, walk, y[rows], rows, best)
        return best.x_adv, best.first_hit

    def _begin(self, oracle: Oracle, x: Images, y: Labels, best: Best) -> None:
        """Look at the clean images, where a search does."""

    @abstractmethod
    def _alone(self, oracle: Oracle, walk: Any, y: Labels, rows: Tensor, best: Best) -> None:
        """Every row walks for itself, and leaves when it has fallen, where rows leave."""

    @abstractmethod
    def _together(self, oracle: Oracle, walk: Any, y: Labels, rows: Tensor, best: Best) -> None:
        """The batch walks as a whole: it moves to images that it has been seen to hold together."""

    def _judge(self, oracle: Oracle, images: Images, y: Labels) -> tuple[PerRow, Rows, PerRow]:
        """The loss of each row, whether the goal is reached, and the margin."""
        logits = oracle.logits(images)
        margin = oracle.margin(logits, y)
        loss = margin if self.loss == "margin" else oracle.loss(self.loss)(logits, y)
        return loss, oracle.reached(logits, y), margin

    def _offer_batch(
        self, oracle: Oracle, images: Images, y: Labels, rows: Tensor, best: Best, step: int
    ) -> tuple[PerRow, tuple[int, float]]:
        """Offer a whole batch: the loss of each row, and how good the batch is (rows that fell, then the mean loss)."""
        loss, fallen, margin = self._judge(oracle, images, y)
        best.offer(rows, images, margin, fallen, step)
        return loss, (int((fallen & best.victims).sum()), float(loss[best.victims].mean()))
