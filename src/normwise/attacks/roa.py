"""ROA: a place for the patch is searched first, then gradient ascent inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..threats.masked import PatchRegion
from ..types import Images, Labels, Region
from .apgd import APGD
from .base import BaseAttack, at_least
from .best_iterate import Best
from .oracle import Oracle

STICKERS = 0.5, 1.0  # grey and white
SMALL = 32 * 32  # pixels of a picture on which every place is tried
TOGETHER = 256  # images that are asked about at a time


@dataclass(frozen=True, kw_only=True)
class ROA(BaseAttack):
    """Rectangular occlusion: every place of the patch is rated, and APGD is run inside the best ones.

        by a grey and by a white sticker:   the cross-entropy of the image with the sticker at this place
        by gradient:                        the sum of (grad_x cross-entropy)^2 over this place, at the clean image

    Places are one pixel apart, and the last one counts. Pictures of up to 32 x 32 pixels are asked about each place; of
    larger ones, and of clips, the `tested` places with the largest gradients alone. The places come in turn: the best of
    each of the three lists, then the second best. Each repeat takes the next place, and starts at random. A frame has one
    place, and nothing is rated.

    Options
        steps       of APGD, per search
        repeats     places in which is searched, each by APGD on the cross-entropy and by the targeted one
        targets     classes that the targeted search tries: the likeliest wrong ones; 0: no targeted search
        tested      places of a large picture or a clip that are asked about

    Cost: one forward and backward and two forwards per place asked about, then (1 + targets) * (steps + 1) forwards and
    backwards per repeat; independent rows stop as soon as they fall.
    Source: Wu et al. 2020, arXiv:1909.09552, sec. 4. Differs: APGD in place of PGD; white stickers; repeats search other
    places too; the authors' code leaves out the last place of each row and column.
    """

    name: ClassVar[str] = "roa"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "frame")

    steps: int = 50
    repeats: int = 10
    targets: int = 3
    tested: int = 64

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps, repeats=self.repeats, tested=self.tested)
        at_least(self.name, 0, targets=self.targets)

    @property
    def label(self) -> str:
        return f"{self.name}-{self.steps}x{self.repeats}"

    @property
    def classes(self) -> int:
        return losses.CLASSES["targeted dlr"] if self.targets else 2

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        inside = [APGD(steps=self.steps)] + ([APGD(steps=self.steps, targets=self.targets)] if self.targets else [])
        places = self._rated(oracle, region, x, y, best) if isinstance(region, PatchRegion) else None
        for repeat in range(self.repeats):
            for part in inside:
                left = best.standing
                if len(left) == 0:
                    return best.x_adv, best.first_hit
                around = region.select(left)
                if places is not None and isinstance(region, PatchRegion):
                    around = region.placed(left, places[left, repeat % places.shape[1]])
                best.take(oracle, left, y[left], part.search(oracle, around, x[left], y[left]), self.steps)
        return best.x_adv, best.first_hit

    def _rated(self, oracle: Oracle, region: PatchRegion, x: Images, y: Labels, best: Best) -> Tensor:
        """The numbers of the places, the most promising first: (b, places)."""
        raised = oracle.loss("ce")
        here = oracle.gradient(x, y, raised, region.victims)
        best.check(oracle, best.standing, x, y, 0, here.logits)
        slopes = region.sums(here.grad.square())
        small = x.ndim < 5 and x[0, 0].numel() <= SMALL
        shortlist = slopes.topk(region.places if small else min(self.tested, region.places), dim=1).indices
        ratings = [slopes.gather(1, shortlist)]
        for colour in STICKERS:
            rating = torch.full_like(ratings[0], -torch.inf)
            for columns in torch.arange(shortlist.shape[1], device=x.device).split(self._together(oracle, len(x))):
                left = best.standing
                if len(left) == 0:
                    break
                rows = left.repeat(len(columns))
                places = shortlist[left][:, columns].T.flatten()
                x_adv = region.placed(rows, places).project(torch.full_like(x[rows], colour))
                logits = oracle.logits(x_adv)
                loss, fallen, margin = (
                    raised(logits, y[rows]),
                    oracle.reached(logits, y[rows]),
                    oracle.margin(logits, y[rows]),
                )
                rating[left[:, None], columns] = loss.view(len(columns), -1).T.to(rating)
                for one in torch.arange(len(rows), device=x.device).split(len(left)):
                    best.offer(left, x_adv[one], margin[one], fallen[one], 0)
            ratings.append(rating)
        ranks = torch.stack([one.argsort(1, descending=True).argsort(1) for one in ratings])  # 0: the best of its list
        return shortlist.gather(1, ranks.amin(0).argsort(dim=1, stable=True))

    def _together(self, oracle: Oracle, rows: int) -> int:
        """How many places are asked about at a time: of coupled rows one, or the batch would be another."""
        return max(1, TOGETHER // rows) if oracle.how.independent else 1
