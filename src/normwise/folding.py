"""Fold norms into the convolutions before them: the same function in evaluation, with fewer operations."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from .limits import norm_paths, refuse_lazy, remark
from .modes import untouched
from .norms.adaptive import AdaptiveNorm
from .norms.free import ChannelAffine
from .norms.layer import StatNorm
from .norms.robust import RobustNorm1d, RobustNorm2d, RobustNorm3d
from .norms.site import reads
from .seeding import generator

# Exact types: a subclass may compute something else.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OURS = (StatNorm, RobustNorm1d, RobustNorm2d, RobustNorm3d, ChannelAffine)
_PLAIN = (nn.Linear, nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh)
_ROW_BY_ROW = (*_PLAIN, nn.BatchNorm1d, StatNorm, RobustNorm1d, ChannelAffine)


class _Tracer(fx.Tracer):
    """Sees norms as single operations, adaptive ones too."""

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return reads(module) is not None or isinstance(module, AdaptiveNorm) or super().is_leaf_module(module, path)


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of the model, for evaluation, with every norm that may be folded folded.

    A norm may be folded if it is torch's BatchNorm or ours of any measure, its centre and divisor are fixed in evaluation
    (running statistics, or none), and the layer before it is a convolution, or a linear layer behind a flattening (where more
    than two dimensions may come, the norm's channels are not the linear layer's), that nothing else reads; neither of them
    tied, hooked or parametrized. What cannot be traced or folded stays as it is: `unmapped` says which norms, and why. The
    copy shares nothing with the model given.

    Raises ValueError for a model with a lazy layer that has seen no batch.
    """
    refuse_lazy(model)
    model = copy.deepcopy(model).eval()
    why = "no convolution before it that it alone reads"
    try:
        with untouched(model, generator(0, "fold")):  # what does not depend on the input runs for real
            graph = _Tracer().trace(model)
    except Exception:  # control flow that depends on the data: nothing is known of the order of layers
        why = "the network cannot be traced"
    else:
        _fold(model, graph)
    for path in norm_paths(model):
        norm = model.get_submodule(path)
        remark(norm, f"not folded: {_varies(norm) or why}")
    return model


def _fold(model: nn.Module, graph: fx.Graph) -> None:
    modules = dict(model.named_modules())
    calls: dict[nn.Module, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(modules[node.target], []).append(node)
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if norm is not None and node.args else None
        layer = modules.get(str(before.target)) if isinstance(before, fx.Node) and before.op == "call_module" else None
        if not isinstance(before, fx.Node) or norm is None or layer is None or _varies(norm):
            continue
        if len(before.users) > 1 or len(calls[norm]) > 1 or len(calls[layer]) > 1 or _watched(norm) or _watched(layer):
            continue  # an output that is read elsewhere too, tied layers, hooks
        folds = type(layer) in _CONVOLUTIONS or (type(layer) is nn.Linear and _flat(before, modules))
        if folds and len(layer.weight) == len(_numbers(norm)[0]):
            _fuse(layer, norm)
            _replace(model, str(node.target), nn.Identity())


def _varies(norm: nn.Module) -> str:
    """Why a layer is not known to be a fixed map of each channel; nothing if it is."""
    varying = sorted((reads(norm) or frozenset()) - {"running", "none"})
    if varying:
        return f"it reads the {' and the '.join(varying)}"
    if isinstance(norm, StatNorm) and norm.unknown:
        return f"{' and '.join(sorted(norm.unknown))} unknown"
    return "" if type(norm) in (*_TORCHS, *_OURS) else f"of kind {type(norm).__name__}"


def _flat(node: Any, modules: dict[str, nn.Module]) -> bool:
    """Whether what a node gives is known to have two dimensions: flattened from the second on, and since then row by row."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_module":
        module = modules[str(node.target)]
        if _watched(module):
            return False
        if type(module) is nn.Flatten:
            return (module.start_dim, module.end_dim) == (1, -1)
        return type(module) in _ROW_BY_ROW and _flat(node.args[0], modules)
    options = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
    return node.target in (torch.flatten, "flatten") and options in ({"start_dim": 1}, {"start_dim": 1, "end_dim": -1})


def _watched(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or torch.nn.utils.parametrize.is_parametrized(module)


def _numbers(norm: Any) -> tuple[Any, ...]:
    """Mean, variance, eps, scale and shift of the BatchNorm that does what the norm does."""
    if isinstance(norm, ChannelAffine):
        return torch.zeros_like(norm.weight), torch.ones_like(norm.weight), 0.0, norm.weight, norm.bias
    if isinstance(norm, StatNorm) and not norm._is_batchnorm:
        centre, scale = norm.at_rest()
        return centre, torch.ones_like(centre), 0.0, scale, norm.bias
    return norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias


def _fuse(layer: Any, norm: nn.Module) -> None:
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    with torch.no_grad():
        layer.weight, layer.bias = fuse(layer.weight, layer.bias, *_numbers(norm))


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    model.get_submodule(parent)._modules[child] = new
