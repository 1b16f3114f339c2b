"""No normalization: a norm layer without its statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site


class ChannelAffine(nn.Module):
    """y = weight * x + bias per channel, for x of shape (b, c, ...): a norm layer that reads no statistic."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, input: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (input.ndim - 2)
        return torch.addcmul(self.bias.view(shape), input, self.weight.view(shape)).to(input.dtype)


@dataclass(frozen=True, kw_only=True)
class NoNorm:
    """No normalization: only the learned scale and shift of a norm layer.

    Source: the "NoBN" control of Awais et al. 2020, arXiv:2006.11007. Differs: scale and shift are used.
    """

    name: ClassVar[str] = "none"
    label: ClassVar[str] = "no norm"

    def __call__(self, site: Site) -> nn.Module:
        return ChannelAffine(site.channels)
