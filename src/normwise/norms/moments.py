"""Centre and spread of a batch of activations, per channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Measure(NamedTuple):
    """A way to say where a channel's activations lie and how far they spread.

    `of(x)` reads x of shape (b, c, ...) and returns (centre, spread), each of shape (c,).
    `tracked(spread, n)` is the value that enters the running buffer when n activations were read.
    `centre` and `spread` name the buffers `running_<centre>` and `running_<spread>`.
    """

    centre: str
    spread: str
    of: Callable[[Tensor], tuple[Tensor, Tensor]]
    tracked: Callable[[Tensor, int], Tensor]


class Read(NamedTuple):
    """Centre and spread of a batch, (c,) each, and the number of values that each was read from."""

    centre: Tensor
    spread: Tensor
    n: int


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (the one BatchNorm divides by).

    Measured from a channel's first activation, so that the variance of a constant channel is exactly 0.
    """
    first = x.detach()[:1, :, *[slice(1)] * (x.ndim - 2)]
    mean, variance = pooled_moments(*row_moments(x - first), 0)
    return first.flatten() + mean[0], variance[0]


def row_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (b, c) of each row's channels, x being (b, c, ...)."""
    x = x.reshape(x.shape[0], x.shape[1], -1)
    if torch.compiler.is_compiling():  # what is compiled makes one pass of them itself
        mean = x.mean(2)
        return mean, (x - mean[:, :, None]).square().mean(2)
    found: tuple[Tensor, Tensor] = _RowMoments.apply(x)
    return found


def pooled_moments(mean: Tensor, variance: Tensor, over: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of parts of one size together, over these dimensions, which stay as 1."""
    whole = mean.mean(over, keepdim=True)
    return whole, (variance + (mean - whole).square()).mean(over, keepdim=True)


class _RowMoments(torch.autograd.Function):
    """Mean and biased variance (b, c) over the positions of x (b, c, n), in one pass on the way back.

    On a CPU `var_mean` takes 4 to 6 times as long, forward and back; the graph of two means 5 times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(2)
        ctx.save_for_backward(x, mean)
        return mean, (x - mean[:, :, None]).square_().mean(2)

    @staticmethod
    def backward(ctx: Any, by_mean: Tensor, by_variance: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        slope = 2 * by_variance / x.shape[2]
        return torch.addcmul((by_mean / x.shape[2] - slope * mean)[:, :, None], slope[:, :, None], x)


def mean_and_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and largest minus smallest activation (Awais et al. 2020, arXiv:2006.11007).

    The gradient of the range goes to one activation at each end: sharing it among equal ones, as `amax` does, takes as long
    as a convolution.
    """
    flat = x.movedim(1, -1).flatten(0, -2)
    return flat.mean(0), flat.max(0).values - flat.min(0).values


def median_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Median, and (1.4826 MAD)^2: the variance of a Gaussian with that median absolute deviation.

    Source: the defence of Wu et al. 2023, arXiv:2301.12576, as their code has it.
    """
    flat = x.transpose(0, 1).flatten(1)
    median = flat.median(1).values
    return median, (1.4826 * (flat - median[:, None]).abs().median(1).values) ** 2


def shrunk_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, each shrunk over channels (James and Stein; see `JSBN`)."""
    mean, variance = mean_and_variance(x)
    return shrunk(mean), shrunk(variance)


def shrunk(values: Tensor) -> Tensor:
    """James and Stein's estimate (c,) of as many means as there are values (c,), their common variance being unknown.

    >>> shrunk(torch.tensor([1.0, 2.0, 3.0]))
    tensor([0.9643, 1.9286, 2.8929])
    """
    size = values.square().sum()
    spread = (values - values.mean()).square().sum()
    factor = max(len(values) - 2, 0) / (len(values) + 1)
    return values * (1 - factor * spread / torch.where(size > 0, size, 1))


def at_least_float32(x: Tensor) -> Tensor:
    """Statistics are computed in float32 at least: a range or a variance overflows half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def unbiased(variance: Tensor, n: int) -> Tensor:
    """What BatchNorm tracks; it divides by the biased variance."""
    return variance * (n / max(n - 1, 1))


def _as_it_is(spread: Tensor, n: int) -> Tensor:
    return spread


MOMENTS = Measure("mean", "var", mean_and_variance, unbiased)
RANGE = Measure("mean", "range", mean_and_range, _as_it_is)
MEDIAN = Measure("median", "deviation", median_and_deviation, _as_it_is)
JAMES_STEIN = Measure("shrunk_mean", "shrunk_var", shrunk_moments, unbiased)
MEASURES = {"moments": MOMENTS, "range": RANGE, "median": MEDIAN, "james-stein": JAMES_STEIN}
