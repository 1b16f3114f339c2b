"""What a layer takes over from the one it replaces: settings, statistics, parameters, hooks."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .limits import remark
from .norms.layer import StatNorm
from .norms.routed import Routed
from .types import Norm

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
    "_load_state_dict_post_hooks",
)


def take_settings(new: nn.Module, old: nn.Module, norm: Norm) -> None:
    """Give a new layer the old one's momentum and eps, where the norm that made it has them at their default."""
    options = dataclasses.fields(norm) if dataclasses.is_dataclass(norm) else tuple[Any]()
    default = {option.name for option in options if getattr(norm, option.name) == option.default}
    source = old.active if isinstance(old, Routed) else old
    for layer in new.statistics if isinstance(new, Routed) else (new,):
        same = getattr(layer, "eps_inside", True) == getattr(source, "eps_inside", True)  # added to the same thing
        for name in ("eps", "momentum") if same else ("momentum",):
            if name in default and hasattr(source, name) and hasattr(layer, name):
                setattr(layer, name, getattr(source, name))
    if isinstance(new, Routed) and isinstance(old, Routed) and "route" in default and old.route < new.routes:
        new.route = old.route


def adopt(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give a new layer what it shares with the old one."""
    place = next((t for t in (*old.parameters(), *old.buffers()) if t.is_floating_point()), None)
    if place is not None:
        new.to(device=place.device, dtype=place.dtype)
    _take_statistics(new, old)
    _take_parameters(new, old)
    new.train(old.training)
    if isinstance(old, _BatchNorm | nn.GroupNorm) and hasattr(old, "act") and hasattr(old, "drop"):  # timm's, activated
        new.register_forward_hook(_then_activate)  # first, so that the old layer's hooks see what they saw
    for name in ("drop", "act", "inserted"):  # what the hooks call
        if name in old._modules:
            new.add_module(name, old._modules[name])
    for hooks in _HOOKS:
        getattr(new, hooks).update(getattr(old, hooks))
    new._is_full_backward_hook = old._is_full_backward_hook
    loading: dict[int, Any] = old._load_state_dict_pre_hooks
    for key, hook in loading.items():  # these know their module
        new._load_state_dict_pre_hooks[key] = type(hook)(hook.hook, new if hook.with_module else None)
    return new


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
        known = {name: value for name, value in source.named_buffers(recurse=False) if name not in unknown}
        own = dict(layer.named_buffers(recurse=False))
        shared = {name: value for name, value in known.items() if name in own and own[name].shape == value.shape}
        layer.load_state_dict(shared, strict=False)
        dropped = sorted(name for name in known if name.startswith("running_") and name not in own)
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


def _same_routes(new: nn.Module, old: Routed) -> bool:
    return isinstance(new, Routed) and (new.routes, new.share) == (old.routes, old.share)


def _then_activate(module: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return module.act(module.drop(y))  # type: ignore[operator]
