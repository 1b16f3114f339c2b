"""RobustNorm: divide by the activations' range to a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from ..types import Site
from .layer import StatNorm


@dataclass(frozen=True, kw_only=True)
class RNT:
    """RobustNorm, tracked: running mean and running range in evaluation.

        y = weight * (x - mean) / ((max - min) ** power + eps) + bias

    Options
        power           exponent of the range; the paper's 0.2 leaves the layer nearly un-normalized
        centre_share    share of the mean read from the batch in evaluation, 0 to 1
        spread_share    share of the range read from the batch in evaluation, 0 to 1
        eps             added to the power of the range
        momentum        weight of a new batch in the running statistics

    Source: Awais et al. 2020, arXiv:2006.11007, and the authors' code. Differs: the range has its own buffer,
    `running_range` (theirs is called `running_var`), and buffers change in place.
    """

    name: ClassVar[str] = "rnt"
    label: ClassVar[str] = "RobustNorm, tracked"

    power: float = 0.2
    centre_share: float = 0.0
    spread_share: float = 0.0
    eps: float = 1e-5
    momentum: float = 0.1

    def __call__(self, site: Site) -> nn.Module:
        return StatNorm(
            site.channels,
            measure="range",
            power=self.power,
            eps_inside=False,
            centre_share=self.centre_share,
            spread_share=self.spread_share,
            eps=self.eps,
            momentum=self.momentum,
        )


@dataclass(frozen=True, kw_only=True)
class RN(RNT):
    """RobustNorm that reads the batch alone in evaluation. Source: as `rnt`."""

    name: ClassVar[str] = "rn"
    label: ClassVar[str] = "RobustNorm reading the batch"

    centre_share: float = 1.0
    spread_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RNM(RNT):
    """RobustNorm with the running mean and the batch's range in evaluation. Source: as `rnt`."""

    name: ClassVar[str] = "rnm"
    label: ClassVar[str] = "RobustNorm, running mean, batch range"

    spread_share: float = 1.0
