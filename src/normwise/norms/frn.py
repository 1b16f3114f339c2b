"""Filter response normalization, with its thresholded linear unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layout import along
from .moments import at_least_float32
from .positions import PositionNorm


class FilterResponseNorm(PositionNorm):
    """max(weight * x / sqrt(mean square over positions + eps) + bias, threshold). Shapes: `PositionNorm`. Source: as `FRN`."""

    called = "frn"

    def __init__(self, channels: int, *, eps: float = 1e-6, axis: int = 1) -> None:
        super().__init__(channels, eps=eps, axis=axis)
        self.threshold = nn.Parameter(torch.zeros(channels))

    def normalized(self, x: Tensor) -> Tensor:
        y = at_least_float32(x) * (mean_square(at_least_float32(x)) + self.eps).rsqrt()
        y = torch.addcmul(along(self.bias, x, 1), y, along(self.weight, x, 1))
        return torch.maximum(y, along(self.threshold, x, 1))


def mean_square(x: Tensor) -> Tensor:
    """The mean square of each channel over all its positions (b, c, 1, ...) of x (b, c, ...)."""
    return x.square().mean(list(range(2, x.ndim)), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class FRN:
    """Filter response normalization: each channel of each sample by its root mean square, then a learned threshold.

        y = max(weight * x / sqrt(mean over positions of x^2 + eps) + bias, threshold)

    The threshold starts at 0, in place of a ReLU. A ReLU that the network has behind the norm stays, and then the threshold
    has no gradient: it remains 0. For pictures and clips alone.

    Options
        eps     added to the mean square

    Source: Singh and Krishnan 2020, arXiv:1911.09737, eq. 1 to 3. Differs: eps is not learned.
    """

    name: ClassVar[str] = "frn"
    label: ClassVar[str] = "filter response normalization"
    retrain: ClassVar[bool] = True

    eps: float = 1e-6

    def __call__(self, site: Site) -> nn.Module:
        return FilterResponseNorm(site.channels, eps=self.eps, axis=site.axis)
