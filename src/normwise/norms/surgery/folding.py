"""Fold norms into the convolutions before them: the same function in evaluation, with fewer operations."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights
from torch.nn.utils.parametrize import is_parametrized
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ...seeding import generator
from ...utils.model_state import copied, refuse_lazy, set_mode, untouched
from ..adaptive import AdaptiveNorm
from ..batchrenorm import BatchRenorm
from ..free import ChannelAffine
from ..layer import StatNorm
from ..robust import RobustNorm1d, RobustNorm2d, RobustNorm3d
from ..site import axis_of, known, reads
from .unmapped import REMARKS, kind_of, norm_paths, remark

ALONE = "no convolution before it that it alone reads"
# Exact types: a subclass may compute something else.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_OURS = (StatNorm, BatchRenorm, RobustNorm1d, RobustNorm2d, RobustNorm3d, ChannelAffine)
_PLAIN = (nn.Linear, nn.Identity, nn.Dropout, nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh)
_ROW_BY_ROW = (*_PLAIN, nn.BatchNorm1d, StatNorm, RobustNorm1d, ChannelAffine)


class _Tracer(fx.Tracer):
    """Sees norms as single operations, adaptive ones too, and notes how each was found when it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.varied: dict[nn.Module, str] = {}

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return reads(module) is not None or isinstance(module, AdaptiveNorm) or super().is_leaf_module(module, path)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if reads(m) is not None and (why := _varies(m)):
            self.varied[m] = why
        return super().call_module(m, forward, args, kwargs)


class _Touched(TorchDispatchMode):
    """Notes which tensors take part in what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.storages = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        flat = tree_leaves((args, kwargs))
        self.storages |= {_storage(one) for one in flat if isinstance(one, Tensor)}
        return func(*args, **(kwargs or {}))


def fold(model: nn.Module) -> nn.Module:
    """Return a copy of the model, for evaluation, with every norm that may be folded folded.

    A norm may be folded if it is torch's BatchNorm or ours of any measure, its centre and divisor are fixed in evaluation
    (running statistics, or none), and the layer before it is a convolution, or a linear layer behind a flattening (where
    more than two dimensions may come, the norm's channels are not the linear layer's), that nothing else reads; neither of
    them tied, hooked or parametrized, and no weight or statistic of theirs read by name. What cannot be traced or folded
    stays as it is: `unmapped` says which norms, and why. The copy shares nothing with the model given.

    Raises ValueError for a model with a lazy layer that has seen no batch, and for one that cannot be copied.
    """
    refuse_lazy(model)
    model = set_mode(copied(model), "eval")
    why = _fold(model)
    modules = dict(model.named_modules())
    for path in norm_paths(model):
        norm = modules[path]
        remark(norm, f"not folded: {why.get(norm) or _varies(norm) or why.get(model, ALONE)}")
    return model


def _fold(model: nn.Module) -> dict[nn.Module, str]:
    """Fold what may be folded, in place; returns why norms were left, and under the model itself what holds for all of them."""
    sketch = copied(model)  # tracing leaves its traces: what a forward keeps, counts or calls off
    twins = dict(zip(sketch.modules(), model.modules(), strict=True))
    tracer, touched, why = _Tracer(), _Touched(), dict[nn.Module, str]()
    try:
        if _watched(sketch):
            raise TypeError("tracing passes by what is hooked to the network itself")
        with untouched(sketch, generator(0, "fold")):  # what does not depend on the input runs for real
            with touched:
                graph = tracer.trace(sketch)
            named = {node: _value(sketch, node) for node in graph.nodes if node.op == "get_attr"}
            asked = touched.storages | {_storage(one) for one in named.values() if isinstance(one, Tensor)}
            used = {one for node, one in named.items() if not all(map(_asks, node.users))}
            read = touched.storages | {_storage(one) for one in used if isinstance(one, Tensor)}
            of = {module: set(map(_storage, _tensors(module))) for module in sketch.modules()}
    except Exception:  # control flow that depends on the data: nothing is known of the order of layers
        return {model: "the network cannot be traced"}
    modules = dict(sketch.named_modules())
    calls: dict[nn.Module, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls.setdefault(modules[node.target], []).append(node)
    held = {module for leaf in calls for module in _held(leaf)}
    for node in graph.nodes:
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        before = node.args[0] if norm is not None and node.args else None
        layer = modules.get(str(before.target)) if isinstance(before, fx.Node) and before.op == "call_module" else None
        if not isinstance(before, fx.Node) or norm is None or layer is None or _varies(norm):
            continue
        if len(before.users) > 1 or len(calls[norm]) > 1 or len(calls[layer]) > 1 or _watched(norm) or _watched(layer):
            continue  # an output that is read elsewhere too, tied layers, hooks
        folds = type(layer) in _CONVOLUTIONS or (type(layer) is nn.Linear and _flat(before, modules))
        if not folds or len(layer.weight) != len(_numbers(norm)[0]):
            continue
        if norm in tracer.varied:
            why[twins[norm]] = tracer.varied[norm]
        elif of[norm] & asked or of[layer] & read:  # what stands in the norm's place has no numbers at all
            why[twins[norm]] = "its numbers, or those of the layer before it, are read by name too"
        elif {norm, layer} & held:
            why[twins[norm]] = "another layer holds it, or the layer before it"
        else:
            _fuse(twins[layer], twins[norm])
    return why


def _asks(node: fx.Node) -> bool:
    """Whether a node asks a tensor for what its numbers do not change."""
    return node.target is getattr and node.args[1] in ("dtype", "device", "shape", "ndim")


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _value(model: nn.Module, node: fx.Node) -> Any:
    return attrgetter(str(node.target))(model)


def _held(leaf: nn.Module) -> set[nn.Module]:
    """The modules that a single operation of the graph may use unseen: those within it, and those that it keeps in other ways."""
    kept = [value for inner in leaf.modules() for name, value in vars(inner).items() if name != "_modules"]
    found = {one for one in tree_leaves(kept) if isinstance(one, nn.Module)}
    return set(leaf.modules()) - {leaf} | {inner for one in found for inner in one.modules()}


def _varies(norm: nn.Module) -> str:
    """Why a layer is not known to be a fixed map of each channel; nothing if it is."""
    varying = sorted((reads(norm) or frozenset()) - {"running", "none"})
    if varying:
        return f"it reads the {' and the '.join(varying)}"
    if axis_of(norm) != 1:
        return "its channels are last"
    if isinstance(norm, StatNorm) and norm.unknown:
        return f"{' and '.join(sorted(norm.unknown))} unknown"
    return "" if known(norm) in (*_TORCHS, *_OURS) else f"of kind {kind_of(norm)}"


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
    return any(hooks) or is_parametrized(module) or "forward" in vars(module)


def _numbers(norm: Any) -> tuple[Any, ...]:
    """Mean, variance, eps, scale and shift of the BatchNorm that does what the norm does."""
    if isinstance(norm, ChannelAffine):
        return torch.zeros_like(norm.weight), torch.ones_like(norm.weight), 0.0, norm.weight, norm.bias
    if isinstance(norm, StatNorm) and not norm._is_batchnorm:
        centre, scale = norm.evaluation_affine()
        return centre, torch.ones_like(centre), 0.0, scale, norm.bias
    return norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias


def _fuse(layer: Any, norm: Any) -> None:
    """Give the layer the norm's work; whoever holds the norm then holds an identity."""
    fuse = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
    with torch.no_grad():
        layer.weight, layer.bias = fuse(layer.weight, layer.bias, *_numbers(norm))
    kept = {name: value for name, value in vars(norm).items() if name[0] != "_" and name != REMARKS}  # its eps, its channels
    norm.__class__, norm.__dict__ = nn.Identity, kept | vars(nn.Identity().eval())
