"""FMN: projected gradient ascent in a ball whose radius follows the boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..types import Images, PerRow
from ..utils.per_row import DUAL, flat, l2, over, unit
from .base import at_least, positive
from .minimal import MinimalNorm, Track, cosine, farthest


@dataclass(frozen=True, kw_only=True)
class FMN(MinimalNorm):
    """Fast minimum norm: gradient ascent on the margin inside a ball that is fitted to the boundary at every step.

        r_k = min((1 - g_k) r_{k-1}, |nearest - x|)       if z_k is misclassified
              (1 + g_k) r_{k-1}                           if it is not, but an earlier point was
              |z_k - x| + |margin| / |grad margin|_dual   before that: to the boundary of the linear approximation
        z_{k+1} = clip(x + project(z_k - x + a_k grad margin / |grad margin|_2, r_k))

    Options
        steps       gradient evaluations
        alpha       first step a_0, in pixels of [0, 1] (Euclidean length in every geometry); falls along half a cosine
        alpha_last  step at the end
        gamma       first share g_0 by which the radius changes; falls along half a cosine
        gamma_last  share at the end

    Cost: steps forwards and backwards per image, and one forward; for coupled rows twice the forwards.
    Source: Pintor et al. 2021, arXiv:2102.12827, alg. 1; settings of the authors' code. Differs: no adversarial starting
    points; the radius grows by g_k at least while none was found (where the box cuts steps short, the boundary is otherwise
    neared, not crossed) and never exceeds the distance of the farthest corner of the box.

    >>> x_adv = FMN(steps=20)(model, x, y, Linf(eps=8 / 255), generator=generator, search=Search(independent=True)).x_adv
    """

    name: ClassVar[str] = "fmn"
    kinds: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")

    steps: int = 100
    alpha: float = 1.0
    alpha_last: float = 0.01
    gamma: float = 0.05
    gamma_last: float = 0.001

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        positive(self.name, alpha=self.alpha, alpha_last=self.alpha_last)
        for option, value in (("gamma", self.gamma), ("gamma_last", self.gamma_last)):
            if not 0 <= value < 1:
                raise ValueError(f"{option} of fmn is a share of the radius; got {value}; give a number in [0, 1)")

    @property
    def label(self) -> str:
        return f"fmn-{self.steps}"

    def approach(self, track: Track) -> None:
        walk = track.walk()
        z, limit = walk.x, farthest(walk.region, walk.x)
        radius = torch.zeros_like(limit)
        for step in range(self.steps):
            alpha = cosine(self.alpha, self.alpha_last, step / self.steps)
            gamma = cosine(self.gamma, self.gamma_last, step / self.steps)
            here, wrong, (z, radius, limit) = walk.evaluate(z, track.oracle.margin, z, radius, limit)
            if len(walk) == 0:
                return
            nearest, dual = track.distance[walk.rows], DUAL[walk.region.kind](here.grad)
            boundary = walk.region.distance(z) + here.loss.abs() / dual.clamp_min(torch.finfo(dual.dtype).tiny)
            larger = torch.where(torch.isfinite(nearest), 0, boundary).maximum((1 + gamma) * radius)
            radius = torch.where(wrong, torch.minimum((1 - gamma) * radius, nearest), larger).minimum(limit)
            z = (walk.x + shortened(z - walk.x + alpha * unit(here.grad), radius, walk.region.kind)).clamp(0, 1)
        walk.last(z)


def shortened(d: Images, radius: PerRow, kind: str) -> Images:
    """The point nearest to d, in Euclidean length, of the ball around 0.

    In l1 every entry shrinks by the same t, not beyond 0: t = max_k (s_k - radius) / k, s_k the sum of the k largest sizes.
    """
    if kind == "linf":
        return d.clamp(-over(radius, d), over(radius, d))
    if kind == "l2":
        return d * over((radius / l2(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1), d)
    size = flat(d).abs()
    sums = size.sort(dim=1, descending=True).values.cumsum(1)
    t = ((sums - radius[:, None]) / torch.arange(1, size.shape[1] + 1, device=d.device)).amax(1).clamp_min(0)
    return d.sign() * (size - t[:, None]).clamp_min(0).view_as(d)
