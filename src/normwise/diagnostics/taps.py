"""What goes into each norm layer: listened to, or given another centre and spread."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.utils._python_dispatch import TorchDispatchMode

from ..norms import sites
from ..norms.site import KNOWN, axis_of
from ..norms.surgery.unmapped import kind_of, norm_paths
from ..seeding import generator
from ..types import Images, Logits
from ..utils.forward import logits_of
from ..utils.model_state import untouched

EPS = 1e-5  # added to variances: a channel that is constant has no scale of its own


class Moments(NamedTuple):
    """Mean and variance of a batch and of each of its rows, as (1 or b, c, 1, ...), and of how many values the batch's are."""

    mean: Tensor
    variance: Tensor
    row_means: Tensor
    row_variances: Tensor
    values: int

    def of(self, rows: bool) -> tuple[Tensor, Tensor]:
        """Mean and variance, of each row or of the batch."""
        return (self.row_means, self.row_variances) if rows else (self.mean, self.variance)


class Layer(NamedTuple):
    """A module that normalizes, and which axis of what goes into it counts channels."""

    module: nn.Module
    axis: int


def layers_of(model: nn.Module, x: Images) -> dict[str, Layer]:
    """The modules that normalize when the model is asked about x, and can be read, by path; a tied one at its first path.

    Of known kinds the class says which axis counts channels: the last of tokens, the second else. Of all others
    it is measured, with an input of the shape that they get; where it cannot be, they are left out.
    """
    found = {}
    for path, (module, given) in _called(model, x).items():
        axis: int | None = axis_of(module)
        if type_before_parametrizations(module) not in KNOWN or "forward" in vars(module):
            axis = _channel_axis(module, sites(model)[path].channels, given)
        if axis is not None:
            found[path] = Layer(module, axis)
    return found


def unread(model: nn.Module, x: Images) -> str:
    """In words, what of the model's normalization cannot be looked into; nothing if all can."""
    seen, called, modules = layers_of(model, x), _called(model, x), dict(model.named_modules())
    names = [path for path in norm_paths(model) if path not in seen and (path in called or path not in sites(model))]
    if names:
        unreadable = ", ".join(f"{path or 'the network itself'} ({kind_of(modules[path])})" for path in names)
        return f"not measured, because these layers cannot be read: {unreadable}"
    if not seen and _computes_norms(model, x):
        return "the network normalizes by functions, or in compiled layers: there is no norm layer to measure"
    return ""


def _called(model: nn.Module, x: Images) -> dict[str, tuple[nn.Module, Tensor]]:
    """The modules at the model's sites that are called, each with what goes into it the first time."""
    first: dict[nn.Module, str] = {}
    for path in sites(model):
        first.setdefault(model.get_submodule(path), path)
    found: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.setdefault(module, _input(args, kwargs)[1])

    with ExitStack() as stack:
        for module in first:
            stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        if first:
            ask(model, x, 0)
    return {path: (module, found[module]) for module, path in first.items() if module in found}


def _channel_axis(module: nn.Module, channels: int, given: Tensor) -> int | None:
    """The axis of a layer's input along which its first weight moves the first place alone; None where there is none.

    Without weights: the only axis that is as long as there are channels.
    """
    if not given.is_floating_point():  # a quantized one
        return None
    noise = torch.randn(given.shape, generator=generator(0, "axis"), dtype=torch.float32).to(given)
    fits = [axis for axis in range(1, given.ndim) if given.shape[axis] == channels]
    with suppress(Exception), torch.no_grad(), untouched(module, generator(0, "axis")):  # it may want more than one input
        plain = module(noise.clone())
        if not isinstance(plain, Tensor) or plain.shape != given.shape:
            return None
        weight = module._parameters.get("weight")
        if weight is not None and len(weight) == channels:
            one, two = torch.ones_like(weight), torch.ones_like(weight)
            two[0] = 2
            answers = [functional_call(module, {"weight": value}, (noise.clone(),)) for value in (one, two)]
            moved = answers[0] != answers[1]
            fits = [axis for axis in fits if moved.any() and not moved.narrow(axis, 1, channels - 1).any()]
        return fits[0] if len(fits) == 1 else None
    return None


def _computes_norms(model: nn.Module, x: Images) -> bool:
    class Names(TorchDispatchMode):
        found = False

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.found |= re.search("(batch|layer|group|rms|instance)_norm", str(func)) is not None
            return func(*args, **(kwargs or {}))

    with Names() as names:
        ask(model, x, 0)
    return names.found


def _input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, Tensor]:
    """The first tensor that a module was called with, and its name if it has one."""
    named = [("", one) for one in args] + list(kwargs.items())
    return next((name, one) for name, one in named if isinstance(one, Tensor))


@contextmanager
def heard(layers: Mapping[str, Layer], hear: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `hear(path, x)` with what goes into each layer, as (b, c, ...); what it returns goes in instead."""

    def hook_at(path: str, axis: int) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            name, given = _input(args, kwargs)
            instead = hear(path, given.movedim(axis, 1))
            if instead is None:
                return None
            back = instead.movedim(1, axis)
            return (args, kwargs | {name: back}) if name else ((back, *args[1:]), kwargs)

        return hook

    with ExitStack() as stack:
        for path, (module, axis) in layers.items():
            stack.callback(module.register_forward_pre_hook(hook_at(path, axis), with_kwargs=True).remove)
        yield


def ask(model: nn.Module, x: Images, seed: int) -> Logits:
    """What the model answers, without a graph; one seed, one answer, whatever the model draws or changes.

    Of a compiled network the layers themselves are run: hooks would not be heard in what was compiled without them.
    """
    compiled = any(module._compiled_call_impl or hasattr(module, "_orig_mod") for module in model.modules())
    eagerly = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    with eagerly, torch.no_grad(), untouched(model, generator(seed, "ask")):
        return logits_of(model, x)


def moments(model: nn.Module, layers: Mapping[str, Layer], x: Images, seed: int) -> dict[str, list[Moments]]:
    """Moments of what goes into each layer, for each time that it is called."""
    found: dict[str, list[Moments]] = {path: [] for path in layers}

    def note(path: str, h: Tensor) -> None:
        found[path].append(_moments(h))

    with heard(layers, note):
        ask(model, x, seed)
    return found


def with_moments(
    model: nn.Module,
    layers: Mapping[str, Layer],
    wanted: Mapping[str, list[Moments]],
    x: Images,
    seed: int,
    rows: bool = False,
) -> Logits:
    """What the model answers when the input of each of these layers is moved and scaled to the wanted moments.

    `rows`: each row to its own, not the batch to the batch's.
    """
    calls = {path: iter(wanted[path]) for path in layers}

    def move(path: str, h: Tensor) -> Tensor:
        mean, variance = _moments(h).of(rows)
        centre, spread = next(calls[path]).of(rows)
        return ((h - mean) * ((spread + EPS) / (variance + EPS)).sqrt() + centre).to(h.dtype)

    with heard(layers, move):
        return ask(model, x, seed)


def _moments(h: Tensor) -> Moments:
    inner = list(range(2, h.ndim))
    variance, mean = torch.var_mean(h.float(), [0, *inner], correction=0, keepdim=True)
    row_variance, row_mean = torch.zeros_like(h.float()), h.float()
    if inner:
        row_variance, row_mean = torch.var_mean(row_mean, inner, correction=0, keepdim=True)
    return Moments(mean, variance, row_mean, row_variance, h.numel() // h.shape[1])
