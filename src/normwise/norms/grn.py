"""Global response normalization, of ConvNeXt V2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layout import along
from .moments import at_least_float32
from .positions import PositionNorm


class GlobalResponseNorm(PositionNorm):
    """y = x + weight * x * n + bias, n each channel's norm over height and width by its mean over channels. Starts as y = x.

    Shapes: `PositionNorm`. Source: as `GRN`.
    """

    called = "grn"
    eps_inside = False  # eps is added to a mean of norms

    def __init__(self, channels: int, *, eps: float = 1e-6, axis: int = 1) -> None:
        super().__init__(channels, eps=eps, axis=axis)
        nn.init.zeros_(self.weight)

    def normalized(self, x: Tensor) -> Tensor:
        response = responses(at_least_float32(x))
        share = response / (response.mean(1, keepdim=True) + self.eps)
        return torch.addcmul(along(self.bias, x, 1), at_least_float32(x), 1 + along(self.weight, x, 1) * share)


def responses(x: Tensor) -> Tensor:
    """The norm of each channel over all its positions (b, c, 1, ...) of x (b, c, ...)."""
    return torch.linalg.vector_norm(x, dim=list(range(2, x.ndim)), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class GRN:
    """Global response normalization: channels compete by their norms; x itself is kept.

        y = x + weight * x * |x| / (mean over channels of |x| + eps) + bias,   |x| the norm over height and width

    weight and bias start at 0, so that the layer starts as the identity. For pictures and clips alone.

    Options
        eps     added to the mean norm

    Source: Woo et al. 2023, arXiv:2301.00808, sec. 3.2 and algorithm 1.
    """

    name: ClassVar[str] = "grn"
    label: ClassVar[str] = "global response normalization"
    retrain: ClassVar[bool] = True

    eps: float = 1e-6

    def __call__(self, site: Site) -> nn.Module:
        return GlobalResponseNorm(site.channels, eps=self.eps, axis=site.axis)
