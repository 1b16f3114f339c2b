"""What a layer takes over from the one it replaces: settings, statistics, parameters, hooks, and its place."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from ...seeding import generator
from ...types import Norm
from ...utils.model_state import copied, running, untouched
from ..layer import StatNorm
from ..routed import Routed
from ..site import axis_of, known, reads
from .unmapped import remark

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_ACTIVATED: dict[type[nn.Module], tuple[int, ...]] = {  # what timm's layers derive from, and the shape of a channel going in
    nn.BatchNorm1d: (3,),
    nn.BatchNorm2d: (3, 3),
    nn.BatchNorm3d: (3, 3, 3),
    nn.SyncBatchNorm: (3, 3),
    nn.GroupNorm: (3, 3),
}


def replaceable(layer: nn.Module) -> int | None:
    """Where channels are for another norm that does a layer's work, 1 or -1; None where none can.

    The layer is known to the letter, as it is or with an activation behind it, or a LayerNorm of the second axis; LayerNorm
    and RMSNorm of several axes have no channels.
    """
    if known(layer) is not None:
        return axis if (axis := axis_of(layer)) in (1, -1) else None
    return 1 if _activated(layer) or _channels_first(layer) else None


def _channels_first(layer: nn.Module) -> bool:
    """Whether a kind derived from LayerNorm does over the second axis what LayerNorm does over the last, as timm's LayerNorm2d.

    Measured, on a copy with weights away from their start, for images and for clips.
    """
    if not isinstance(layer, nn.LayerNorm) or len(layer.normalized_shape) != 1 or layer._modules or "forward" in vars(layer):
        return False
    for shape in ((3, 3), (3, 3, 3)):
        copy, x = _shaken(layer, shape)
        with suppress(Exception), torch.no_grad():  # one made for the other takes none of these
            y = nn.LayerNorm.forward(copy, x.movedim(1, -1)).movedim(-1, 1)
            return torch.allclose(copy(x.clone()), y, rtol=1e-3, atol=1e-4)
    return False


def _activated(layer: nn.Module) -> bool:
    """Whether a norm does what the kind it derives from does, and then its own `drop` and `act`, as timm's BatchNormAct2d.

    Measured in both modes, on a copy with weights and statistics away from their start: equal answers, equal statistics.
    """
    kind = next((kind for kind in type(layer).__mro__ if kind in _ACTIVATED), None)
    own = layer._modules.keys() - {"inserted"}
    if kind is None or own != {"drop", "act"} or {"forward", "weight", "bias"} & vars(layer).keys():
        return False
    layer, x = _shaken(layer, _ACTIVATED[kind])
    try:
        return all(_answer(layer, mode, x, None) == _answer(layer, mode, x, kind) for mode in ("eval", "train"))
    except Exception:
        return False


def _shaken(layer: Any, shape: tuple[int, ...]) -> tuple[Any, Tensor]:
    """A copy without hooks, weights and statistics away from their start, and an input (4, c, *shape) for it."""
    layer, rng = copied(layer), generator(0, "activated")
    layer._forward_hooks.clear()
    layer._forward_pre_hooks.clear()
    with torch.no_grad():
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=rng, dtype=torch.float32))
    like = next((t for t in (*layer.parameters(), *layer.buffers()) if t.is_floating_point()), torch.empty(0))
    return layer, (3 * torch.randn(4, _channels(layer), *shape, generator=rng, dtype=torch.float32)).to(like)


def _answer(layer: Any, mode: Any, x: Tensor, kind: Any) -> list[Any]:
    """What a layer, or the kind it derives from with its activation, makes of x, and its statistics afterwards."""
    layer = copied(layer)
    with torch.no_grad(), running(layer, mode), untouched(layer, generator(0, "answer")):
        y = layer(x.clone()) if kind is None else layer.act(layer.drop(kind.forward(layer, x.clone())))
        return [y.tolist(), *(buffer.tolist() for buffer in layer.buffers(recurse=False))]


def _channels(layer: Any) -> int:
    if isinstance(layer, nn.LayerNorm):
        return int(layer.normalized_shape[0])
    return int(layer.num_channels if isinstance(layer, nn.GroupNorm) else layer.num_features)


def take_settings(new: nn.Module, old: nn.Module, norm: Norm) -> None:
    """Give a new layer the old one's momentum and eps, where the norm that made it has them at their default.

    The momentum of statistics that are kept and no longer tracked (`track_running_stats` switched off) is 0.
    """
    options = dataclasses.fields(norm) if dataclasses.is_dataclass(norm) else tuple[Any]()
    default = {option.name for option in options if getattr(norm, option.name) == option.default}
    source = old.active if isinstance(old, Routed) else old
    for layer in new.statistics if isinstance(new, Routed) else (new,):
        same = getattr(layer, "eps_inside", True) == getattr(source, "eps_inside", True)  # added to the same thing
        for name in ("eps", "momentum") if same else ("momentum",):
            known_there = getattr(source, name, None) is not None or name == "momentum"  # RMSNorm's eps may be None
            if name in default and known_there and hasattr(source, name) and hasattr(layer, name):
                setattr(layer, name, getattr(source, name))
        if "momentum" in default and hasattr(layer, "momentum") and _rests(source):
            layer.momentum = 0.0  # type: ignore[assignment]
    if isinstance(new, Routed) and isinstance(old, Routed) and "route" in default and old.route < new.routes:
        new.route = old.route


def _rests(layer: nn.Module) -> bool:
    """Whether torch's layer reads running statistics in evaluation that do not move in training."""
    return not getattr(layer, "track_running_stats", True) and "running" in (reads(layer, training=False) or ())


def adopt(new: nn.Module, old: nn.Module) -> None:
    """Give a new layer what it shares with the old one, and the old one's place: whoever holds the old layer holds the new one.

    So layers that are tied, or kept in a list beside the network's own names, are replaced wherever they are used.
    """
    place = next((t for t in (*old.parameters(), *old.buffers()) if t.is_floating_point()), None)
    if place is not None:
        new.to(device=place.device, dtype=place.dtype)
    _take_statistics(new, old)
    _take_parameters(new, old)
    new.train(old.training)
    if old._modules.keys() >= {"drop", "act"}:  # its activation is inside
        new.register_forward_hook(_then_activate)  # first, so that the old layer's hooks see what they saw
    for name in old._modules.keys() - {"statistics"}:  # what the hooks call; a known layer's forward calls none but routes
        new.add_module(name, old._modules[name])
    for hooks in _HOOKS:
        getattr(new, hooks).update(getattr(old, hooks))
    new._is_full_backward_hook = old._is_full_backward_hook
    old.__class__, old.__dict__ = type(new), new.__dict__


def _take_statistics(new: nn.Module, old: nn.Module) -> None:
    """Give a new layer the running statistics that both know; mark as unknown what it alone tracks."""
    layers = list(new.statistics) if isinstance(new, Routed) else [new]
    sources = [old.active if isinstance(old, Routed) else old] * len(layers)
    if isinstance(old, Routed) and _same_routes(new, old):
        sources = list(old.statistics)
    elif isinstance(old, Routed) and old.routes > 1:
        remark(new, f"routes other than {old.route} dropped")
    for layer, source in zip(layers, sources, strict=True):
        unknown = source.unknown if isinstance(source, StatNorm) else frozenset[str]()
        kept = {name: value for name, value in source.named_buffers(recurse=False) if name not in unknown}
        own = dict(layer.named_buffers(recurse=False))
        shared = {name: value for name, value in kept.items() if name in own and own[name].shape == value.shape}
        layer.load_state_dict(shared, strict=False)
        layer._non_persistent_buffers_set |= source._non_persistent_buffers_set & own.keys()
        dropped = sorted(name for name in kept if name.startswith("running_") and name not in own)
        if isinstance(layer, StatNorm):
            layer.expect_recalibration(layer._spread not in shared, centre=layer._centre not in shared)
        elif dropped:
            remark(new, f"{', '.join(dropped)} dropped")


def _take_parameters(new: Any, old: nn.Module) -> None:
    """Give a new layer the old one's parameters themselves, so that tied ones stay tied; where shapes differ, their values."""
    kept = not isinstance(old, Routed) or _same_routes(new, old)
    for name, parameter in list(new.named_parameters(recurse=False)):
        plain = {"weights": "weight", "biases": "bias"}.get(name, name)
        twin = old._parameters.get(name)
        with torch.enable_grad():  # a route's row says whether it trains
            value = getattr(old, plain, None)
        if kept and twin is not None and twin.shape == parameter.shape:
            new.register_parameter(name, twin)
        elif isinstance(value, Tensor) and value.shape == parameter.shape[-1:]:
            with torch.no_grad():
                parameter.copy_(value.expand_as(parameter))
            parameter.requires_grad_(value.requires_grad)
        elif value is None and hasattr(old, plain) and hasattr(new, "affine"):  # a layer that may go without
            new.register_parameter(name, None)
            new.affine = getattr(new, "weight", None) is not None
    names = {"weights": "weight", "biases": "bias"} if isinstance(old, Routed) else {}
    had = {name for name, value in old._parameters.items() if value is not None}
    if lost := sorted(name for name in had if not hasattr(new, name) and not hasattr(new, names.get(name, name))):
        remark(new, f"{', '.join(lost)} dropped")


def _same_routes(new: nn.Module, old: Routed) -> bool:
    return isinstance(new, Routed) and (new.routes, new.share) == (old.routes, old.share)


def _then_activate(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return module.act(module.drop(y))  # type: ignore[operator]
