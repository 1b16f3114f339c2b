"""BatchNorm and its relatives: centre and spread, from running statistics, from the batch, or between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..types import Site
from .layer import StatNorm


@dataclass(frozen=True, kw_only=True)
class BN:
    """BatchNorm; with shares above 0 it uses batch statistics in evaluation too (both at s: alpha-BN).

        y = weight * (x - mean) / sqrt(var + eps) + bias

    Options
        centre_share    share of the batch mean in evaluation, 0 to 1; the rest is the running mean
        spread_share    share of the batch variance in evaluation, 0 to 1; the rest is the running variance
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
            axis=site.axis,
        )


@dataclass(frozen=True, kw_only=True)
class BNwoT(BN):
    """BatchNorm without tracking: batch statistics in evaluation too (prediction-time BatchNorm).

    Source: Nado et al. 2020, arXiv:2006.10963; the name is of Awais et al. 2020, arXiv:2006.11007.
    """

    name: ClassVar[str] = "bnwot"
    label: ClassVar[str] = "BatchNorm reading the batch"

    centre_share: float = 1.0
    spread_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BNM(BN):
    """BatchNorm with the running mean and the batch variance in evaluation.

    Source: the authors' code of Awais et al. 2020, arXiv:2006.11007.
    """

    name: ClassVar[str] = "bnm"
    label: ClassVar[str] = "BatchNorm, running mean, batch variance"

    spread_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AlphaBN(BN):
    """BatchNorm that mixes running and batch statistics in evaluation, in equal shares by default.

    Source: You et al. 2021, arXiv:2110.04065 (their alpha is the share of the running statistics); Schneider et al. 2020,
    arXiv:2006.16971, mix likewise, with the share n / (N + n) for n images and a prior worth N.
    """

    name: ClassVar[str] = "alphabn"
    label: ClassVar[str] = "alpha-BatchNorm"

    centre_share: float = 0.5
    spread_share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class PowerBN(BN):
    """Divide by a power of the standard deviation: between BatchNorm (power 1) and mean-only (power 0).

        y = weight * (x - mean) / (var + eps) ** (power / 2) + bias

    Options: those of `bn`, and
        power   exponent of the standard deviation

    Source: a control for RobustNorm, whose range to the 0.2 leaves activations nearly un-normalized.
    """

    name: ClassVar[str] = "powerbn"
    label: ClassVar[str] = "deviation to a power"

    power: float = 0.2
    measure: ClassVar[str] = "moments"

    def __call__(self, site: Site) -> nn.Module:
        return StatNorm(
            site.channels,
            measure=self.measure,
            power=self.power / 2,
            centre_share=self.centre_share,
            spread_share=self.spread_share,
            eps=self.eps,
            momentum=self.momentum,
            axis=site.axis,
        )


@dataclass(frozen=True, kw_only=True)
class MeanOnly(PowerBN):
    """Centre only: y = weight * (x - mean) + bias.

    Options: those of `powerbn`, with power 0.

    Source: Salimans and Kingma 2016, arXiv:1602.07868, sec. 4 (mean-only batch normalization, there with weight norm).
    """

    name: ClassVar[str] = "meanonly"
    label: ClassVar[str] = "mean-only"

    power: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MedianNorm(PowerBN):
    """Median and median absolute deviation in place of mean and standard deviation.

        y = weight * (x - median) / sqrt((1.4826 MAD)^2 + eps) + bias

    Options: those of `powerbn`, with power 1.

    Source: the defence of Wu et al. 2023, arXiv:2301.12576, against malicious rows in a batch. Differs: its statistics may
    be tracked.
    """

    name: ClassVar[str] = "median"
    label: ClassVar[str] = "median and MAD"

    power: float = 1.0
    measure: ClassVar[str] = "median"
