"""RobustNorm: divide by the activations' range to a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..types import Site
from .layer import StatNorm


@dataclass(frozen=True, kw_only=True)
class RNT:
    """RobustNorm, tracked: running mean and running range in evaluation.

        y = weight * (x - mean) / ((max - min) ** power + eps) + bias

    Options
        power           exponent of the range; the paper's 0.2 leaves the layer nearly un-normalized
        centre_share    share of the batch mean in evaluation, 0 to 1; the rest is the running mean
        spread_share    share of the batch range in evaluation, 0 to 1; the rest is the running range
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
            axis=site.axis,
        )


@dataclass(frozen=True, kw_only=True)
class RN(RNT):
    """RobustNorm with batch statistics in evaluation. Source: as `rnt`."""

    name: ClassVar[str] = "rn"
    label: ClassVar[str] = "RobustNorm reading the batch"

    centre_share: float = 1.0
    spread_share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RNM(RNT):
    """RobustNorm with the running mean and the batch range in evaluation. Source: as `rnt`."""

    name: ClassVar[str] = "rnm"
    label: ClassVar[str] = "RobustNorm, running mean, batch range"

    spread_share: float = 1.0


class _RobustNorm(StatNorm):
    """RobustNorm with `power` and then nn.BatchNorm's arguments, in their order."""

    RANKS: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        power: float = 0.2,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
        centre_share: float = 0.0,
        spread_share: float = 0.0,
        legacy: bool = False,
    ) -> None:
        super().__init__(
            num_features,
            measure="range",
            power=power,
            eps_inside=False,
            centre_share=centre_share if track_running_stats else 1.0,
            spread_share=spread_share if track_running_stats else 1.0,
            eps=eps,
            momentum=momentum,
            affine=affine,
            legacy=legacy,
        )
        if not bias:
            self.bias = None
        self.to(device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.RANKS:
            raise ValueError(
                f"{type(self).__name__} reads inputs of {' or '.join(map(str, self.RANKS))} dimensions; got {tuple(input.shape)}"
            )
        return super().forward(input)


class RobustNorm1d(_RobustNorm):
    """RobustNorm for x of shape (b, c) or (b, c, l), in place of nn.BatchNorm1d.

        y = weight * (x - mean) / ((max - min) ** power + eps) + bias

    Running mean (from 0) and running range (from 1) are read in evaluation, the batch's where a share says so, or with
    `track_running_stats=False` (they are kept all the same). After `power` come nn.BatchNorm1d's arguments, in its order,
    and by name the options of `StatNorm`; eps is added to the power of the range. Source: Awais et al. 2020,
    arXiv:2006.11007, and the authors' code.
    """

    RANKS = (2, 3)


class RobustNorm2d(_RobustNorm):
    """RobustNorm for x of shape (b, c, h, w), in place of nn.BatchNorm2d. Formula, options and source: `RobustNorm1d`."""

    RANKS = (4,)


class RobustNorm3d(_RobustNorm):
    """RobustNorm for x of shape (b, c, t, h, w), in place of nn.BatchNorm3d. Formula, options and source: `RobustNorm1d`."""

    RANKS = (5,)
