"""FAB: the nearest image across the boundary, by projections onto its linear approximation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..types import Goal, Images, Labels, Logits, PerRow, Region
from ..utils.per_row import DUAL, flat, over, spend
from .base import BaseAttack, at_least
from .best_iterate import Best
from .oracle import Oracle
from .pruning import Progress

Points = Float[Tensor, "b d"]
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}
HUGE = 1e30  # a multiplier that takes every pixel to its side of the box


@dataclass(frozen=True, kw_only=True)
class FAB(BaseAttack):
    """Fast adaptive boundary attack: walk along the decision boundary towards the point of it that is nearest to x.

        x_k+1 = clip((1 - a) (x_k + eta d(x_k)) + a (x + eta d(x))),   a = min(|d(x_k)| / (|d(x_k)| + |d(x)|), alpha_max)

    d(z) is the shortest way, inside the box, from z to the plane on which the linear approximation of logit_t - logit_y
    at x_k is 0. A misclassified x_k is first drawn back to x + beta (x_k - x).

    The distance is minimized; what counts here is whether it comes down to the radius. A row then falls, and independent
    rows leave; of rows that come near, the nearest misclassified point is tried once more after projection onto the region.

    Options
        steps       gradient evaluations per target and restart
        targets     the k most likely wrong classes, one after the other (9 is AutoAttack's FAB-T; where there are fewer
                    classes, all); 0: untargeted, towards the nearest of all classes' planes at each step
        restarts    searches per target; all but the first start halfway to a random allowed point
        alpha_max   largest share of the step that starts from x
        eta         overshoot, as a factor
        beta        how much of the way a misclassified point keeps

    An independent row gives a target up at a step k of steps/8, steps/4, steps/2 (not before the 10th) if its nearest
    misclassified point would stay beyond 1.1 radius even if the distance fell three times as fast, per doubling of k, as it
    fell from k/2 to k; not with `Speed(give_up=False)`.

    Cost: per target and restart, steps forwards and backwards per image and 2 forwards; in l2 up to twice that, as points
    drawn back are looked at again (untargeted: (classes - 1) looks for each). Independent rows stop as soon as they fall.
    Source: Croce and Hein 2020, arXiv:1907.02044, alg. 1. Differs: in linf and l1 the plane of a point drawn back is the one
    found where it was, which spares a look per step and came as near or nearer (in l2 it did not); projections are found by
    Newton's method on the multiplier instead of by sorting (the points are the same); it stops at the radius; it gives up.

    >>> x_adv = FAB(steps=10)(model, x, y, Linf(eps=8 / 255), generator=generator, search=Search(independent=True)).x_adv
    """

    name: ClassVar[str] = "fab"
    goals: ClassVar[tuple[Goal, ...]] = ("misclassified",)
    kinds: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps, restarts=self.restarts)
        at_least(self.name, 0, targets=self.targets)
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max of fab is a share; got {self.alpha_max}; give a number in [0, 1]")
        if not 1 <= self.eta < float("inf"):
            raise ValueError(f"eta of fab is an overshoot; got {self.eta}; give a finite number >= 1")
        if not 0 < self.beta < 1:
            raise ValueError(f"beta of fab is the share of the way kept; got {self.beta}; give a number between 0 and 1")

    @property
    def label(self) -> str:
        return "fab-t" if self.targets else "fab"

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        logits = oracle.logits(x)
        best.check(oracle, best.standing, x, y, 0, logits)
        targets = losses.likely_wrong(logits, y, self.targets).unbind(1) if self.targets else (None,)
        for target in targets:
            for restart in range(self.restarts):
                rows = best.standing
                if len(rows):
                    around, left = (
                        region.select(rows),
                        _RemainingRows(rows, x[rows], y[rows], None if target is None else target[rows]),
                    )
                    start = (left.x + around.start()) / 2 if restart else left.x
                    self._approach(oracle, around, left, start, best)
        return best.x_adv, best.first_hit

    def _approach(self, oracle: Oracle, region: Region, left: _RemainingRows, now: Images, best: Best) -> None:
        """One search from the images `now`, for one target, over the rows that are left."""
        rows, x, y, target = left
        nearest, least = now.clone(), torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        progress = Progress(k for k in (self.steps // 8, self.steps // 4, self.steps // 2) if k >= 10)
        for step in range(self.steps):
            plane, logits = self._plane(oracle, region, now, y, target)
            wrong, length = oracle.reached(logits, y), region.distance(now)
            closer = wrong & (length < least)
            nearest, least = torch.where(over(closer, x), now, nearest), torch.where(closer, length, least)
            if best.independent:
                fallen = wrong & (length <= region.radius)
                best.offer(rows[fallen], now[fallen], oracle.margin(logits, y)[fallen], fallen[fallen], step)
                stay = ~(fallen & best.leaves)
                if oracle.how.give_up and (then := progress.at_half_time(step, least)) is not None:
                    soonest = least * (least / then) ** (3 * math.log2(self.steps / step))  # nan, 0: no point was found
                    stay &= ~(soonest > 1.1 * region.radius)
                if not stay.all():
                    rows, region, target = rows[stay], region.select(stay), None if target is None else target[stay]
                    x, y, now, nearest, least, wrong = (part[stay] for part in (x, y, now, nearest, least, wrong))
                    plane = _Plane(*(part[stay] for part in plane))
                    progress.keep(stay)
                if len(rows) == 0:
                    return
            back = torch.where(over(wrong, x), x + self.beta * (now - x), now)
            if region.kind == "l2" and wrong.any():
                again = wrong if best.independent else torch.ones_like(wrong)
                new, _ = self._plane(
                    oracle, region.select(again), back[again], y[again], None if target is None else target[again]
                )
                plane.weight[again], plane.level[again] = new
            now = self._step(x, back, plane, region.kind)
            if not best.independent:
                best.check(oracle, rows, region.project(now), y, step + 1)
        if best.independent:
            logits = oracle.logits(now)
            closer = oracle.reached(logits, y) & (region.distance(now) < least)
            nearest = torch.where(over(closer, x), now, nearest)
            best.check(oracle, rows, region.project(nearest), y, self.steps)
            if not best.leaves:  # what lies just across the boundary of one model need not cross another's: go further
                stretch = region.radius / region.distance(nearest).clamp_min(1e-6)
                best.check(oracle, rows, region.project(x + over(stretch, x) * (nearest - x)), y, self.steps)

    def _plane(self, oracle: Oracle, region: Region, now: Images, y: Labels, target: Labels | None) -> tuple[_Plane, Logits]:
        """The plane on which the linear approximation of logit_target - logit_y is 0 (no target: the nearest such plane)."""
        if target is not None:
            here = oracle.gradient(now, y, losses.gap, region.victims, target)
            return _Plane.at(now, here.grad, here.loss), here.logits
        planes, far, all_gaps = [], [], [oracle.gradient(now, y, _round, region.victims, y + 1)]
        for shift in range(2, all_gaps[0].logits.shape[1]):
            all_gaps.append(oracle.gradient(now, y, _round, region.victims, y + shift))
        for here in all_gaps:
            dual = DUAL[region.kind](here.grad)
            planes.append(_Plane.at(now, here.grad, here.loss))
            far.append(here.loss.abs() / dual.clamp_min(1e-12))
        first = torch.stack(far).argmin(0), torch.arange(len(y), device=y.device)
        return _Plane(*(torch.stack(part)[first] for part in zip(*planes, strict=True))), all_gaps[0].logits

    def _step(self, x: Images, now: Images, plane: _Plane, kind: str) -> Images:
        """Go to the plane and beyond, from `now` and, a little, from x."""
        weight = torch.cat([plane.weight, plane.weight])
        points = torch.cat([flat(now), flat(x)])
        way = shortest_way(points, weight, torch.cat([plane.level, plane.level]) - (weight * points).sum(1), kind)
        length = way.norm(p=ORDER[kind], dim=1).clamp_min(1e-8)
        points = points.add_(way, alpha=self.eta)
        share = (length[: len(x)] / (length[: len(x)] + length[len(x) :])).clamp_max(self.alpha_max)
        return torch.lerp(points[: len(x)], points[len(x) :], share[:, None]).clamp_(0, 1).view_as(x)


class _RemainingRows(NamedTuple):
    """Rows that are still searched: their indices, clean images, labels, and the classes to go to (None: the nearest)."""

    rows: Tensor
    x: Images
    y: Labels
    target: Labels | None


class _Plane(NamedTuple):
    """Per row, the points z with weight . z = level."""

    weight: Tensor
    level: Tensor

    @classmethod
    def at(cls, point: Images, grad: Images, value: PerRow) -> _Plane:
        """Where value + grad . (z - point) is 0."""
        return cls(flat(grad), (flat(grad) * flat(point)).sum(1) - value)


def _round(logits: Logits, y: Labels, target: Labels) -> PerRow:
    """logit_target - logit_y; classes are counted round."""
    return losses.gap(logits, y, target % logits.shape[1])


def shortest_way(points: Points, weight: Points, gap: PerRow, kind: str) -> Points:
    """The shortest d, in linf, l2 or l1, with weight . d = gap and points + d in [0, 1]; if none, the d that comes nearest.

    In l1 pixel after pixel goes to its side of the box, the one with the largest |w_i| first, until the gap is closed. Else,
    by the Karush-Kuhn-Tucker conditions, |d_i| = min(s u_i, room_i), where room_i is the way to the side of the box that is
    ahead, and u_i = 1 in linf, |w_i| in l2. What d gains, sum_i |w_i| min(s u_i, room_i), is concave and piecewise linear in
    s: Newton's method from below only grows, and reaches the answer exactly once it knows which i are at their side.
    """
    size, gain, tiny = weight.abs(), gap.abs(), torch.finfo(weight.dtype).tiny
    ahead = weight.sign() * gap.sign()[:, None]
    room = torch.where(ahead > 0, 1 - points, points)
    if kind == "l1":
        return ahead * torch.minimum(spend(gain, size * room, size) / size.clamp_min(tiny), room)
    pull = size.new_ones(1) if kind == "linf" else size
    rate = size if kind == "linf" else size.square()
    scale = (gain / rate.sum(1).clamp_min(tiny)).clamp_max(HUGE)
    for _ in range(points.shape[1]):
        wish = scale[:, None] * pull
        slope = torch.linalg.vecdot(rate, (wish < room).to(rate))
        missing = gain - torch.linalg.vecdot(size, torch.minimum(wish, room))
        larger = torch.where(slope > 0, scale + missing / slope.clamp_min(tiny), HUGE).clamp_max(HUGE)
        if not (larger > scale * (1 + 1e-6)).any():
            break
        scale = torch.maximum(scale, larger)
    return ahead * torch.minimum(scale[:, None] * pull, room)
