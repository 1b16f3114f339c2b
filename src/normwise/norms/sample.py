"""Norms with the statistics of one image: group, layer, instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..types import Site


@dataclass(frozen=True, kw_only=True)
class GN:
    """GroupNorm: mean and variance of each sample over a group of channels.

    Options
        groups  number of groups; the channels of every norm layer must be a multiple of it
        eps     added to the variance

    Source: Wu and He 2018, arXiv:1803.08494.
    """

    name: ClassVar[str] = "gn"
    label: ClassVar[str] = "GroupNorm"

    groups: int = 8
    eps: float = 1e-5

    def __call__(self, site: Site) -> nn.Module:
        if self.groups < 1 or site.channels % self.groups:
            raise ValueError(
                f"gn with groups={self.groups} cannot divide a site of {site.channels} channels; "
                "give a number of groups that divides every site's channels"
            )
        return nn.GroupNorm(self.groups, site.channels, self.eps)


@dataclass(frozen=True, kw_only=True)
class LN(GN):
    """LayerNorm over channels and positions of each sample: GroupNorm of one group.

    Source: Ba et al. 2016, arXiv:1607.06450.
    """

    name: ClassVar[str] = "ln"
    label: ClassVar[str] = "LayerNorm"

    groups: int = 1


class InstanceNorm(nn.GroupNorm):
    """Mean and variance of each channel of each sample, for x of shape (b, c, ...) with at least two positions.

    Raises ValueError where a channel has one value: it would give its bias whatever the input.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input[0, 0].numel() < 2:
            raise ValueError(
                f"instance norm reads the positions of each channel; got shape {tuple(input.shape)}, one value per channel; "
                "use ln or bn there"
            )
        return super().forward(input)


@dataclass(frozen=True, kw_only=True)
class IN:
    """InstanceNorm: mean and variance of each channel of each sample; statistics are not tracked.

    Options
        eps     added to the variance

    Source: Ulyanov et al. 2016, arXiv:1607.08022.
    """

    name: ClassVar[str] = "in"
    label: ClassVar[str] = "InstanceNorm"

    eps: float = 1e-5

    def __call__(self, site: Site) -> nn.Module:
        return InstanceNorm(site.channels, site.channels, self.eps)
