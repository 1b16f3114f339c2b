"""Square: random search with square patches, without gradients."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from ..types import Images, Labels
from .best_iterate import Best
from .oracle import Oracle
from .pruning import Progress
from .random_search import RandomSearch
from .square_walks import WALKS, SquareWalk

# queries of 10,000 after which the share of pixels that a patch covers is halved
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclass(frozen=True, kw_only=True)
class Square(RandomSearch):
    """Random search: one random patch of each image changes at a time, and stays if the loss rises. Uses no gradient.

        linf:   x_adv <- x + radius * sign_c inside the patch, one random sign per channel c
        l2:     x_adv <- x + the patch's bump, as long as the budget of two patches and what was unused allow; the second
                patch goes back to x
        l1:     the same with steeper bumps, as long as the budget times the channels, projected

    A patch is a square in a picture, a segment in a row of numbers or a signal, a cuboid in a clip (all frames while it is
    large); it covers a share p of the picture, p_init at first, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and
    8000 of 10,000 queries (rescaled to `steps`).

    Options
        steps       queries per restart
        p_init      share of the picture covered by the first patches
        restarts    independent searches
        loss        what is raised: "margin" or "ce"

    Cost: at most steps + 2 forwards per image and restart, no backwards. Independent rows stop as soon as they fall. In linf
    they are not asked about a patch that changes nothing, nor (with up to 4 channels) twice about the same patch while they
    have not moved: the answer is known, and up to a third of the forwards is saved. In searches of 1,000 queries or more
    they are also left after an eighth, a quarter and half of them where they come down too slowly
    (`pruning.Progress.hopeless`); not with `Speed(give_up=False)`.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, alg. 1-3; l1: Croce and Hein 2021, arXiv:2103.01208. Sides in l2
    and l1 are odd and at least 3, as in the authors' code. Differs: the outermost places of a patch are drawn half as often
    as the others (the authors' code never draws the last one; drawn as often as the others they cost strength on digits);
    where a square does not fit, an oblong covers the same share; in linf an independent row whose patch of 9 or more pixels
    would be of no use draws it once more; coupled rows spend every second query on the batch in which each row keeps its new
    patch if its own loss rose, and move to that batch only if it is better as a whole.

    >>> x_adv = Square(steps=50)(model, x, y, Linf(eps=8 / 255), generator=generator, search=Search(independent=True)).x_adv
    """

    name: ClassVar[str] = "square"
    kinds: ClassVar[tuple[str, ...]] = tuple(WALKS)
    walks: ClassVar = WALKS

    p_init: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init of square is a share of the picture; got {self.p_init}; give a number in (0, 1]")

    def _begin(self, oracle: Oracle, x: Images, y: Labels, best: Best) -> None:
        _, fallen, margin = self._judge(oracle, x, y)
        best.offer(best.standing, x, margin, fallen, 0)

    def share(self, step: int) -> float:
        """The share of the picture covered by the patch of query `step` (the first is 0)."""
        return self.p_init / 2 ** bisect_left(HALVINGS, int(step / self.steps * 10_000))

    def _alone(self, oracle: Oracle, walk: SquareWalk, y: Labels, rows: Tensor, best: Best) -> None:
        loss, fallen, margin = self._judge(oracle, walk.images, y)
        best.offer(rows, walk.images, margin, fallen, 0)
        if best.leaves:
            walk.keep(~fallen)
            rows, y, loss, margin = rows[~fallen], y[~fallen], loss[~fallen], margin[~fallen]
        patient = self.steps < 1000 or not (best.leaves and oracle.how.give_up)
        progress, gap = Progress(() if patient else (self.steps // share for share in (8, 4, 2))), -margin
        for step in range(self.steps):
            if (slow := progress.hopeless(step, self.steps, gap)) is not None:
                best.offer(rows[slow], walk.images[slow], -gap[slow], ~slow[slow], step)
                walk.keep(~slow)
                progress.keep(~slow)
                rows, y, loss, gap = rows[~slow], y[~slow], loss[~slow], gap[~slow]
            if len(rows) == 0:
                return
            asked, trial = walk.propose(self.share(step))
            if len(asked) == 0:
                continue
            new, fallen, margin = self._judge(oracle, trial, y[asked])
            better = new > loss[asked]
            moved = asked[better]
            walk.move(moved, trial[better])
            loss[moved], gap[moved] = new[better], -margin[better]
            if fallen.any():
                gone = asked[fallen]
                best.offer(rows[gone], trial[fallen], margin[fallen], fallen[fallen], step + 1)
                if not best.leaves:
                    continue
                stay = torch.ones_like(rows, dtype=torch.bool)
                stay[gone] = False
                walk.keep(stay)
                progress.keep(stay)
                rows, y, loss, gap = rows[stay], y[stay], loss[stay], gap[stay]
        if len(rows):
            _, fallen, margin = self._judge(oracle, walk.images, y)
            best.offer(rows, walk.images, margin, fallen, self.steps)

    def _together(self, oracle: Oracle, walk: SquareWalk, y: Labels, rows: Tensor, best: Best) -> None:
        evaluate = partial(self._offer_batch, oracle, y=y, rows=rows, best=best)
        loss, score = evaluate(walk.images, step=0)
        step = 0
        while step < self.steps:
            asked, trial = walk.propose(self.share(step), whole=True)
            step += 1
            new, _ = evaluate(trial, step=step)
            better = new > loss
            if not better.any() or step == self.steps:
                continue
            before = walk.images.clone()
            walk.move(asked[better], trial[better])
            step += 1
            new, now = evaluate(walk.images, step=step)
            if now > score:
                loss, score = new, now
            else:
                walk.move(asked, before)
