"""Centre and spread of a batch of activations, per channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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


def mean_and_variance(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (the one BatchNorm divides by)."""
    variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
    return mean, variance


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


# BatchNorm divides by the biased variance and tracks the unbiased one.
MOMENTS = Measure("mean", "var", mean_and_variance, lambda variance, n: variance * (n / max(n - 1, 1)))
RANGE = Measure("mean", "range", mean_and_range, lambda spread, n: spread)
MEDIAN = Measure("median", "deviation", median_and_deviation, lambda spread, n: spread)
MEASURES = {"moments": MOMENTS, "range": RANGE, "median": MEDIAN}
