"""StatNorm: one normalization layer; two numbers say how much it uses batch statistics in evaluation."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import unknown
from .layout import along, positions_as_rows
from .moments import MEASURES, Read, at_least_float32


class StatNorm(nn.Module):
    """Normalize each channel by a centre and a spread, and apply a learned scale and shift.

        y = weight * (x - centre) / divisor + bias
        divisor = (spread + eps) ** power   if eps_inside else   spread ** power + eps

    In training both statistics are the batch's, and the running ones follow them. In evaluation

        centre = lerp(running, batch, centre_share);   spread = lerp(running, batch, spread_share)

    so that shares 0, 0 are BatchNorm, 1, 1 read the batch alone, and 0, 1 keep the running mean (BNM, RNM).

    Reads x of shape (b, c, ...) of any rank >= 2. A channel without spread gives `bias`, and no gradient through its spread
    (by BatchNorm's formula, which torch computes, `bias` up to rounding: of the channel's value, times 1 / sqrt(eps)).
    State-dict keys are BatchNorm's; other measures live in buffers of their own names (`running_range`; `running_median`,
    `running_deviation`). BatchNorm's keys load into a layer that measures something else: what it cannot use is dropped
    and the layer then refuses tracked evaluation until it has been trained or recalibrated. What a state dict does not
    hold stays as it is. `legacy=True` reads `running_var` as the range, as the authors stored it.

    Options
        measure         "moments" (mean, variance), "range" (mean, max - min), "median" (median, (1.4826 MAD)^2) or
                        "james-stein" (mean and variance, shrunk over channels)
        power           exponent of the spread in the divisor
        eps_inside      add eps before the power (BatchNorm) or after (RobustNorm)
        centre_share    share of the centre read from the batch in evaluation, 0 to 1
        spread_share    share of the spread read from the batch in evaluation, 0 to 1
        momentum        weight of a new batch in the running statistics; None: their plain average
        axis            where channels are: 1, or -1 for tokens (b, n, c)

    Raises ValueError for an option out of range, and in training for a single value per channel.
    Source: Ioffe and Szegedy 2015, arXiv:1502.03167, alg. 1 and 2; Awais et al. 2020, arXiv:2006.11007, sec. 3 and the
    authors' code (the power, eps outside it, the two switches). Differs: shares between 0 and 1; buffers change in place.
    """

    pass_state: ClassVar[tuple[str, ...]] = (
        "_unknown_spread",
        "_unknown_centre",
    )  # what a pass in training changes beside buffers
    fused: ClassVar[bool] = True  # whether training is torch's own BatchNorm, where the formula is
    weight: Tensor | None
    bias: Tensor | None
    num_batches_tracked: Tensor
    needs_recalibration: Tensor
    synchronized: bool = False  # statistics are those of the batches of all processes, see `convert_sync`

    def __init__(
        self,
        num_features: int,
        *,
        measure: str = "moments",
        power: float = 0.5,
        eps_inside: bool = True,
        centre_share: float = 0.0,
        spread_share: float = 0.0,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        legacy: bool = False,
        axis: int = 1,
    ) -> None:
        super().__init__()
        if measure not in MEASURES:
            raise unknown("measure", measure, MEASURES)
        for option, share in (("centre_share", centre_share), ("spread_share", spread_share)):
            if not 0 <= share <= 1:
                raise ValueError(f"{option} is the share read from the batch; got {share}, give a number from 0 to 1")
        if not power >= 0:
            raise ValueError(f"power is the exponent of the spread; got {power}, give a number >= 0")
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps keeps the divisor from 0; got {eps}, give a finite number >= 0")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"momentum is the weight of a new batch; got {momentum}, give a number from 0 to 1")
        self.num_features, self.measure, self.power, self.eps_inside = num_features, measure, power, eps_inside
        self.centre_share, self.spread_share = centre_share, spread_share
        self.eps, self.momentum, self.affine, self.legacy = eps, momentum, affine, legacy
        self.axis = axis
        self._measure = MEASURES[measure]
        self._centre, self._spread = f"running_{self._measure.centre}", f"running_{self._measure.spread}"
        self._is_batchnorm = measure == "moments" and power == 0.5 and eps_inside
        self.register_parameter("weight", nn.Parameter(torch.ones(num_features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_features)) if affine else None)
        self.register_buffer(self._centre, torch.zeros(num_features))
        self.register_buffer(self._spread, torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        if measure != "moments":
            self.register_buffer("needs_recalibration", torch.tensor(False))
        self._unknown_spread = self._unknown_centre = False  # no buffers: reading one in forward would wait for the device

    @positions_as_rows
    def forward(self, input: Tensor) -> Tensor:
        x = input  # the name by which torch's layers may be called
        if x.ndim < 2 or x.shape[1] != self.num_features:
            raise ValueError(
                f"StatNorm of {self.num_features} channels got shape {tuple(x.shape)}; expected (b, {self.num_features}, ...)"
            )
        if self.training:
            return self._train(x)
        wanted = (self._unknown_spread and self.spread_share < 1) or (self._unknown_centre and self.centre_share < 1)
        if wanted and self.unknown:
            raise ValueError(
                f"this layer does not know its {' and '.join(sorted(self.unknown))}: the layer it was made from tracked "
                "something else, or nothing; recalibrate(model, batches), train it, or let it read the batch (shares of 1)"
            )
        running = getattr(self, self._centre), getattr(self, self._spread)
        if self.centre_share == self.spread_share == 0:
            if self._is_batchnorm:
                return F.batch_norm(x, *running, self.weight, self.bias, False, 0.0, self.eps)
            return self._normalize(x, *running)
        if self._native and self.centre_share == self.spread_share == 1 and x.numel() > x.shape[1]:
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        batch = self._read(at_least_float32(x))
        return self._normalize(
            x,
            torch.lerp(running[0].to(batch[0]), batch[0], self.centre_share),
            torch.lerp(running[1].to(batch[1]), batch[1], self.spread_share),
        )

    def _train(self, x: Tensor) -> Tensor:
        read = None if self._native else self._read(at_least_float32(x))
        if (x.numel() // x.shape[1] if read is None else read.n) == 1:
            raise ValueError(f"batch statistics need more than one value per channel; got shape {tuple(x.shape)}")
        first = self._unknown_spread  # nothing is known of it: the first batch counts whole
        if first and self.momentum is None:
            self.num_batches_tracked.zero_()
        self.num_batches_tracked.add_(1)
        momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        running = getattr(self, self._centre), getattr(self, self._spread)
        if read is None:
            y = F.batch_norm(x, *running, self.weight, self.bias, True, 1.0 if first else momentum, self.eps)
        else:
            centre, spread, n = read
            y = self._normalize_batch(x, centre, spread)
            with torch.no_grad():
                running[0].lerp_(centre.to(running[0]), 1.0 if self._unknown_centre else momentum)
                running[1].lerp_(self._measure.tracked(spread, n).to(running[1]), 1.0 if first else momentum)
        if first:
            self.expect_recalibration(False)
        return y

    @property
    def _native(self) -> bool:
        """Whether torch computes it: BatchNorm, of the rows of this process."""
        return self._is_batchnorm and self.fused and not self.synchronized

    def _read(self, x: Tensor) -> Read:
        if self.synchronized:
            from .synchronized import statistics

            return statistics(self._measure, x)
        return Read(*self._measure.of(x), x.numel() // x.shape[1])

    def evaluation_affine(self) -> tuple[Tensor, Tensor]:
        """Centre and scale, (c,) each, of what it does in evaluation at shares 0: y = (x - centre) scale + bias."""
        return getattr(self, self._centre), self._scale(getattr(self, self._spread))

    def _scale(self, spread: Tensor) -> Tensor:
        scale = 1 / (_power(spread + self.eps, self.power) if self.eps_inside else _power(spread, self.power) + self.eps)
        if self.power:  # half of a channel's values may be equal: their deviation is 0, and the rest must not explode
            scale = torch.where(spread > 0, scale, 0)
        return scale if self.weight is None else scale * self.weight

    def _normalize_batch(self, x: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """What training answers to a batch with these statistics, before the running ones follow them."""
        return self._normalize(x, centre, spread)

    def _normalize(self, x: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        centred, scale = at_least_float32(x) - along(centre, x, 1), along(self._scale(spread), x, 1)
        y = centred * scale if self.bias is None else torch.addcmul(along(self.bias, x, 1), centred, scale)
        return y.to(x.dtype)

    def reset_running_stats(self) -> None:
        """Forget the running statistics: centre 0, spread 1, no batch seen."""
        getattr(self, self._centre).zero_()
        getattr(self, self._spread).fill_(1)
        self.num_batches_tracked.zero_()
        self.expect_recalibration(False)

    def expect_recalibration(self, expected: bool, *, centre: bool = False) -> None:
        """Say that the running spread is unknown, and with `centre` the running centre too, or that both are known again.

        Evaluation raises while it would read what is unknown. A layer of moments then counts its batches anew.
        """
        self._unknown_spread, self._unknown_centre = expected, expected and centre
        if self.measure != "moments":
            self.needs_recalibration.fill_(expected)
        elif expected:
            self.num_batches_tracked.zero_()

    @property
    def unknown(self) -> frozenset[str]:
        """The names of the running statistics that are not known."""
        if self._unknown_spread:  # the buffers have the last word: a moving average of models copies them alone
            moments = self.measure == "moments"
            known = bool(self.num_batches_tracked) if moments else not self.needs_recalibration
            if known:
                self.expect_recalibration(False)
        unsure = ((self._centre, self._unknown_centre), (self._spread, self._unknown_spread))
        return frozenset(name for name, is_unknown in unsure if is_unknown)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        unknown = self.unknown  # said only while it is so: the keys are BatchNorm's again afterwards
        if self._spread in unknown:
            destination[prefix + "needs_recalibration"] = torch.tensor(True)
        if self._centre in unknown:
            destination[prefix + "unknown_centre"] = torch.tensor(True)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        own, centre, mark = prefix + self._spread, prefix + self._centre, prefix + "needs_recalibration"
        no_centre = bool(state_dict.pop(prefix + "unknown_centre", False))
        if own in state_dict:
            self._unknown_spread, self._unknown_centre = bool(state_dict.get(mark, False)), no_centre
        elif self.measure != "moments" and (foreign := prefix + "running_var") in state_dict:
            variance = state_dict.pop(foreign)
            state_dict[own] = variance if self.legacy else getattr(self, self._spread)
            self._unknown_spread, self._unknown_centre = not self.legacy, no_centre
            if centre not in state_dict:
                state_dict.pop(prefix + "running_mean", None)
                state_dict[centre] = getattr(self, self._centre)
                self._unknown_centre = not self.legacy
        if self.measure == "moments":
            state_dict.pop(mark, None)
        else:
            state_dict[mark] = torch.tensor(self._unknown_spread)
        if "num_batches_tracked" not in self._non_persistent_buffers_set:
            state_dict.setdefault(prefix + "num_batches_tracked", self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        shares = f"centre_share={self.centre_share}, spread_share={self.spread_share}"
        return f"{self.num_features}, measure={self.measure!r}, power={self.power}, {shares}, eps={self.eps}, momentum={self.momentum}"


def _power(spread: Tensor, power: float) -> Tensor:
    """spread ** power, with value and gradient 0 where the spread is 0 (there the derivative is infinite); power 0 gives 1."""
    if power == 0:
        return torch.ones_like(spread)
    alive = spread > 0
    return torch.where(alive, torch.where(alive, spread, 1).pow(power), 0)
