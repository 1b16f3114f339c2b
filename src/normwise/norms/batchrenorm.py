"""Batch renormalization: training normalizes with what evaluation reads, up to bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..types import Site
from .layer import StatNorm
from .layout import along
from .moments import at_least_float32


class BatchRenorm(StatNorm):
    """BatchNorm whose training statistics are corrected towards the running ones: BatchNorm in evaluation.

    Shapes, buffers and keys: `StatNorm`. In training `torch.compile` leaves this part uncompiled (with fullgraph it
    refuses). Raises ValueError for bounds that cannot be. Source: as `BRN`.
    """

    fused = False

    def __init__(self, num_features: int, *, r_max: float = 3.0, d_max: float = 5.0, **options: Any) -> None:
        super().__init__(num_features, **options)
        if not (r_max >= 1 and d_max >= 0):
            raise ValueError(f"r_max is {r_max} and d_max {d_max}; give r_max >= 1 and d_max >= 0 (1 and 0: BatchNorm)")
        self.r_max, self.d_max = r_max, d_max

    def _normalize_batch(self, x: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        if self._unknown_spread or self._unknown_centre:  # nothing is known to correct towards
            return self._normalize(x, centre, spread)
        if (
            torch.compiler.is_compiling()
        ):  # torch 2.13 goes back through running statistics that have moved on: wrong gradients
            raise RuntimeError(
                "batch renormalization is not compiled in training; train it without torch.compile or fullgraph"
            )
        running = (self.get_buffer("running_var").to(spread) + self.eps).sqrt()
        r = ((spread.detach() + self.eps).sqrt() / running).clamp(1 / self.r_max, self.r_max)
        d = ((centre.detach() - self.get_buffer("running_mean").to(centre)) / running).clamp(-self.d_max, self.d_max)
        shift = d if self.weight is None else d * self.weight
        shift = shift if self.bias is None else shift + self.bias
        centred, scale = at_least_float32(x) - along(centre, x, 1), along(self._scale(spread) * r, x, 1)
        return torch.addcmul(along(shift, x, 1), centred, scale).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"


@dataclass(frozen=True, kw_only=True)
class BRN:
    """Batch renormalization: BatchNorm in evaluation; in training corrected towards the running statistics.

        training: y = weight * ((x - mean) / s * r + d) + bias,   s = sqrt(var + eps), S = sqrt(running var + eps)
        r = clip(s / S, 1 / r_max, r_max),   d = clip((mean - running mean) / S, -d_max, d_max), both without gradient

    Options
        r_max       bound of r, 1 or more
        d_max       bound of d, 0 or more; r_max 1 and d_max 0 are BatchNorm
        eps         added to variances
        momentum    weight of a new batch in the running statistics

    Source: Ioffe 2017, arXiv:1702.03275, algorithm 1. Differs: the bounds are the same from the first step on; the running
    variance is kept, as BatchNorm keeps it, not the deviation.
    """

    name: ClassVar[str] = "batchrenorm"
    label: ClassVar[str] = "batch renormalization"

    r_max: float = 3.0
    d_max: float = 5.0
    eps: float = 1e-5
    momentum: float = 0.1

    def __call__(self, site: Site) -> nn.Module:
        return BatchRenorm(
            site.channels, r_max=self.r_max, d_max=self.d_max, eps=self.eps, momentum=self.momentum, axis=site.axis
        )
