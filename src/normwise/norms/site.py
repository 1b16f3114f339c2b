"""Where a network normalizes, and what each place reads there."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from ..types import Site
from .free import ChannelAffine
from .layer import StatNorm
from .routed import Routed


def reads(module: nn.Module) -> frozenset[str] | None:
    """What a module's normalization reads in the mode it is in: of "running", "batch", "sample", "none".

    None where the module does not stand at a site of normalization.
    """
    if isinstance(module, Routed):
        return reads(module.active)
    if isinstance(module, StatNorm):
        shares = (1.0, 1.0) if module.training else (module.centre_share, module.spread_share)
        return frozenset(({"batch"} if max(shares) > 0 else set()) | ({"running"} if min(shares) < 1 else set()))
    if isinstance(module, _BatchNorm):
        return frozenset({"batch" if module.training or module.running_mean is None else "running"})
    if isinstance(module, _InstanceNorm):
        return frozenset({"running" if module.track_running_stats and not module.training else "sample"})
    if isinstance(module, nn.GroupNorm | nn.LayerNorm):
        return frozenset({"sample"})
    return frozenset({"none"}) if isinstance(module, ChannelAffine) else None


def sites(model: nn.Module) -> dict[str, Site]:
    """List the places where a model normalizes, by module path; a module tied to several paths is listed at each."""
    within = {inner for module in model.modules() if isinstance(module, Routed) for inner in module.statistics}
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if module not in within and reads(module) is not None:
            found[path] = Site(_channels(module), path)
    return found


def norm_reads(model: nn.Module) -> dict[str, int]:
    """Count the sites by what they read, e.g. {"running": 7} or {"batch+running": 7}."""
    each = {model.get_submodule(path) for path in sites(model)}  # a tied module counts once
    return dict(Counter("+".join(sorted(reads(module) or ())) for module in each))


def _channels(module: nn.Module) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    if isinstance(module, ChannelAffine):
        return len(module.weight)
    return int(module.num_features)  # type: ignore[arg-type]
