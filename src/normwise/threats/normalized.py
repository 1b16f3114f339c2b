"""The units of older code: eps after normalization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ..types import Images, PerRow, Region
from ..utils import per_row as rows
from .lp import LinfRegion, check_eps


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """Every normalized pixel (pixel - mean) / std may move by at most eps.

    In pixels that is eps * std: with the authors' std of about 0.2 a radius of 0.03 is 1.5/255, not 8/255. For comparison
    with figures that were published in these units, and for nothing else.

    Options
        eps     radius in normalized units
        mean    per channel, or one number for all; it says which normalization this is, and limits nothing
        std     per channel, or one number for all

    Raises ValueError for an eps that is no radius, a std not above 0, and numbers of channels that do not fit.
    Source: the authors' code of Awais et al. 2020, arXiv:2006.11007. Differs: images stay within [0, 1], where
    that code clips them to what the batch happens to span.
    """

    name: ClassVar[str] = "normalized"

    eps: float = 0.03
    mean: tuple[float, ...] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, ...] = (0.2023, 0.1994, 0.2010)

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, math.inf, "")
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"normalized needs one mean and one std > 0 per channel; got {self.mean} and {self.std}")

    def around(self, x: Images, *, generator: Generator) -> Region:
        if len(self.std) not in (1, x.shape[1]):
            raise ValueError(
                f"normalized has std for {len(self.std)} channels; images have {x.shape[1]}; give so many, or one"
            )
        shape = [1, -1] + [1] * (x.ndim - 2)
        return NormalizedRegion(x, self.eps, generator, torch.tensor(self.std).to(x).view(shape))


class NormalizedRegion(LinfRegion):
    """|x_adv - x| <= eps std in every pixel, and 0 <= x_adv <= 1."""

    kind = "normalized"

    def __init__(self, x: Tensor, eps: float, generator: Generator, std: Tensor) -> None:
        super().__init__(x, eps, generator)
        self.std = std
        self.low, self.high = (x - eps * std).clamp_(min=0), (x + eps * std).clamp_(max=1)

    def start(self) -> Images:
        return self.project(self.x + self.radius * self.std * self._noise("uniform"))

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        return x_adv + (super().ascend(x_adv, grad, size) - x_adv) * self.std

    def distance(self, x_adv: Images) -> PerRow:
        return rows.linf((x_adv - self.x) / self.std)

    def select(self, rows: Tensor) -> Region:
        return NormalizedRegion(self.x[rows], self.radius, self.generator, self.std)
