"""Dynamic Tanh: a bounded function in a norm's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..types import Site
from .bounded import Bounded


class DynamicTanh(Bounded):
    """y = weight * tanh(alpha x) + bias, for x of shape (b, c, ...), or (b, ..., c) with `axis` -1. Source: as `DyT`."""

    def squash(self, z: Tensor) -> Tensor:
        return z.tanh()

    def slope(self, z: Tensor) -> Tensor:
        return 1 - z.tanh().square()


@dataclass(frozen=True, kw_only=True)
class DyT:
    """Dynamic Tanh: no statistics, each value goes through a bounded function.

        y = weight * tanh(alpha x) + bias

    Options
        alpha   where the slope inside starts, one learned number per layer

    Source: Zhu et al. 2025, arXiv:2503.10622, eq. 5 (a layer converted to it has to be trained).
    """

    name: ClassVar[str] = "dyt"
    label: ClassVar[str] = "Dynamic Tanh"
    retrain: ClassVar[bool] = True

    alpha: float = 0.5

    def __call__(self, site: Site) -> nn.Module:
        return DynamicTanh(site.channels, self.alpha, axis=site.axis)
