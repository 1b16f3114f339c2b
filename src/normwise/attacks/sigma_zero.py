"""Sigma-zero: gradient descent towards few changed pixels, by a smooth count of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..threats.sparse import SparseRegion
from ..types import Images, Labels, Region
from ..utils.per_row import linf, over
from .base import BaseAttack, at_least, positive
from .best_iterate import Best
from .minimal import cosine
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class SigmaZero(BaseAttack):
    """Walks along the margin's gradient while it is not misclassified, and always towards fewer pixels, counted smoothly.

        count(d) = mean_i |d_i|^2 / (|d_i|^2 + sigma),   |d_i| the length of pixel i's change over the channels
        d <- clip(d + size * g / |g|_inf),               g = grad min(margin, 0) - grad count(d)
        d_i <- 0 where |d_i| < t;                        t grows by 0.01 * size where the row is misclassified, else shrinks so

    Every point is looked at once more with the pixels that the budget allows, those of the largest change.

    Options
        steps       gradient evaluations
        size        first step as a fraction of the radius; falls along half a cosine to a tenth of it
        threshold   first t, likewise
        sigma       how near to 0 a change counts as none

    Cost: steps forwards and backwards per image, and as many forwards more; independent rows stop as soon as they fall.
    Source: Cina et al. 2025, arXiv:2402.01879, alg. 1. Differs: a pixel is all its channels; it looks for what falls within
    a budget of pixels, in place of the least number.
    """

    name: ClassVar[str] = "sigma_zero"
    kinds: ClassVar[tuple[str, ...]] = ("spa",)

    steps: int = 300
    size: float = 1.0
    threshold: float = 0.3
    sigma: float = 1e-3

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        positive(self.name, size=self.size, threshold=self.threshold, sigma=self.sigma)

    @property
    def label(self) -> str:
        return f"{self.name}-{self.steps}"

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        assert isinstance(region, SparseRegion)  # by its kind
        best, rows = Best(x, region.victims, oracle.how), torch.arange(len(y), device=y.device)
        z, t = x, torch.full_like(y, self.threshold * region.radius, dtype=x.dtype)
        for step in range(self.steps):
            here = oracle.gradient(z, y, oracle.margin, region.victims)
            allowed = region.project(z)
            reached = best.check(oracle, rows, allowed, y, step, here.logits if torch.equal(allowed, z) else None)
            grad, fell = here.grad, oracle.reached(here.logits, y)
            if best.leaves and reached.any():
                rows, y, z, t, grad, fell = (part[~reached] for part in (rows, y, z, t, grad, fell))
                region = region.select(~reached)
                if len(rows) == 0:
                    break
            size = region.radius * cosine(self.size, self.size / 10, step / self.steps)
            z = self._step(region, z, torch.where(over(fell, grad), 0, grad), size, t)
            t = (t + torch.where(fell, 0.01 * size, -0.01 * size)).clamp_min(0)
        if len(rows):
            best.check(oracle, rows, region.project(z), y, self.steps)
        return best.x_adv, best.first_hit

    def _step(self, region: SparseRegion, z: Images, grad: Images, size: float, t: Tensor) -> Images:
        """One step up the gradient and towards fewer pixels; small changes vanish."""
        d = z - region.x
        square = region.sums(d.square())
        fewer = 2 * d * region.spread(self.sigma / (square + self.sigma).square()) / square[0].numel()
        slope = grad - fewer
        longest = linf(slope).clamp_min(torch.finfo(slope.dtype).tiny)
        z = region.inner.project(z + size * slope / over(longest, slope))
        large = region.sums((z - region.x).square()).sqrt() >= t[:, None, None]
        return torch.where(region.spread(large), z, region.x)
