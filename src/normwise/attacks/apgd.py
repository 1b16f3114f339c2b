"""APGD: projected gradient ascent with momentum that halves its step where it no longer pays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import losses
from ..registry import check_words
from ..threats.l1 import L1Region
from ..types import Images, Labels, PerRow, Region, Rows
from ..utils import per_row as rows
from .base import BaseAttack, at_least, check_draws, restarted
from .best_iterate import Best
from .oracle import Oracle
from .pruning import Progress


@dataclass(frozen=True, kw_only=True)
class APGD(BaseAttack):
    """Auto-PGD: from step length 2 radius, with momentum, halving the step and going back to the best point when it stalls.

        z = project(x_k + ascend(grad loss(x_k), size));   x_{k+1} = project(x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}))

    At checkpoints w_j = ceil(p_j steps), p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), a row's step
    is halved and the row goes back to its best point if its loss rose in fewer than `rho` of the steps since the last
    checkpoint, or if neither its step nor its best loss changed since then.

    In l1 the first point is normal noise, projected, and a step is shared by the k pixels with the largest gradients, 1/1.5
    of those that the row's best point moves: where that number falls below 0.95 of what it was, the row goes back to its
    best point and on by steps as long as the radius, else its steps become 1.5 times shorter, down to a tenth of it. The
    first 0.3 of the steps climb in the ball of 3 radii, the next 0.3 in that of 2, from the best point of the one before.

    Options
        steps       gradient evaluations per restart
        restarts    random starts
        loss        what is raised: "ce", "dlr" or "margin"
        targets     0: untargeted; k: one search for each of the k most likely wrong classes, raising the targeted DLR loss
                    (9 is AutoAttack's APGD-T; where there are fewer classes, all)
        rho         share of the steps that must raise the loss; not in l1
        draws       losses and gradients are means over so many draws (expectation over randomness)
        over        what is drawn: "noise" of the model's own, or "peers": clean images in place of half of the batch

    Cost: steps + 1 forwards and backwards per image, restart and target (in l1 steps + 3; times draws, twice that with
    peers); independent rows stop as soon as they fall. In searches of 100 steps or more, but in l1, they are also left after
    a quarter and half of the steps where they come down too slowly (`pruning.Progress.hopeless`); not with
    `Speed(give_up=False)`.
    Source: Croce and Hein 2020, arXiv:2003.01690, alg. 1 and sec. 3; l1: Croce and Hein 2021, arXiv:2103.01208, with the
    constants of the authors' code. Differs: any region's steepest ascent and projection; coupled rows share one step and
    one decision, taken on the batch's mean loss (in l1 the mean number of pixels).
    """

    name: ClassVar[str] = "apgd"

    steps: int = 100
    restarts: int = 1
    loss: str = "ce"
    targets: int = 0
    rho: float = 0.75
    draws: int = 1
    over: Literal["noise", "peers"] = "noise"

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps, restarts=self.restarts)
        check_words(self)
        check_draws(self.name, self.draws, self.over)
        at_least(self.name, 0, targets=self.targets)
        losses.named(self.loss)
        if not 0 < self.rho < 1:
            raise ValueError(f"rho of apgd is a share of steps; got {self.rho}; give a number between 0 and 1")

    @property
    def label(self) -> str:
        return f"apgd-{'t' if self.targets else self.loss}" + (f"-e{self.draws}" if self.draws > 1 else "")

    @property
    def classes(self) -> int:
        return losses.CLASSES["targeted dlr"] if self.targets else super().classes

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        oracle = oracle.averaged(self.draws, self.over, x, region.generator)
        best = Best(x, region.victims, oracle.how)
        targets: list[Labels | None] = [None]
        if self.targets:
            targets = list(losses.likely_wrong(oracle.logits(x), y, self.targets).unbind(1))
        climb = _SparseClimb if isinstance(region, L1Region) else _Climb
        for restart, target in product(range(self.restarts), targets):
            left = best.standing
            if len(left):
                around = restarted(region.select(left), restart)
                climb(self, oracle, best, around, y[left], left, None if target is None else target[left]).run()
        return best.x_adv, best.first_hit


class _Climb:
    """One search from one random start, over the rows that still stand. Every tensor it holds has one entry per row."""

    x: Images
    previous: Images
    grad: Images
    size: PerRow
    allowed = True  # the present point lies in the threat model's region

    def __init__(
        self, attack: APGD, oracle: Oracle, best: Best, region: Region, y: Labels, rows: Tensor, target: Labels | None
    ) -> None:
        self.attack, self.oracle, self.best, self.region = attack, oracle, best, region
        self.y, self.rows, self.target = y, rows, target
        self.step, steps = 0, attack.steps
        self.progress = Progress((steps // 4, steps // 2) if steps >= 100 and best.leaves and oracle.how.give_up else ())

    def run(self) -> None:
        self._begin(self.region.start(), 2 * self.region.radius)
        checkpoints, last = _checkpoints(self.attack.steps), 0
        self.progress.at_half_time(0, self.gap)
        while self.step < self.attack.steps and len(self.rows):
            share = 0.75 if self.step else 1.0
            z = self.region.project(self.region.ascend(self.x, self.grad, self.size))
            moved = self.x + share * (z - self.x) + (1 - share) * (self.x - self.previous)
            self.previous, self.x = self.x, self.region.project(moved)
            self.step += 1
            self._evaluate()
            if self.step in checkpoints:
                self._check(self.step - last)
                last = self.step
            if (slow := self.progress.hopeless(self.step, self.attack.steps, self.gap)) is not None:
                self._leave(slow)

    def _begin(self, x: Images, size: float) -> None:
        """Evaluate the loss at a first point; nothing is known yet of any other."""
        self.x = self.previous = self.grad = self.top_x = self.top_grad = x
        zeros = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        self.size, self.rises, self.halved = zeros + size, zeros, zeros.bool()
        self.loss = self.before = self.top = self.top_then = zeros - torch.inf
        self.gap = zeros + torch.inf
        self._evaluate()
        self.top_then, self.rises = self.top, torch.zeros_like(self.rises)

    def _evaluate(self) -> None:
        """Evaluate the loss at the present point, remember the best point, drop rows that fell."""
        label = self.y
        raised = self.oracle.loss(self.attack.loss if self.target is None else losses.targeted_dlr)
        more = () if self.target is None else (self.target,)
        leaves = self.best.leaves and self.allowed
        here = self.oracle.gradient(self.x, label, raised, self.region.victims, *more, fallen=not leaves)
        fallen = self.oracle.reached(here.logits, label) & self.allowed
        margin = self.oracle.margin(here.logits, label)
        if self.allowed:
            self.best.offer(self.rows, self.x, margin, fallen, self.step)
        self.gap = torch.minimum(self.gap, -margin)
        self.before, self.grad = self.loss, here.grad
        self.loss = here.loss if self.best.independent else here.loss[self.region.victims].mean().expand_as(here.loss)
        better = self.loss > self.top
        self.rises = self.rises + (self.loss > self.before)
        self.top = torch.where(better, self.loss, self.top)
        self.top_x = torch.where(rows.over(better, self.x), self.x, self.top_x)
        self.top_grad = torch.where(rows.over(better, self.x), self.grad, self.top_grad)
        if self.best.leaves:
            self._leave(fallen)

    def _leave(self, which: Rows) -> None:
        """Search on without these rows."""
        if which.any():
            self.region = self.region.select(~which)
            self.progress.keep(~which)
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[~which])

    def _check(self, steps: int) -> None:
        """Halve the step of rows that stall, and take them back to their best point."""
        stalled = (self.rises < self.attack.rho * steps) | (~self.halved & (self.top <= self.top_then))
        self.size = torch.where(stalled, self.size / 2, self.size)
        self._back(stalled)
        self.halved, self.top_then, self.rises = stalled, self.top, torch.zeros_like(self.rises)

    def _back(self, which: Rows) -> None:
        """Take these rows to their best point."""
        self.x = torch.where(rows.over(which, self.x), self.top_x, self.x)
        self.grad = torch.where(rows.over(which, self.x), self.top_grad, self.grad)
        self.loss = torch.where(which, self.top, self.loss)


class _SparseClimb(_Climb):
    """In l1: through balls of 3, 2 and 1 radii, by steps that are shared by few pixels, ever fewer."""

    STAGES = (3, 0.3), (2, 0.6), (1, 1.0)  # radii, and the share of the steps after which the ball shrinks
    region: L1Region

    def run(self) -> None:
        own, x = self.region, None
        for radii, until in self.STAGES:
            self.region, self.allowed = own.wider(radii), radii == 1
            first, last = self.step, round(until * self.attack.steps)
            x = self.region.sparse_start() if x is None else self.region.project(self.top_x)
            self.pixels_then = self.region.moved(x)
            self.pixels = self.pixels_then / 1.5
            self._begin(x, self.region.radius)
            while self.step < last and len(self.rows):
                self.x = self.region.project(self.region.spread(self.x, self.grad, self.size, self.pixels))
                self.step += 1
                self._evaluate()
                if (self.step - first) % max(1, int(0.04 * (last - first))) == 0:
                    self._check(0)

    def _check(self, steps: int) -> None:
        """Where the best point has become sparser, go on from it by long steps; elsewhere by shorter ones."""
        moved, most = self.region.moved(self.top_x), self.region.radius
        if not self.best.independent:
            moved = moved.mean().expand_as(moved)
        sparser = moved < 0.95 * self.pixels_then
        self.pixels, self.pixels_then = moved / 1.5, moved
        self.size = torch.where(sparser, most, (self.size / 1.5).clamp_min(most / 10))
        self._back(sparser)


def _checkpoints(steps: int) -> set[int]:
    """The steps after which the step length is looked at: 22, 41, 57, 70, 80, 87, 93, 99 of 100."""
    earlier, p, found = 0.0, 0.22, set()
    while p <= 1:
        found.add(ceil(round(p * steps, 6)))
        earlier, p = p, p + max(p - earlier - 0.03, 0.06)
    return found
