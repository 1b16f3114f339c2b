"""DDN: the gradient says where to go, the last answer says how far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..types import Images
from ..utils.per_row import l2, over, unit
from .base import at_least, positive
from .minimal import MinimalNorm, Track, cosine, farthest


@dataclass(frozen=True, kw_only=True)
class DDN(MinimalNorm):
    """Decoupled direction and norm: a walk on a sphere whose radius shrinks while the point is misclassified, else grows.

        d_{k+1} = d_k + a_k grad cross_entropy / |grad cross_entropy|_2,   r_{k+1} = (1 -+ gamma) r_k
        z_{k+1} = clip(x + r_{k+1} d_{k+1} / |d_{k+1}|_2);                 a_k from 1 to 0.01 along half a cosine

    Options
        steps       gradient evaluations
        gamma       by what share the radius changes in a step
        init_norm   the first radius, in pixels of [0, 1] (Euclidean length)

    Cost: steps forwards and backwards per image, and one forward; for coupled rows twice the forwards.
    Source: Rony et al. 2019, arXiv:1811.09600, alg. 1. Differs: no rounding to 256 levels; the radius never exceeds the
    distance of the farthest corner of the box; where the gradient is 0 a random direction is taken.

    >>> x_adv = DDN(steps=20)(model, x, y, L2(eps=0.5), generator=generator).x_adv
    >>> distance = DDN(steps=20).distances(model, x, y, L2(), generator=generator).distance
    """

    name: ClassVar[str] = "ddn"
    kinds: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 100
    gamma: float = 0.05
    init_norm: float = 1.0

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        positive(self.name, init_norm=self.init_norm)
        if not 0 < self.gamma < 1:
            raise ValueError(f"gamma of ddn is a share of the radius; got {self.gamma}; give a number between 0 and 1")

    @property
    def label(self) -> str:
        return f"ddn-{self.steps}"

    def approach(self, track: Track) -> None:
        walk = track.walk()
        z, limit = walk.x, farthest(walk.region, walk.x)
        radius = torch.full_like(limit, self.init_norm)
        for step in range(self.steps):
            here, wrong, (z, radius, limit) = walk.evaluate(z, track.oracle.loss("ce"), z, radius, limit)
            if len(walk) == 0:
                return
            way = _somewhere(here.grad, walk.region.generator)
            d = unit(z - walk.x + cosine(1.0, 0.01, step / self.steps) * way)
            by = torch.where(wrong, 1 - self.gamma, 1 + self.gamma).to(radius)  # else of the default dtype
            radius = torch.minimum(by * radius, limit)
            z = (walk.x + over(radius, d) * d).clamp(0, 1)
        walk.last(z)


def _somewhere(grad: Images, generator: torch.Generator) -> Images:
    """The gradient's direction; a random one where there is no gradient."""
    none = l2(grad) == 0
    if none.any():
        grad = grad.clone()
        grad[none] = torch.randn(grad[none].shape, generator=generator, dtype=torch.float32).to(grad)
    return unit(grad)
