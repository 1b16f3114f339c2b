"""Norms that read one sample: group, layer, instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..types import Site


@dataclass(frozen=True, kw_only=True)
class GN:
    """GroupNorm: mean and variance of each sample over a group of channels.

    Options
        groups  number of groups; the channels of every site must be a multiple of it
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
