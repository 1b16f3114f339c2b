"""Sparse-RS: random search for a few pixels, a patch or a frame, without gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..types import Labels
from ..utils.per_row import over
from .best_iterate import Best
from .oracle import Oracle
from .random_search import RandomSearch
from .sparse_walks import WALKS, SparseWalk


@dataclass(frozen=True, kw_only=True)
class SparseRS(RandomSearch):
    """Random search among extreme colours: one change at a time, which stays if the loss does not fall. Uses no gradient.

        spa:    some of the pixels are given back, and as many others take a random colour; 0.3 of them at first, ever fewer
        patch:  three times in four a square inside the patch takes another colour, else the patch moves; both ever smaller
        frame:  a square that lies on the border takes another colour; in the first half of the queries of 3 pixels a side or more, then of one

    A patch and a frame begin with a random colour in each pixel; at last one channel of one pixel changes at a time. A
    colour is the least or the largest value that each channel may have. In a clip a square changes in all frames.

    Options
        steps       queries per restart
        restarts    independent searches
        loss        what is raised: "margin" or "ce"

    Cost: at most steps + 1 forwards per image and restart, no backwards; independent rows stop as soon as they fall.
    Source: Croce et al. 2022, arXiv:2006.12834, alg. 1 and sec. 3-5 (L0-RS, Patch-RS, Frame-RS), with the schedules of the
    authors' code. Differs: each row draws for itself; coupled rows spend every second query on the batch in which each row
    keeps its change if its own loss rose, and move to that batch only if it is better as a whole.
    """

    name: ClassVar[str] = "sparse_rs"
    kinds: ClassVar[tuple[str, ...]] = tuple(WALKS)
    walks: ClassVar = WALKS

    def _alone(self, oracle: Oracle, walk: SparseWalk, y: Labels, rows: Tensor, best: Best) -> None:
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

    def _together(self, oracle: Oracle, walk: SparseWalk, y: Labels, rows: Tensor, best: Best) -> None:
        evaluate = partial(self._offer_batch, oracle, y=y, rows=rows, best=best)
        (now, score), step = evaluate(walk.now, step=0), 1
        while step <= self.steps:
            trial = walk.propose(step / (self.steps + 1))
            loss, whole = evaluate(trial, step=step)
            better, step = loss >= now, step + 1
            taken = torch.ones_like(better)
            if better.any() and not better.all() and step <= self.steps:
                taken = better
                loss, whole = evaluate(torch.where(over(better, trial), trial, walk.now), step=step)
                step += 1
            if whole >= score:
                now, score = loss, whole
                walk.accept(taken)
