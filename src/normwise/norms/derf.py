"""Derf: the error function in a norm's place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .bounded import Bounded


class DynamicErf(Bounded):
    """y = weight * erf(alpha x + shift) + bias, for x of shape (b, c, ...), or (b, ..., c) with `axis` -1. Source: as `Derf`."""

    def __init__(self, channels: int, alpha: float = 0.5, shift: float = 0.0, *, axis: int = 1) -> None:
        super().__init__(channels, alpha, axis=axis)
        self.shift = nn.Parameter(torch.full((1,), shift))

    def inner(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.alpha)

    def squash(self, z: Tensor) -> Tensor:
        return z.erf()

    def slope(self, z: Tensor) -> Tensor:
        return (-z.square()).exp()


@dataclass(frozen=True, kw_only=True)
class Derf:
    """Dynamic erf: no statistics, each value goes through the error function.

        y = weight * erf(alpha x + shift) + bias

    Options
        alpha   where the slope inside starts, one learned number per layer
        shift   where the shift inside starts, one learned number per layer

    Source: Chen et al. 2025, arXiv:2512.10938, eq. 10.
    """

    name: ClassVar[str] = "derf"
    label: ClassVar[str] = "Dynamic erf"
    retrain: ClassVar[bool] = True

    alpha: float = 0.5
    shift: float = 0.0

    def __call__(self, site: Site) -> nn.Module:
        return DynamicErf(site.channels, self.alpha, self.shift, axis=site.axis)
