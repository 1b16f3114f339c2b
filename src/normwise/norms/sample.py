"""Norms with the statistics of one image: group, layer, instance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..types import Site
from .layout import channels_second


def check_groups(norm: str, groups: int, channels: int) -> None:
    """Refuse groups that do not divide the channels. Raises ValueError."""
    if groups < 1 or channels % groups:
        raise ValueError(
            f"{norm} with groups={groups} cannot divide a site of {channels} channels; "
            f"give a number of groups that divides every site's channels, such as {(fit := math.gcd(max(groups, 1), channels))} (groups={fit} in Python, --norm.groups {fit})"
        )


class TokenGroupNorm(nn.GroupNorm):
    """nn.GroupNorm for tokens (b, n, c): mean and variance of each sample over a group of channels and all tokens."""

    axis = -1

    @channels_second
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input)


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
        check_groups(self.name, self.groups, site.channels)
        return (nn.GroupNorm if site.axis == 1 else TokenGroupNorm)(self.groups, site.channels, self.eps)


@dataclass(frozen=True, kw_only=True)
class LN(GN):
    """LayerNorm over channels and positions of each sample: GroupNorm of one group.

    Source: Ba et al. 2016, arXiv:1607.06450. Transformers and ConvNeXt take each position alone: that is `layernorm2d`.
    """

    name: ClassVar[str] = "ln"
    label: ClassVar[str] = "LayerNorm"

    groups: int = 1


class InstanceNorm(nn.GroupNorm):
    """Mean and variance of each channel of each sample, for x of shape (b, c, ...) with at least two positions.

    With `axis` -1 for tokens (b, n, c). Raises ValueError where a channel has one value: it would give its bias whatever the
    input.
    """

    def __init__(self, channels: int, eps: float = 1e-5, *, axis: int = 1) -> None:
        super().__init__(channels, channels, eps)
        self.axis = axis

    @channels_second
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
        return InstanceNorm(site.channels, self.eps, axis=site.axis)
