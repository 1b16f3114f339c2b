"""Multiplicative changes: every pixel may become brighter or darker by a factor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from ..registry import check_words
from ..types import Images, PerRow, Region
from ..utils import per_row as rows
from .lp import LpRegion, check_eps
from .masked import check_sizes, in_a_frame, in_a_patch


@dataclass(frozen=True, kw_only=True)
class MultAV:
    """Pixels may be multiplied: max(x'/x, x/x') <= 1 + eps, within [0, 1]. A pixel of 0 stays 0.

    Options
        eps     how far the ratio may lie above 1: 0.04 is the source's eps_m of 1.04
        norm    "linf": the bound holds for each pixel; "l2": for exp of the Euclidean length of the image's log ratios
        within  "all" pixels, a "patch" anywhere, or a "frame"
        size    side of the patch, or width of the frame, in pixels

    A step of length s multiplies: x <- x * (1 + s)^sign(gradient), in l2 by (1 + s)^u, u the unit vector along gradient * x.
    Raises ValueError unless eps is finite and >= 0 and size >= 1, for other words, and for a size that nothing uses.
    Source: Lo and Patel 2021, arXiv:2009.08058. Differs: l2 lengths are those of log ratios, in which steps are additive.
    """

    name: ClassVar[str] = "multav"

    eps: float = 0.04
    norm: Literal["linf", "l2"] = "linf"
    within: Literal["all", "patch", "frame"] = "all"
    size: int = 5

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, math.inf, "")
        check_sizes(self.name, size=self.size)
        check_words(self)
        if self.within == "all" and self.size != MultAV.size:
            raise ValueError(f"size of multav is {self.size}, and nothing uses it; say within='patch' or 'frame'")

    def around(self, x: Images, *, generator: Generator) -> Region:
        inner = (RatioRegion if self.norm == "linf" else L2RatioRegion)(x, self.eps, generator)
        if self.within == "patch":
            return in_a_patch(inner, x, self.size, generator)
        return in_a_frame(inner, x, self.size) if self.within == "frame" else inner


class RatioRegion(LpRegion):
    """max(x'/x, x/x') <= 1 + eps in every pixel, and 0 <= x' <= 1."""

    kind = MultAV.name

    def __init__(self, x: Tensor, eps: float, generator: Generator) -> None:
        super().__init__(x, eps, generator)
        self.low, self.high = x / (1 + eps), (x * (1 + eps)).clamp(max=1)

    def start(self) -> Images:
        return self.project(self.x * (1 + self.radius) ** self._noise("uniform"))

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        return x_adv * (1 + rows.step_of(size, x_adv)) ** self._direction(x_adv, grad)

    def project(self, x_adv: Images) -> Images:
        return torch.clamp(x_adv, self.low, self.high)

    def distance(self, x_adv: Images) -> PerRow:
        """How far the largest ratio lies above 1; infinite where a pixel became, or was, 0."""
        return rows.linf(self._logs(x_adv)).expm1()

    def _direction(self, x_adv: Images, grad: Images) -> Tensor:
        return grad.sign()

    def _logs(self, x_adv: Images) -> Tensor:
        return torch.where(x_adv == self.x, 0, (x_adv.clamp_min(0) / self.x).log())


class L2RatioRegion(RatioRegion):
    """The Euclidean length of log(x'/x) is at most log(1 + eps), and 0 <= x' <= 1."""

    def project(self, x_adv: Images) -> Images:
        near = super().project(x_adv)
        logs = self._logs(near)
        length, most = rows.l2(logs), math.log1p(self.radius)
        scaled = self.x * (logs * rows.over(most / length.clamp_min(torch.finfo(logs.dtype).tiny), logs)).exp()
        return torch.where(rows.over(length <= most * (1 + 1e-6), near), near, scaled)

    def distance(self, x_adv: Images) -> PerRow:
        return rows.l2(self._logs(x_adv)).expm1()

    def _direction(self, x_adv: Images, grad: Images) -> Tensor:
        return rows.unit(grad * x_adv)
