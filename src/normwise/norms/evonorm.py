"""EvoNorm-S0: a norm and an activation found together by search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layout import along
from .moments import at_least_float32, row_moments
from .positions import PositionNorm
from .sample import check_groups


class EvoNorm(PositionNorm):
    """weight * x * sigmoid(v x) / deviation of its group + bias. Shapes: `PositionNorm`. Source: as `EvoNormS0`."""

    called = "evonorm-s0"

    def __init__(self, channels: int, groups: int = 8, *, eps: float = 1e-5, axis: int = 1) -> None:
        super().__init__(channels, eps=eps, axis=axis)
        self.groups = groups
        self.v = nn.Parameter(torch.ones(channels))

    def normalized(self, x: Tensor) -> Tensor:
        root = (group_variance(at_least_float32(x), self.groups) + self.eps).rsqrt()  # (b, groups)
        scale = root.repeat_interleave(len(self.weight) // self.groups, 1) * self.weight
        active = at_least_float32(x) * torch.sigmoid(along(self.v, x, 1) * at_least_float32(x))
        return torch.addcmul(along(self.bias, x, 1), active, scale.view(*scale.shape, *[1] * (x.ndim - 2)))


def group_variance(x: Tensor, groups: int) -> Tensor:
    """The biased variance (b, groups) of groups of channels, over all their positions, of x (b, c, ...)."""
    return row_moments(x.reshape(len(x), groups, -1))[1]


@dataclass(frozen=True, kw_only=True)
class EvoNormS0:
    """EvoNorm-S0: a sigmoid-weighted activation divided by the deviation of its group of channels.

        y = weight * x * sigmoid(v x) / sqrt(variance of the group + eps) + bias

    v starts at 1; an activation that the network has behind the norm stays. For pictures and clips alone.

    Options
        groups  number of groups; the channels of every norm layer must be a multiple of it
        eps     added to the variance

    Source: Liu et al. 2020, arXiv:2004.02967, table 3 (S0). Differs: 8 groups by default.
    """

    name: ClassVar[str] = "evonorm-s0"
    label: ClassVar[str] = "EvoNorm-S0"
    retrain: ClassVar[bool] = True

    groups: int = 8
    eps: float = 1e-5

    def __call__(self, site: Site) -> nn.Module:
        check_groups(self.name, self.groups, site.channels)
        return EvoNorm(site.channels, self.groups, eps=self.eps, axis=site.axis)
