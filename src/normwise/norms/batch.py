"""BatchNorm and its relatives: mean and variance, from running statistics, from the batch, or between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..types import Site
from .layer import StatNorm


@dataclass(frozen=True, kw_only=True)
class BN:
    """BatchNorm; with shares above 0 it reads the batch at inference (both at s: alpha-BN).

        y = weight * (x - mean) / sqrt(var + eps) + bias

    Options
        centre_share    share of the mean read from the batch in evaluation, 0 to 1
        spread_share    share of the variance read from the batch in evaluation, 0 to 1
        eps             added to the variance
        momentum        weight of a new batch in the running statistics

    Source: Ioffe and Szegedy 2015, arXiv:1502.03167; shares: You et al. 2021, arXiv:2110.04065 (alpha-BN).
    """

    name: ClassVar[str] = "bn"
    label: ClassVar[str] = "BatchNorm"

    centre_share: float = 0.0
    spread_share: float = 0.0
    eps: float = 1e-5
    momentum: float = 0.1

    def __call__(self, site: Site) -> nn.Module:
        return StatNorm(
            site.channels,
            centre_share=self.centre_share,
            spread_share=self.spread_share,
            eps=self.eps,
            momentum=self.momentum,
        )


@dataclass(frozen=True, kw_only=True)
class BNwoT(BN):
    """BatchNorm without tracking: in evaluation too it reads the batch alone (prediction-time BatchNorm).

    Source: Nado et al. 2020, arXiv:2006.10963; the name is of Awais et al. 2020, arXiv:2006.11007.
    """

    name: ClassVar[str] = "bnwot"
    label: ClassVar[str] = "BatchNorm reading the batch"

    centre_share: float = 1.0
    spread_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BNM(BN):
    """BatchNorm with the running mean and the batch's variance in evaluation.

    Source: the authors' code of Awais et al. 2020, arXiv:2006.11007.
    """

    name: ClassVar[str] = "bnm"
    label: ClassVar[str] = "BatchNorm, running mean, batch variance"

    spread_share: float = 1.0
