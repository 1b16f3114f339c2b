"""No normalization: a norm layer without its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layout import along


class ChannelAffine(nn.Module):
    """y = weight * x + bias per channel, for x of shape (b, c, ...), or with `axis` -1 (b, ..., c): it reads no statistic."""

    def __init__(self, channels: int, *, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        return self.affine(input).to(input.dtype)

    def affine(self, x: Tensor) -> Tensor:
        """weight * x + bias, in the wider of their precisions."""
        return torch.addcmul(along(self.bias, x, self.axis), x, along(self.weight, x, self.axis))


@dataclass(frozen=True, kw_only=True)
class NoNorm:
    """No normalization: only the learned scale and shift of a norm layer.

    Source: the "NoBN" control of Awais et al. 2020, arXiv:2006.11007. Differs: scale and shift are used.
    """

    name: ClassVar[str] = "none"
    label: ClassVar[str] = "no norm"

    def __call__(self, site: Site) -> nn.Module:
        return ChannelAffine(site.channels, axis=site.axis)
