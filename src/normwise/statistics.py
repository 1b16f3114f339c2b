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
    """Mean, and largest minus smallest activation (Awais et al. 2020, arXiv:2006.11007)."""
    axes = [0, *range(2, x.ndim)]
    return x.mean(axes), x.amax(axes) - x.amin(axes)


# BatchNorm divides by the biased variance and tracks the unbiased one.
MOMENTS = Measure("mean", "var", mean_and_variance, lambda variance, n: variance * (n / max(n - 1, 1)))
RANGE = Measure("mean", "range", mean_and_range, lambda spread, n: spread)
MEASURES = {"moments": MOMENTS, "range": RANGE}
