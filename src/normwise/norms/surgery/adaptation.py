"""How much a network's norms read of the batch at inference: alpha, from running statistics alone to the batch alone."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...types import Site
from ...utils.model_state import frozen
from ..adaptive import AdaptiveNorm
from ..batch import BN
from ..layer import StatNorm
from ..site import reads
from .conversion import exchange, replaceable_norms
from .transfer import take_settings
from .unmapped import hidden, kind_of, norm_paths, remark


def with_share(model: nn.Module, share: float) -> nn.Module:
    """Return a copy of the model that reads this share of every statistic from the batch in evaluation, 0 to 1.

    At 0 it reads running statistics alone, at 1 the batch alone; between, mean and spread are mixed linearly. torch's
    BatchNorm layers become StatNorm layers, weights and statistics taken over. Layers that read single samples, have no
    running statistics, or belong to a frozen substitute stay as they are, and so do a tracked InstanceNorm and norms of
    kinds of their own that keep statistics, which `unmapped` names. Rows are then coupled: the audit measures the price.

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
        own = f"; {unshared(model)} cannot" if unshared(model) else ""
        raise ValueError(
            f"{kind_of(model)} has no norms with running statistics that could be mixed{own}; there is nothing to adapt{hidden(model)}"
        )
    model = exchange(model, _as_statnorm)
    for module in _tracking(model):
        if isinstance(module, StatNorm):
            module.centre_share = module.spread_share = share
        else:
            remark(module, f"{kind_of(module)} left as it is")
    return model


def share_of(model: nn.Module) -> float | None:
    """The share that every layer with running statistics reads from the batch in evaluation, but for those of `unshared`.

    NaN where their shares differ; None where no layer has running statistics.
    """
    shares = set[float]()
    for module in _tracking(model) - _stays(model):
        shares |= {module.centre_share, module.spread_share} if isinstance(module, StatNorm) else {0.0}
    return None if not shares else shares.pop() if len(shares) == 1 else float("nan")


def unshared(model: nn.Module) -> str:
    """The norms with running statistics that no share can be given to, in words; nothing if there are none."""
    stay = _stays(model)
    return ", ".join(f"{path or 'the network'} ({kind_of(one)})" for path, one in model.named_modules() if one in stay)


def _stays(model: nn.Module) -> set[nn.Module]:
    """Norms that read running statistics and are neither ours nor a BatchNorm that is known to the letter."""
    known = {layer for path in replaceable_norms(model) if isinstance(layer := model.get_submodule(path), _BatchNorm)}
    return {module for module in _tracking(model) if not isinstance(module, StatNorm)} - known


def _tracking(model: nn.Module) -> set[nn.Module]:
    """The layers that have running statistics to read, but for a frozen substitute's and adaptive ones."""
    modules = dict(model.named_modules())
    norms = {modules[path] for path in norm_paths(model) if not isinstance(modules[path], AdaptiveNorm)}
    kept = {norm for norm in norms if _keeps(norm)} | {one for one in modules.values() if isinstance(one, StatNorm)}
    return kept - frozen(model)


def _keeps(norm: nn.Module) -> bool:
    known = reads(norm, training=False)  # of other kinds, frozen or scripted ones, the buffer tells
    return isinstance(getattr(norm, "running_mean", None), Tensor) if known is None else "running" in known


def _as_statnorm(site: Site, old: nn.Module) -> nn.Module:
    """torch's BatchNorm as StatNorm; every other layer as it is."""
    if not isinstance(old, _BatchNorm) or "running" not in (reads(old, training=False) or ()):
        return old
    new = BN()(site)
    take_settings(new, old, BN())
    return new
