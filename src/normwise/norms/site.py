"""Where a network normalizes, what each place reads there, and which layers are of kinds that are known to the letter."""

from __future__ import annotations

import re
from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils.parametrize import is_parametrized

from ..types import Site
from .batchrenorm import BatchRenorm
from .derf import DynamicErf
from .dyt import DynamicTanh
from .evonorm import EvoNorm
from .free import ChannelAffine
from .frn import FilterResponseNorm
from .grn import GlobalResponseNorm
from .layer import StatNorm
from .layernorm2d import LayerNorm2d
from .positions import PositionNorm
from .rmsnorm import RMSNorm2d
from .robust import RobustNorm1d, RobustNorm2d, RobustNorm3d
from .routed import Routed
from .sample import InstanceNorm, TokenGroupNorm

KNOWN = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm),
    *(StatNorm, BatchRenorm, RobustNorm1d, RobustNorm2d, RobustNorm3d, Routed, InstanceNorm, TokenGroupNorm),
    *(ChannelAffine, DynamicTanh, DynamicErf, EvoNorm, FilterResponseNorm, GlobalResponseNorm),
    *(nn.LayerNorm, nn.RMSNorm, LayerNorm2d, RMSNorm2d),
)
_HARMLESS = {"extra_repr", "reset_parameters"}  # a subclass may have its own
_CALLS = ("__call__", "__getattr__", "__getattribute__", "__setattr__")
_SHADOWS = {"forward", "weight", "bias", "weights", "biases"}  # set on a layer itself, they hide what its class has


def reads(module: nn.Module, training: bool | None = None) -> frozenset[str] | None:
    """What a module's normalization reads in the mode it is in, or in the mode given: of "running", "batch", "sample", "none".

    None where the module does not stand at a site of normalization. torch's own layers are read as torch computes them:
    BatchNorm in evaluation reads the running statistics that it has, whatever `track_running_stats` says; InstanceNorm does
    as that says.
    """
    training = getattr(module, "training", False) if training is None else training
    if isinstance(module, Routed):
        return reads(module.active, training)
    if isinstance(module, StatNorm):
        always = (0.5, 0.5) if isinstance(module, BatchRenorm) else (1.0, 1.0)  # corrected towards the running ones
        shares = always if training else (module.centre_share, module.spread_share)
        return frozenset(({"batch"} if max(shares) > 0 else set()) | ({"running"} if min(shares) < 1 else set()))
    if isinstance(module, _BatchNorm):
        return frozenset(
            {"batch" if training or (module.running_mean is None and module.running_var is None) else "running"}
        )
    if isinstance(module, _InstanceNorm):
        return frozenset({"running" if module.track_running_stats and not training else "sample"})
    if isinstance(module, nn.GroupNorm | nn.LayerNorm | nn.RMSNorm | PositionNorm):
        return frozenset({"sample"})
    return frozenset({"none"}) if isinstance(module, ChannelAffine) else None


def known(module: nn.Module) -> type[nn.Module] | None:
    """The kind of norm that a module is to the letter: torch's or ours, or a subclass that has only a constructor of its own.

    None for all else, which may do anything: a subclass with methods of its own, a layer whose `forward` was replaced, and
    one whose weights are computed (parametrized, pruned, weight-normed).
    """
    if _SHADOWS & vars(module).keys() or is_parametrized(module):
        return None
    own = set[str]()
    for kind in type(module).__mro__:
        if kind in KNOWN:
            return kind if not any(hasattr(kind, name) for name in own) else None
        own |= {name for name in vars(kind) if not name.startswith("__") or name in _CALLS} - _HARMLESS
    return None


def axis_of(module: nn.Module) -> int:
    """Where a norm's channels are in what it reads, as its class says: 1, or -1 for tokens (LayerNorm of k axes: -k)."""
    if (own := getattr(module, "axis", None)) is not None:
        return int(own)
    return -len(module.normalized_shape) if isinstance(module, nn.LayerNorm | nn.RMSNorm) else 1


def sites(model: nn.Module) -> dict[str, Site]:
    """List the places where a model normalizes, by module path; a module tied to several paths is listed at each.

    A module with a true `kept` is part of a block, as in ConvNeXt V2, and none of its norms.
    """
    within = {inner for module in model.modules() if isinstance(module, Routed) for inner in module.statistics}
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if module not in within and reads(module) is not None and not getattr(module, "kept", False):
            found[path] = Site(_channels(module), path, axis_of(module))
    return found


def norm_reads(model: nn.Module) -> dict[str, int]:
    """Count the sites by what they read, e.g. {"running": 7} or {"batch+running": 7}."""
    each = {model.get_submodule(path) for path in sites(model)}  # a tied module counts once
    return dict(Counter("+".join(sorted(reads(module) or ())) for module in each))


def norm_kinds(model: nn.Module) -> dict[str, int]:
    """Count the sites by the kind of their layer, whatever it reads, e.g. {"BatchNorm": 7}, of torch's layers and of ours."""
    return dict(Counter(_kind(module) for module in {model.get_submodule(path) for path in sites(model)}))


def _kind(module: nn.Module) -> str:
    if isinstance(module, StatNorm) and module.measure == "range":
        return "RobustNorm"
    if type(module) is StatNorm and module._is_batchnorm:
        return "BatchNorm"
    return re.sub(r"^(Sync|Token)|[123]d$", "", type(module).__name__)


def _channels(module: nn.Module) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return module.normalized_shape[0]
    if isinstance(module, ChannelAffine):
        return len(module.weight)
    return int(module.num_features)  # type: ignore[arg-type]
