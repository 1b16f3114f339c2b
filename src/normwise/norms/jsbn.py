"""BatchNorm with James-Stein estimates of mean and variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..types import Site
from .batch import BN
from .layer import StatNorm


@dataclass(frozen=True, kw_only=True)
class JSBN(BN):
    """BatchNorm whose batch means and variances are shrunk towards 0, over channels together.

        y = weight * (x - J(mean)) / sqrt(J(var) + eps) + bias
        J(t) = (1 - (c - 2) / (c + 1) * sum_k (t_k - mean of t)^2 / sum_k t_k^2) t,   t one number per channel, c channels

    Up to two channels nothing is shrunk. Running statistics are averages of the shrunk ones, in buffers of their own names.

    Options: those of `bn`.

    Source: Khoshsirat and Kambhamettu 2023, arXiv:2312.00313 (mean and variance), with the factor of James and Stein 1961
    for an unknown variance. Ivolgina et al. 2025, arXiv:2507.08261, claim gains under FGSM and PGD; their variance estimator
    was not at hand.
    """

    name: ClassVar[str] = "jsbn"
    label: ClassVar[str] = "James-Stein BatchNorm"

    def __call__(self, site: Site) -> nn.Module:
        return StatNorm(
            site.channels,
            measure="james-stein",
            centre_share=self.centre_share,
            spread_share=self.spread_share,
            eps=self.eps,
            momentum=self.momentum,
            axis=site.axis,
        )
