"""How much a network's norms read of the batch at inference: alpha, from running statistics alone to the batch alone."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .adoption import take_settings
from .limits import hidden, kind_of, remark
from .modes import frozen
from .norms.batch import BN
from .norms.layer import StatNorm
from .norms.site import reads
from .surgery import exchange, places
from .types import Site


def with_share(model: nn.Module, share: float) -> nn.Module:
    """Return a copy of the model that reads this share of every statistic from the batch in evaluation, 0 to 1.

    At 0 it reads running statistics alone, at 1 the batch alone; between, mean and spread are mixed linearly. torch's
    BatchNorm layers become StatNorm layers, weights and statistics taken over. Layers that read single samples, have no
    running statistics, or belong to a frozen substitute stay as they are, and so does a BatchNorm of a kind of its own, which
    `unmapped` names. Rows are then coupled: the audit measures the price.

    Raises ValueError for a share out of range, and for a model without running statistics that a share can be given to.
    Source: Schneider et al. 2020, arXiv:2006.16971, eq. 3 (share n / (N + n) of n images beside a prior worth N), and
    You et al. 2021, arXiv:2110.04065 (whose alpha is 1 - share).

    >>> from normwise.norms.site import norm_reads
    >>> norm_reads(with_share(nn.BatchNorm2d(4).eval(), 1.0))
    {'batch': 1}
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share read from the batch is {share}; give a number from 0 to 1")
    if share_of(model) is None:
        own = ", ".join(sorted({kind_of(module) for module in _tracking(model)}))
        told = f"; those of {own} are of kinds of their own" if own else ""
        raise ValueError(
            f"{kind_of(model)} has no norms with running statistics that could be mixed{told}; there is nothing to adapt{hidden(model)}"
        )
    model = exchange(model, _as_statnorm)
    for module in _tracking(model):
        if isinstance(module, StatNorm):
            module.centre_share = module.spread_share = share
        else:
            remark(module, f"{kind_of(module)} left as it is")
    return model


def share_of(model: nn.Module) -> float | None:
    """The share that every layer with running statistics reads from the batch in evaluation, BatchNorms of unknown kinds excepted.

    NaN where their shares differ; None where no layer has running statistics.
    """
    shares, fit = set[float](), {model.get_submodule(path) for path in places(model)}
    for module in _tracking(model):
        if isinstance(module, StatNorm):
            shares |= {module.centre_share, module.spread_share}
        elif module in fit:
            shares.add(0.0)
    return None if not shares else shares.pop() if len(shares) == 1 else float("nan")


def _tracking(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that have running statistics to read, but for a frozen substitute's."""
    fixed = frozen(model)
    for module in model.modules():
        tracks = isinstance(module, _BatchNorm) and "running" in (reads(module, training=False) or ())
        if (tracks or isinstance(module, StatNorm)) and module not in fixed:
            yield module


def _as_statnorm(site: Site, old: nn.Module) -> nn.Module:
    """torch's BatchNorm as StatNorm; every other layer as it is."""
    if not isinstance(old, _BatchNorm) or "running" not in (reads(old, training=False) or ()):
        return old
    new = BN()(site)
    take_settings(new, old, BN())
    return new
