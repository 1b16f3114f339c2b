"""Change the norms of a network: a new model comes out, the one given stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .modes import device_of, frozen, running
from .norms.layer import StatNorm
from .norms.routed import Routed
from .norms.site import sites
from .types import Norm, Site

BATCHNORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")  # what nn.BatchNorm keeps


def convert(model: nn.Module, norm: Norm) -> nn.Module:
    """Return a copy of the model with every norm layer replaced by what `norm` makes.

    Scale, shift, and the running statistics that both layers know are taken over, and so are each layer's mode, dtype,
    device, hooks and `requires_grad`; a layer tied to several places stays tied. A running statistic that the old layer did
    not track is marked unknown (`unmapped` lists such layers): `recalibrate` it, or train. LayerNorm is left alone (it
    normalizes tokens, not channels), and so is a frozen substitute; the activation inside timm's BatchNormAct2d stays.

    Raises ValueError if the model has no norm layer to replace, or a lazy one that has seen no batch.

    >>> from normwise.norms import GN
    >>> convert(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), GN(groups=4))[1].num_groups
    4
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise ValueError(f"{path} is lazy and does not know its channels yet; run one batch through the model first")
    model = copy.deepcopy(model)
    fixed = frozen(model)
    known = {path: site for path, site in sites(model).items() if model.get_submodule(path) not in fixed}
    paths = [path for path in known if not isinstance(model.get_submodule(path), nn.LayerNorm)]
    if not paths:
        kinds = sorted({type(module).__name__ for module in model.modules()} - {type(model).__name__})
        raise ValueError(f"{type(model).__name__} has no norm layer to convert; it has: {', '.join(kinds) or 'no layers'}")
    made: dict[nn.Module, nn.Module] = {}
    for path in paths:
        old = model.get_submodule(path)
        if old not in made:
            made[old] = _adopt(norm(Site(known[path].channels, path)), old)
        if not path:
            return made[old]
        parent, _, child = path.rpartition(".")
        model.get_submodule(parent)._modules[child] = made[old]
    return model


def recalibrate(model: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Return a copy of the model whose running statistics are the plain average over the batches of images.

    Only layers that track statistics are put in training mode, so that dropout stays off; of routed norms the route in
    use; a frozen substitute keeps its own. (`torch.optim.swa_utils.update_bn` leaves this library's layers as they are.)
    Raises ValueError for no batches.
    """
    model = copy.deepcopy(model)
    resting = {s for m in model.modules() if isinstance(m, Routed) for s in m.statistics if s is not m.active}
    resting |= set(frozen(model))
    tracking = [m for m in model.modules() if isinstance(m, StatNorm | _BatchNorm) and m not in resting]
    momenta = [module.momentum for module in tracking]
    seen = False
    with running(model, "eval"), torch.no_grad():
        for module in tracking:
            module.reset_running_stats()
            module.momentum = None
            module.train()
        for x in batches:
            model(x.to(device_of(model)))
            seen = True
    for module, momentum in zip(tracking, momenta, strict=True):
        module.momentum = momentum
    if not seen:
        raise ValueError("recalibrate got no batches; give at least one batch of images")
    return model


def insert(model: nn.Module, norm: Norm, after: Sequence[str]) -> nn.Module:
    """Return a copy of the model with a new norm layer behind each module whose path is in `after`.

    The new layer is the module's child `inserted`, so that every key of the old state dict stays as it was. Its number of
    channels is what the module says of itself (`out_channels`, `out_features` or `num_features`).

    Raises ValueError for a path that is not there, a module that already has one, or one that does not say its channels.

    >>> from normwise.norms import BN
    >>> sorted(insert(nn.Sequential(nn.Conv2d(3, 4, 1)), BN(), after=["0"]).state_dict())[:2]
    ['0.bias', '0.inserted.bias']
    """
    model = copy.deepcopy(model)
    known = dict(model.named_modules())
    for path in after:
        if path not in known or hasattr(known[path], "inserted"):
            fits = [name for name, module in known.items() if _outputs(module)]
            raise ValueError(
                f"cannot insert after {path!r}: it is no module, or has an insertion already; there are: {', '.join(fits[:20])}"
            )
        layer = known[path]
        channels = _outputs(layer)
        if not channels:
            raise ValueError(
                f"cannot insert after {path!r}: {type(layer).__name__} does not say its channels; give a convolution's path"
            )
        new = norm(Site(channels, path)).to(next(layer.parameters(), torch.empty(0)))
        layer.add_module("inserted", new.train(layer.training))
        layer.register_forward_hook(_then_inserted)
    return model


def convert_sync(model: nn.Module, group: Any = None) -> nn.Module:
    """Return a copy of the model whose BatchNorm layers share their batch statistics over the processes of `group`.

    torch's own converter knows `nn.BatchNorm` alone and leaves this library's layers as they are; this one turns both into
    `nn.SyncBatchNorm`, with weights, statistics and keys. Layers that read the batch at inference or measure anything but
    mean and variance have no synchronized kind.

    Raises ValueError for such a layer, and if there is nothing to synchronize.
    """

    def synchronized(site: Site) -> nn.Module:
        old = model.get_submodule(site.path)
        if isinstance(old, StatNorm):
            if not old._is_batchnorm or old.centre_share or old.spread_share:
                raise ValueError(
                    f"{site.path} ({old.extra_repr()}) has no synchronized kind: only running mean and variance have; "
                    'train it with stats="per-rank"'
                )
            return nn.SyncBatchNorm(site.channels, old.eps, old.momentum, old.affine, process_group=group)
        if not isinstance(old, _BatchNorm):
            return copy.deepcopy(old)  # it reads single samples, or nothing
        return nn.SyncBatchNorm(
            site.channels, old.eps, old.momentum, old.affine, old.track_running_stats, process_group=group
        )

    return convert(model, _Choice(synchronized))


class _Choice:
    """A function of a site as a norm."""

    name: ClassVar[str] = "choice"

    def __init__(self, make: Callable[[Site], nn.Module]) -> None:
        self.make = make

    def __call__(self, site: Site) -> nn.Module:
        return self.make(site)


def unmapped(model: nn.Module) -> list[str]:
    """The paths of norm layers whose running statistics are not known, because the layer converted tracked others.

    `recalibrate` them, or train.
    """
    return [path for path, module in model.named_modules() if isinstance(module, StatNorm) and module._unknown_spread]


def _outputs(module: nn.Module) -> int:
    return next((int(n) for name in ("out_channels", "out_features", "num_features") if (n := getattr(module, name, 0))), 0)


def _then_inserted(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return module.inserted(y)  # type: ignore[operator]


def _then_activate(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return module.act(module.drop(y))  # type: ignore[operator]


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
)


def _adopt(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give a new layer what it shares with the old one."""
    values = old.state_dict()
    if isinstance(old, Routed):
        values = {"weight": old.weight, "bias": old.bias, **old.active.state_dict()}
    own = new.state_dict()
    shared = {name: value for name, value in values.items() if name in own and own[name].shape == value.shape}
    if isinstance(new, Routed):  # it gives them to every route
        shared = {name: value for name, value in values.items() if name in BATCHNORM}
    for name, parameter in new.named_parameters():
        twin = getattr(old, {"weights": "weight", "biases": "bias"}.get(name, name), None)
        parameter.requires_grad_(twin.requires_grad if isinstance(twin, Tensor) else parameter.requires_grad)
    place = next((t for t in (*old.parameters(), *old.buffers()) if t.is_floating_point()), None)
    if place is not None:
        new.to(device=place.device, dtype=place.dtype)
    new.load_state_dict(shared, strict=False)
    if isinstance(new, StatNorm) and f"running_{new._measure.spread}" not in values:
        new.expect_recalibration(True)
    for hooks in _HOOKS:
        getattr(new, hooks).update(getattr(old, hooks))
    if isinstance(old, _BatchNorm) and hasattr(old, "act") and hasattr(old, "drop"):  # timm's norm with an activation
        new.drop, new.act = old.drop, old.act
        new.register_forward_hook(_then_activate)
    return new.train(old.training)
