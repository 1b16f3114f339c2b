"""LayerNorm as transformers and ConvNeXt have it: over the channels of each position alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from ..types import Site


class LayerNorm2d(nn.LayerNorm):
    """nn.LayerNorm over the channels of each position of x (b, c, ...), c being `normalized_shape`."""

    axis = 1

    def forward(self, input: Tensor) -> Tensor:
        last = input.movedim(1, -1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).movedim(-1, 1)


@dataclass(frozen=True, kw_only=True)
class LN2D:
    """LayerNorm over the channels of each position, as in transformers and ConvNeXt (`ln` takes positions together).

        y = weight * (x - mean over channels) / sqrt(variance over channels + eps) + bias

    Options
        eps     added to the variance

    Source: Ba et al. 2016, arXiv:1607.06450; per position: Liu et al. 2022, arXiv:2201.03545, sec. 2.6.
    """

    name: ClassVar[str] = "layernorm2d"
    label: ClassVar[str] = "LayerNorm over channels"

    eps: float = 1e-6

    def __call__(self, site: Site) -> nn.Module:
        return (LayerNorm2d if site.axis == 1 else nn.LayerNorm)(site.channels, self.eps)
