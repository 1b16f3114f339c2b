"""Change the norms of a network: a new model comes out, the one given stays as it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from ...types import Batch, Norm, Site
from ...utils.batches import Rows, images_of
from ...utils.model_state import copied, device_of, frozen, refuse_lazy, running
from .. import BN, NORMS
from ..adaptive import AdaptiveNorm
from ..layer import StatNorm
from ..routed import Routed, routed
from ..site import reads, sites
from ..wsgn import complete
from .transfer import adopt, replaceable, take_settings
from .unmapped import expect_training, hidden, kind_of, norm_paths, remark, unmapped, untrained


def convert(model: nn.Module, norm: Norm | str) -> nn.Module:
    """Return a copy of the model with every norm layer replaced by what `norm` makes: RNT(power=0.5), or a name such as "rnt".

    Scale, shift, and the running statistics that both layers know are taken over, and so are each layer's mode, dtype,
    device, hooks and `requires_grad`; tied layers and tied parameters stay tied. What a layer lacks (scale or shift) its
    replacement lacks too, where it can. Momentum, and eps where it is added to the same thing, are the old layer's unless
    `norm` says another than its default. A running statistic that the new layer tracks and the old one did not is unknown:
    `unmapped` lists such layers, and evaluation that would read it raises until you `recalibrate` or train. Statistics that
    the new layer does not track (any, for GroupNorm or no norm) are dropped. Routes are kept where their number and what
    they share are the same, and the route in use unless `norm` names another than 0; else every route starts as the one in
    use. What takes the place of LayerNorm or RMSNorm reads tokens, channels last; of a LayerNorm over the second axis, as
    timm's LayerNorm2d, channels second. Left alone are LayerNorm and RMSNorm of several axes, a frozen substitute, and norms
    that are not known to the letter: of other kinds, subclasses with methods of their own, layers whose forward was replaced
    or whose weights are computed, with the norms inside them. `unmapped` tells what was dropped and left, and which layers
    compute another function now and have not been trained since. Such a network has to be fine-tuned: a warning says so, and
    `evaluate` refuses it. The activation inside timm's BatchNormAct2d and GroupNormAct and what `insert` put behind a norm stay.

    Raises ValueError if the model has no norm layer to replace, or a lazy one that has seen no batch.

    >>> from normwise.norms import GN
    >>> convert(nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)), GN(groups=4))[1].num_groups
    4
    """
    new = converted(model, norm)
    if other := [path for path, module in new.named_modules() if untrained(module)]:
        first = f"{other[0]}: {unmapped(new)[other[0]]}"
        warnings.warn(
            f"{len(other)} norms were converted to another function ({first}); until then evaluate refuses the network",
            stacklevel=2,
        )
    return new


def converted(model: nn.Module, norm: Norm | str) -> nn.Module:
    """What `convert` returns, without its warning: for networks that are trained next, or get the weights of trained ones."""
    made_by = NORMS.make(norm) if isinstance(norm, str) else norm
    if not replaceable_norms(model):
        kinds = sorted({kind_of(module) for module in model.modules()} - {kind_of(model)})
        raise ValueError(
            f"{kind_of(model)} has no norm layer to convert; it has: {', '.join(kinds) or 'no layers'}{hidden(model)}"
        )

    def made(site: Site, old: nn.Module) -> nn.Module:
        new = made_by(site)
        take_settings(new, old, made_by)
        return new

    olds = {path: kind_of(model.get_submodule(path)) for path in replaceable_norms(model)}
    left, new = set(norm_paths(model)) - replaceable_norms(model).keys(), exchange(model, made)
    for path, module in new.named_modules():
        if path in left:
            remark(module, f"{kind_of(module)} left as it is")
        elif getattr(made_by, "retrain", False) and olds.get(path, kind_of(module)) != kind_of(module):
            expect_training(module, olds[path])
    complete(new, made_by)
    return new


def exchange(model: nn.Module, make: Callable[[Site, nn.Module], nn.Module]) -> nn.Module:
    """Return a copy of the model with every norm layer replaced by what `make` gives for its site and for the layer itself.

    A layer that `make` gives back stays as it is. What a new layer takes over is what `convert` says, settings excepted.
    Raises ValueError for a lazy layer that has seen no batch.
    """
    refuse_lazy(model)
    model = copied(model)
    olds = {
        model.get_submodule(path): site for path, site in reversed(replaceable_norms(model).items())
    }  # a tied one at its first path
    for old, site in reversed(olds.items()):
        new = make(site, old)
        if new is not old:
            adopt(new, old)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and not set(olds).isdisjoint(module.children()):
            module.activation_relu_or_gelu = 0  # else torch computes a LayerNorm by this one's numbers, and never calls it
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # which only that computation knows
    return model


def replaceable_norms(model: nn.Module) -> dict[str, Site]:
    """The sites whose layers may be replaced, by path: of known kinds, and in nobody's hands.

    That is: not within a frozen substitute, a norm that stays, or a convolution or linear layer, which may read it by name.
    """
    found = sites(model)
    layers = {path: model.get_submodule(path) for path in found}
    axes = {layer: replaceable(layer) for layer in layers.values()}
    kept = frozen(model) | {layer for layer, axis in axes.items() if axis is None}
    for holder in [*kept, *(module for module in model.modules() if isinstance(module, _ConvNd | nn.Linear))]:
        kept |= {one for name, child in holder.named_children() if name != "inserted" for one in child.modules()}
    return {
        path: site._replace(axis=axis)
        for path, site in found.items()
        if layers[path] not in kept and (axis := axes[layers[path]]) is not None
    }


def with_known_statistics(model: nn.Module, batches: Iterable[Batch]) -> nn.Module:
    """The model itself if its norms know the running statistics that they read; else a copy, recalibrated on the first ten batches.

    Raises ValueError as `recalibrate` does.
    """
    unsure = any(getattr(one, "unknown", ()) for one in model.modules())
    return recalibrate(model, islice(batches, 10)) if unsure else model


def recalibrate(model: nn.Module, batches: Rows) -> nn.Module:
    """Return a copy of the model whose running statistics are the plain average over the batches of images.

    Only layers that track statistics are put in training mode, so that dropout stays off; of routed norms the route in use,
    and those that know no statistics yet; of adaptive norms those of source "constant"; a frozen substitute keeps its own.
    Statistics that a layer reads and no longer tracks (`track_running_stats` switched off) are measured anew too. Layers
    that no batch reaches, or that move nothing (quantized ones), keep what they have, and `unmapped` names them.
    (`torch.optim.swa_utils.update_bn` leaves this library's layers as they are.)

    Raises ValueError for no batches, for a model without running statistics that move, and for a lazy layer that has seen no
    batch.
    """
    refuse_lazy(model)
    model = copied(model)
    layers = [module for module in model.modules() if isinstance(module, Routed)]
    blank = [
        route
        for route in range(max((len(layer.statistics) for layer in layers), default=0))
        if any(getattr(layer.statistics[route], "unknown", ()) for layer in layers if route < len(layer.statistics))
    ]
    rows = list(images_of(batches)) if blank else batches  # several passes
    for route in blank:
        with routed(model, route):
            _measure(model, rows)
    if not blank or layers[0].route not in blank:
        _measure(model, rows)
    return model


def _measure(model: nn.Module, batches: Rows) -> None:
    """Measure the running statistics in use, in place; what is refused is said by `recalibrate`."""
    resting = {s for m in model.modules() if isinstance(m, Routed) for s in m.statistics if s is not m.active}
    resting |= set(frozen(model))
    tracking: list[Any] = [m for m in model.modules() if _tracks(m) and m not in resting]
    if not tracking:
        raise ValueError(
            f"{kind_of(model)} has no norms with running statistics; there is nothing to recalibrate{hidden(model)}"
        )
    settings, seen = [(m.momentum, getattr(m, "track_running_stats", None), _held(m)) for m in tracking], 0
    with running(model, "eval"), torch.no_grad():
        for module, (_, tracks, _) in zip(tracking, settings, strict=True):
            if tracks is False:
                module.track_running_stats = True
            module.reset_running_stats()
            module.train()
        fresh = list(map(_held, tracking))
        for seen, x in enumerate(images_of(batches), 1):
            for module in tracking:  # not None, which torch's InstanceNorm takes for 0
                module.momentum = 1 / seen
            model(x.to(device_of(model), copy=True))
    still = [all(map(torch.equal, _held(module), start)) for module, start in zip(tracking, fresh, strict=True)]
    if not seen:
        raise ValueError("recalibrate got no batches; give at least one batch of images")
    if all(still):
        raise ValueError(f"{kind_of(model)} moves no running statistics in training; there is nothing to recalibrate")
    for module, (momentum, tracks, before), unmoved in zip(tracking, settings, still, strict=True):
        module.momentum = momentum
        if tracks is False:
            module.track_running_stats = False
        if unmoved:
            for buffer, value in zip(module.buffers(recurse=False), before, strict=True):
                buffer.copy_(value)
            remark(module, "running statistics kept: no batch moved them")


def _held(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers(recurse=False)]


def insert(model: nn.Module, norm: Norm, after: Sequence[str]) -> nn.Module:
    """Return a copy of the model with a new norm layer behind each module whose path is in `after`.

    The new layer is the module's child `inserted`, so that every key of the old state dict stays as it was. Its number of
    channels is what the module says of itself (`out_channels`, `out_features` or `num_features`).

    Raises ValueError for a path that is not there, a module that already has one, is scripted or compiled, or does not say
    its channels; and for a lazy layer that has seen no batch.

    >>> from normwise.norms import BN
    >>> sorted(insert(nn.Sequential(nn.Conv2d(3, 4, 1)), BN(), after=["0"]).state_dict())[:2]
    ['0.bias', '0.inserted.bias']
    """
    refuse_lazy(model)
    model = copied(model)
    known = dict(model.named_modules())
    for path in after:
        if path not in known or not _open(path, known[path]):
            fits = [name for name, module in known.items() if _outputs(module) and _open(name, module)]
            raise ValueError(
                f"cannot insert after {path!r}: it is no module, is scripted or compiled, or has an insertion already; "
                f"there are: {', '.join(fits[:20]) or 'none'}"
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


def convert_sync(model: nn.Module) -> nn.Module:
    """Return a copy of the model whose norms take batch statistics over the batches of all processes of torch's process group.

    Without a process group they take their own, as before. Of this library's layers all that read the batch are synchronized
    (a layer with routes route by route), with their keys and settings; torch's BatchNorm, which torch's own SyncBatchNorm
    would replace on CUDA devices alone, becomes a `StatNorm` with the same keys. Layers that read single samples stay as
    they are. `fit` does this itself; in a loop of your own call it before DistributedDataParallel, with
    `broadcast_buffers=False`. Every process has to pass its part of the same batch, of whatever size above 0.

    Raises ValueError for a layer that reads the batch and is not known to the letter, or is a BatchNorm that `convert` would
    leave; for a scripted or exported model; and for a lazy layer that has seen no batch.
    """
    refuse_lazy(model)
    if hint := hidden(model):
        raise ValueError(f"{kind_of(model)} may hold norms that cannot be seen{hint}")
    within = {inner for module in model.modules() if isinstance(module, Routed) for inner in module.statistics}
    fit = within | {model.get_submodule(path) for path in replaceable_norms(model)}
    resting = {m for m in frozen(model) if not isinstance(m, _BatchNorm) or "batch" not in (reads(m) or ())}
    for path, module in model.named_modules():
        if isinstance(module, _BatchNorm | StatNorm | Routed) and module not in fit | resting:
            raise ValueError(
                f"{path}, a {type(module).__name__} ({module.extra_repr()}), cannot be synchronized: it may compute otherwise than "
                'its kind; train it with options=FitOptions(stats="per-rank")'
            )

    def synchronized(site: Site, old: nn.Module) -> nn.Module:
        if not isinstance(old, _BatchNorm):
            return old
        share = float(old.running_mean is None)
        kind = BN(centre_share=share, spread_share=share)
        new = kind(site)
        take_settings(new, old, kind)
        return new

    model = exchange(model, synchronized)
    for module in model.modules():
        if isinstance(module, StatNorm | AdaptiveNorm):
            module.synchronized = True
    return model


def _tracks(module: nn.Module) -> bool:
    if isinstance(module, AdaptiveNorm):
        return module.tracks
    torchs = isinstance(module, _BatchNorm | _InstanceNorm) and "running" in (reads(module, training=False) or ())
    return torchs or isinstance(module, StatNorm)


def _outputs(module: nn.Module) -> int:
    return next((int(n) for name in ("out_channels", "out_features", "num_features") if (n := getattr(module, name, 0))), 0)


def _open(path: str, module: nn.Module) -> bool:
    """Whether a layer may be put behind a module, by a hook that will be heard: what was compiled before would pass it by."""
    compiled = isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in path.split(".")
    return not compiled and not hasattr(module, "inserted")


def _then_inserted(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return module.inserted(y)  # type: ignore[operator]
