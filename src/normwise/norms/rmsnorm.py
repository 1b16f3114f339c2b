"""RMSNorm: divide by the root mean square over channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layout import along
from .moments import at_least_float32


class RMSNorm2d(nn.RMSNorm):
    """nn.RMSNorm over the channels of each position of x (b, c, ...), c being `normalized_shape`."""

    axis = 1

    def forward(self, x: Tensor) -> Tensor:
        scale = mean_square(at_least_float32(x)).add(self.eps or torch.finfo(x.dtype).eps).rsqrt()
        y = at_least_float32(x) * scale
        return (y if self.weight is None else y * along(self.weight, x, 1)).to(x.dtype)


def mean_square(x: Tensor) -> Tensor:
    """The mean square over channels (b, 1, ...) of x (b, c, ...)."""
    return x.square().mean(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class RMS:
    """RMSNorm: each position is divided by its root mean square over channels; no mean is subtracted, and there is no shift.

        y = weight * x / sqrt(mean over channels of x^2 + eps)

    Options
        eps     added to the mean square

    Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. Differs: eps.
    """

    name: ClassVar[str] = "rmsnorm"
    label: ClassVar[str] = "RMSNorm"

    eps: float = 1e-6

    def __call__(self, site: Site) -> nn.Module:
        return (RMSNorm2d if site.axis == 1 else nn.RMSNorm)(site.channels, self.eps)
