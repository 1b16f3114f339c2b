"""How much a network's norms read of the batch at inference: alpha, from running statistics alone to the batch alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .modes import frozen
from .norms.layer import StatNorm
from .surgery import exchange
from .types import Site


def with_share(model: nn.Module, share: float) -> nn.Module:
    """Return a copy of the model that reads this share of every statistic from the batch in evaluation, 0 to 1.

    At 0 it reads running statistics alone, at 1 the batch alone; between, mean and spread are mixed linearly. torch's
    BatchNorm layers become StatNorm layers, weights and statistics taken over. Layers that read single samples, track no
    running statistics, or belong to a frozen substitute stay as they are. Rows are then coupled: the audit measures the price.

    Raises ValueError for a share out of range, and for a model without running statistics: there is nothing to adapt.
    Source: Schneider et al. 2020, arXiv:2006.16971, eq. 3 (share n / (N + n) of n images beside a prior worth N), and
    You et al. 2021, arXiv:2110.04065 (whose alpha is 1 - share).

    >>> from normwise.norms.site import norm_reads
    >>> norm_reads(with_share(nn.BatchNorm2d(4).eval(), 1.0))
    {'batch': 1}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share read from the batch is {share}; give a number from 0 to 1")
    if share_of(model) is None:
        raise ValueError(f"{type(model).__name__} has no norms with running statistics; there is nothing to adapt")
    foreign = any(isinstance(module, _BatchNorm) for module in _tracking(model))
    model = exchange(model, _as_statnorm) if foreign else copy.deepcopy(model)
    for module in _tracking(model):
        module.centre_share = module.spread_share = share  # type: ignore[assignment]
    return model


def share_of(model: nn.Module) -> float | None:
    """The share that every layer with running statistics reads from the batch in evaluation.

    NaN where their shares differ; None where no layer has running statistics.
    """
    shares = set[float]()
    for module in _tracking(model):
        shares |= {module.centre_share, module.spread_share} if isinstance(module, StatNorm) else {0.0}
    return None if not shares else shares.pop() if len(shares) == 1 else float("nan")


def _tracking(model: nn.Module) -> Iterator[nn.Module]:
    """The layers with running statistics, but for a frozen substitute's."""
    fixed = frozen(model)
    for module in model.modules():
        tracks = isinstance(module, StatNorm) or (isinstance(module, _BatchNorm) and module.running_mean is not None)
        if tracks and module not in fixed:
            yield module


def _as_statnorm(site: Site, old: nn.Module) -> nn.Module:
    """torch's BatchNorm as StatNorm; every other layer as it is."""
    if not isinstance(old, _BatchNorm) or old.running_mean is None:
        return old
    return StatNorm(old.num_features, eps=old.eps, momentum=old.momentum, affine=old.affine)
