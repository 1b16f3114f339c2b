"""Lp balls around an image, cut by the box of pixels [0, 1]."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from ..seeding import by_row
from ..types import Images, PerRow, Region, Rows
from ..utils import per_row as rows


@dataclass(frozen=True, kw_only=True)
class Linf:
    """Every pixel may move by at most eps.

    Options
        eps     radius in pixels of [0, 1], e.g. 8/255

    Raises ValueError unless 0 <= eps <= 1.
    Source: Goodfellow et al. 2015, arXiv:1412.6572.
    """

    name: ClassVar[str] = "linf"

    eps: float = field(default=8 / 255, kw_only=False)

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")

    def around(self, x: Images, *, generator: Generator) -> Region:
        return LinfRegion(x, self.eps, generator)


@dataclass(frozen=True, kw_only=True)
class L2:
    """The image may move by at most eps in Euclidean length.

    Options
        eps     radius in pixels of [0, 1], e.g. 0.5

    Raises ValueError unless eps is finite and >= 0 and, when a batch is seen, at most the diameter of its box.
    Source: Szegedy et al. 2014, arXiv:1312.6199.
    """

    name: ClassVar[str] = "l2"

    eps: float = field(default=0.5, kw_only=False)

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, math.inf, "")

    def around(self, x: Images, *, generator: Generator) -> Region:
        diameter = math.sqrt(x[0].numel()) if len(x) else math.inf
        check_eps(self.name, self.eps, diameter, f"that is the diameter of the box of images of shape {tuple(x.shape[1:])}")
        return L2Region(x, self.eps, generator)


def check_eps(threat: str, eps: float, largest: float, reason: str) -> None:
    """Refuse a radius that cannot be one. Raises ValueError."""
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(
            f"eps of {threat} is a radius in pixels of [0, 1]; got {eps}; give a finite number >= 0, e.g. 8/255"
        )
    if eps > largest:
        raise ValueError(f"eps of {threat} is a radius in pixels of [0, 1]; got {eps:g}; at most {largest:g}: {reason}")


class LpRegion(ABC):
    """What the balls share: a centre, a radius, a box."""

    kind: str

    def __init__(self, x: Tensor, eps: float, generator: Generator) -> None:
        self.x, self.radius, self.generator = x, eps, generator
        self.victims = torch.ones(len(x), dtype=torch.bool, device=x.device)

    def _noise(self, draw: Literal["uniform", "normal"]) -> Tensor:
        def noise(n: int) -> Tensor:
            made = torch.empty(n, *self.x.shape[1:], dtype=torch.float32)
            if draw == "uniform":
                return made.uniform_(-1, 1, generator=self.generator)
            return made.normal_(generator=self.generator)

        return by_row(noise, len(self.x)).to(self.x)

    def contains(self, x_adv: Images) -> Rows:
        inside = rows.flat((x_adv >= 0) & (x_adv <= 1)).all(1)
        rounding = 32 * torch.finfo(x_adv.dtype).eps * max(1.0, self.radius)
        return inside & (self.distance(x_adv) <= self.radius + rounding)

    @abstractmethod
    def distance(self, x_adv: Images) -> PerRow:
        """Return each row's distance from its clean image."""

    def select(self, rows: Tensor) -> Region:
        return type(self)(self.x[rows], self.radius, self.generator)  # type: ignore[return-value]


class LinfRegion(LpRegion):
    """|x_adv - x| <= eps in every pixel, and 0 <= x_adv <= 1."""

    kind = "linf"

    def __init__(self, x: Tensor, eps: float, generator: Generator) -> None:
        super().__init__(x, eps, generator)
        self.low, self.high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)

    def start(self) -> Images:
        return self.project(self.x + self.radius * self._noise("uniform"))

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        return x_adv + rows.step_of(size, x_adv) * grad.sign()

    def project(self, x_adv: Images) -> Images:
        return torch.clamp(x_adv, self.low, self.high)

    def distance(self, x_adv: Images) -> PerRow:
        return rows.linf(x_adv - self.x)


class L2Region(LpRegion):
    """|x_adv - x|_2 <= eps, and 0 <= x_adv <= 1."""

    kind = "l2"

    def start(self) -> Images:
        length = by_row(lambda n: torch.rand(n, generator=self.generator, dtype=torch.float32), len(self.x)).to(self.x)
        length = length ** (1 / self.x[0].numel())
        uniform = rows.over(self.radius * length, self.x) * rows.unit(self._noise("normal"))
        return self.project(self.x + uniform)

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        return x_adv + rows.step_of(size, x_adv) * rows.unit(grad)

    def project(self, x_adv: Images) -> Images:
        """Return the nearest point of ball and box together.

        By the Karush-Kuhn-Tucker conditions it is clip(x + t (x_adv - x)) for the largest t <= 1 whose distance is eps.
        The squared distance is sum_i min(t |d_i|, room_i)^2: with the clipped pixels known, t follows in closed form;
        starting below the answer, t only grows and pixels only become clipped, so that few rounds reach it exactly.
        """
        d = rows.flat(x_adv - self.x)
        room = torch.where(d > 0, 1 - rows.flat(self.x), rows.flat(self.x))
        size = d.abs()
        t = torch.clamp(self.radius / rows.l2(d).clamp_min(torch.finfo(d.dtype).tiny), max=1)
        for _ in range(d.shape[1]):
            clipped = t[:, None] * size >= room
            left = self.radius**2 - torch.where(clipped, room, 0).square().sum(1)
            free = torch.where(clipped, 0, size).square().sum(1)
            larger = torch.where(free > 0, (left.clamp_min(0) / free).sqrt(), torch.inf).clamp(max=1)
            if not (larger > t * (1 + 1e-6)).any():
                break
            t = torch.maximum(t, larger)
        return (rows.flat(self.x) + t[:, None] * d).clamp(0, 1).reshape(self.x.shape)

    def distance(self, x_adv: Images) -> PerRow:
        return rows.l2(x_adv - self.x)
