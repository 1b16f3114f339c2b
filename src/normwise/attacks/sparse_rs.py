"""Sparse-RS: random search for a few pixels, a patch or a frame, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..types import Images, Labels, PerRow, Region, Rows
from ..utils.per_row import over
from .base import BaseAttack, at_least
from .best_iterate import Best
from .oracle import Oracle
from .sparse_walks import WALKS, Walk


@dataclass(frozen=True, kw_only=True)
class SparseRS(BaseAttack):
    """Random search among extreme colours: one change at a time, which stays if the loss does not fall. Uses no gradient.

        spa:    some of the pixels are given back, and as many others take a random colour; 0.3 of them at first, ever fewer
        patch:  three times in four a square inside the patch takes another colour, else the patch moves; both ever smaller
        frame:  a square that lies on the border takes another colour; in the first half of the queries of 3 pixels a side or more, then of one

    A patch and a frame begin with a random colour in each pixel; at last one channel of one pixel changes at a time. A colour is the least or the
    largest value that each channel may have. In a clip a square changes in all frames.

    Options
        steps       queries per restart
        restarts    independent searches
        loss        what is raised: "margin" or "ce"

    Cost: at most steps + 1 forwards per image and restart, no backwards; independent rows stop as soon as they fall.
    Source: Croce et al. 2022, arXiv:2006.12834, alg. 1 and sec. 3-5 (L0-RS, Patch-RS, Frame-RS). with the
    schedules of the authors' code. Differs: each row draws for itself; coupled rows spend every second query on the batch in which each row keeps its change
    if its own loss rose, and move to that batch only if it is better as a whole.
    """

    name: ClassVar[str] = "sparse_rs"
    black_box: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = tuple(WALKS)

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
        for _ in range(self.restarts):
            rows = best.standing
            if len(rows) == 0:
                break
            walk = WALKS[region.kind](region.select(rows), x[rows])
            (self._alone if oracle.how.independent else self._together)(oracle, walk, y[rows], rows, best)
        return best.x_adv, best.first_hit

    def _alone(self, oracle: Oracle, walk: Walk, y: Labels, rows: Tensor, best: Best) -> None:
        """Every row walks for itself, and leaves when it has fallen, where rows leave."""
        now = torch.full_like(y, -torch.inf, dtype=walk.now.dtype)
        trial = walk.now
        for step in range(self.steps + 1):
            loss, fallen, margin = self._judge(oracle, trial, y)
            walk.accept(loss >= now)
            now = torch.maximum(loss, now)
            best.offer(rows, trial, margin, fallen, step)
            if best.leaves and fallen.any():
                walk.keep(~fallen)
                rows, y, now = rows[~fallen], y[~fallen], now[~fallen]
                if len(rows) == 0:
                    return
            trial = walk.propose((step + 1) / (self.steps + 1))

    def _together(self, oracle: Oracle, walk: Walk, y: Labels, rows: Tensor, best: Best) -> None:
        """The batch walks as a whole: it moves to images that it has been seen to hold together."""

        def look(images: Images, step: int) -> tuple[PerRow, tuple[int, float]]:
            loss, fallen, margin = self._judge(oracle, images, y)
            best.offer(rows, images, margin, fallen, step)
            return loss, (int((fallen & best.victims).sum()), float(loss[best.victims].mean()))

        (now, score), step = look(walk.now, 0), 1
        while step <= self.steps:
            trial = walk.propose(step / (self.steps + 1))
            loss, whole = look(trial, step)
            better, step = loss >= now, step + 1
            taken = torch.ones_like(better)
            if better.any() and not better.all() and step <= self.steps:
                taken = better
                loss, whole = look(torch.where(over(better, trial), trial, walk.now), step)
                step += 1
            if whole >= score:
                now, score = loss, whole
                walk.accept(taken)

    def _judge(self, oracle: Oracle, images: Images, y: Labels) -> tuple[PerRow, Rows, PerRow]:
        """The loss of each row, whether the goal is reached, and the margin."""
        logits = oracle.logits(images)
        margin = oracle.margin(logits, y)
        return margin if self.loss == "margin" else oracle.loss(self.loss)(logits, y), oracle.reached(logits, y), margin
