"""The L1 ball around an image, cut by the box of pixels [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ..seeding import by_row
from ..types import Images, PerRow, Region
from ..utils import per_row as rows
from .lp import LpRegion, check_eps


@dataclass(frozen=True, kw_only=True)
class L1:
    """The pixels' moves may add up to at most eps: few pixels change, by much.

    Options
        eps     radius in pixels of [0, 1], e.g. 12

    Raises ValueError unless eps is finite and >= 0 and, when a batch is seen, at most the diameter of its box.
    Source: Croce and Hein 2021, arXiv:2103.01208: ball and box are one set, not one after the other.
    """

    name: ClassVar[str] = "l1"

    eps: float = field(default=12.0, kw_only=False)

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, math.inf, "")

    def around(self, x: Images, *, generator: torch.Generator) -> Region:
        diameter = x[0].numel() if len(x) else math.inf
        check_eps(self.name, self.eps, diameter, f"that is the diameter of the box of images of shape {tuple(x.shape[1:])}")
        return L1Region(x, self.eps, generator)


class L1Region(LpRegion):
    """|x_adv - x|_1 <= eps, and 0 <= x_adv <= 1."""

    kind = "l1"

    def start(self) -> Images:
        """Draw from the ball uniformly: d of d + 1 exponential draws, with signs, as shares of the sum of all."""
        sign = rows.flat(self._noise("uniform")).sign()
        size = sign.shape[1] + 1
        shares = by_row(
            lambda n: torch.empty(n, size, dtype=torch.float32).exponential_(generator=self.generator), len(sign)
        ).to(sign)
        shares /= shares.sum(1, keepdim=True)
        return self.project(self.x + self.radius * (sign * shares[:, 1:]).view_as(self.x))

    def sparse_start(self) -> Images:
        """Draw the point of the region nearest to normal noise: it moves few pixels."""
        return self.project(self.x + self._noise("normal"))

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        """Take pixel after pixel to its side of the box, the one with the largest gradient first, until `size` is spent.

        Source: Croce and Hein 2021, arXiv:2103.01208: steepest descent in ball and box.
        """
        now, slope = rows.flat(x_adv), rows.flat(grad)
        room = torch.where(slope > 0, 1 - now, now).clamp_min(0) * (slope != 0)
        budget = size if isinstance(size, torch.Tensor) else torch.full_like(now[:, 0], size)
        return (now + slope.sign() * rows.spend(budget, room, slope.abs())).view_as(x_adv)

    def spread(self, x_adv: Images, grad: Images, size: PerRow, pixels: PerRow) -> Images:
        """Make a step of length `size` shared equally by this many `pixels`, those with the largest gradients.

        Source: Croce and Hein 2021, arXiv:2103.01208: the step of l1-APGD.
        """
        slope, count = rows.flat(grad).abs(), pixels.long().clamp_min(1)
        least = slope.topk(int(count.max()), dim=1).values.gather(1, count[:, None] - 1)
        sign = rows.flat(grad).sign() * (slope >= least)
        return x_adv + (sign * (size / sign.abs().sum(1).clamp_min(1))[:, None]).view_as(x_adv)

    def project(self, x_adv: Images) -> Images:
        """Return the nearest point of ball and box together.

        By the Karush-Kuhn-Tucker conditions pixel i moves by min(max(|d_i| - lam, 0), room_i) for the least lam >= 0 with
        which these add up to at most eps; room_i is the way to the side of the box. The sum is piecewise linear in lam but
        not convex: Newton's method, with a bisection where it leaves the bracket, is exact once it is on the right piece.
        """
        x, d = rows.flat(self.x), rows.flat(x_adv - self.x)
        room, top, tiny = torch.where(d > 0, 1 - x, x), rows.linf(d), torch.finfo(d.dtype).eps
        size = d.abs() - top[:, None]  # and lam too is counted from the largest: the precision is where pixels still move
        lam, low, high = -top, -top, torch.zeros_like(top)
        inside = settled = torch.minimum(d.abs(), room).sum(1) <= self.radius * (1 + 8 * tiny)
        for _ in range(200):  # few are needed: seldom more than ten
            if settled.all():
                break
            moved = torch.minimum((size - lam[:, None]).clamp_min_(0), room)
            over = moved.sum(1) - self.radius
            low, high = torch.where(over > 0, lam, low), torch.where(over > 0, high, lam)
            settled = inside | (over.abs() <= 8 * tiny * self.radius) | (high - low <= 4 * tiny * low.abs())
            newton = lam + over / ((moved > 0) & (moved < room)).sum(1)
            better = torch.where((newton > low) & (newton <= high), newton, (low + high) / 2)
            lam = torch.where(settled, lam, better)
        moved = torch.minimum((size - lam[:, None]).clamp_min_(0), room)
        moved *= (self.radius / moved.sum(1, keepdim=True).clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1)
        nearest = (x + d.sign() * moved).clamp_(0, 1)
        nearest = torch.where((nearest - x).abs() > moved, torch.nextafter(nearest, x), nearest)  # no sum of roundings
        return torch.where(inside[:, None], rows.flat(x_adv).clamp(0, 1), nearest).view_as(x_adv)

    def distance(self, x_adv: Images) -> PerRow:
        return rows.l1(x_adv - self.x)

    def moved(self, x_adv: Images) -> PerRow:
        """Count the pixels in which each row differs from its clean image."""
        return (x_adv != self.x).flatten(1).sum(1).to(self.x)

    def wider(self, radii: float) -> L1Region:
        """Return the region with a radius of this many radii."""
        return L1Region(self.x, radii * self.radius, self.generator)
