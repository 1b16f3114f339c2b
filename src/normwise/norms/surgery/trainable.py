"""What of a network may train: everything, or the norms' scale and shift, or the controls for that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ...seeding import generator
from ...utils.model_state import copied, frozen, refuse_lazy, running
from ..adaptive import AdaptiveNorm
from ..site import sites
from .unmapped import hidden

Trains = Literal["all", "affine", "scale", "shift", "affine+head", "head", "subset"]


def only(model: nn.Module, what: Trains, *, first: int = 0, last: int = 0) -> nn.Module:
    """Return a copy of the model in which only this may train; all else is frozen, whatever the optimizer does.

    "affine": scale and shift of the norms; "scale" or "shift" alone; "head": the last linear layer; "affine+head": both;
    "subset": as many single weights of convolutions and linear layers as the norms have scales and shifts, drawn at random
    (the same for equal shapes); "all". `first` and `last`: of the norms, only so many from the input and the output side.
    Frozen modules still track running statistics in training mode: see `frozen_statistics`. A frozen substitute counts for
    nothing here: its norms and layers are neither opened nor drawn from.

    Raises ValueError as `check_part` does, where the model has nothing of what may train, or for a lazy layer that has seen
    no batch.

    Source: Walter et al. 2022, arXiv:2204.12393 (norms alone); Frankle et al. 2021, arXiv:2003.00152 (norms and head, and
    the random subset of equal size as its control).
    """
    check_part(what, first, last)
    refuse_lazy(model)
    model = copied(model)
    for part in frozen(model):
        part.requires_grad_(False)
    if what == "all":
        return model
    norms = _norms(model)
    if first or last:
        norms = list(dict.fromkeys(norms[:first] + (norms[-last:] if last else [])))
    affine = [(name, p) for norm in norms for name, p in norm.named_parameters()]
    maps = {inner for module in model.modules() if isinstance(module, AdaptiveNorm) for inner in module.modules()}
    heads = [module for module in _own(model) if isinstance(module, nn.Linear) and module not in maps]
    parts: dict[str, list[Tensor]] = {
        "affine": [p for _, p in affine],
        "scale": [p for name, p in affine if name.startswith("weight")],
        "shift": [p for name, p in affine if name.startswith("bias")],
        "head": list(heads[-1].parameters()) if heads else [],
        "subset": [],  # drawn below
    }
    chosen = [p for part in what.split("+") for p in parts[part]]
    if what != "subset" and not chosen:
        raise ValueError(
            f"{type(model).__name__} has nothing that {what!r} lets train; it has {len(norms)} norms with parameters{hidden(model)}"
        )
    for parameter in model.parameters():  # scripted networks have no requires_grad_
        parameter.requires_grad_(False)
    if what == "subset":
        _open_subset(model, sum(p.numel() for _, p in affine))
    for p in chosen:
        p.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_with_gradient)
    return model


def check_part(what: Trains, first: int, last: int) -> None:
    """Refuse what cannot be asked of `only`. Raises ValueError for an unknown word, a negative count, or a count of no use."""
    if what not in get_args(Trains):
        raise ValueError(f"what may train is {what!r}; give one of {', '.join(get_args(Trains))}")
    if first < 0 or last < 0:
        raise ValueError(f"first is {first} and last {last}; they count norms: give whole numbers >= 0")
    if what in ("all", "head") and (first or last):
        raise ValueError(
            f"first is {first} and last {last}, which choose among norms, and {what!r} trains whatever the norms are; "
            "let 'affine' (or 'scale', 'shift', 'affine+head', 'subset') train, or leave first and last out"
        )


def _own(model: nn.Module) -> list[nn.Module]:
    """The modules of a model, but for a frozen substitute's."""
    fixed = frozen(model)
    return [module for module in model.modules() if module not in fixed]


def _norms(model: nn.Module) -> list[nn.Module]:
    """The norms of a model in their order, each once, but for a frozen substitute's."""
    fixed = frozen(model)
    return [norm for norm in dict.fromkeys(map(model.get_submodule, sites(model))) if norm not in fixed]


def _with_gradient(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let the input of a group norm behind frozen layers have a gradient.

    Without one, torch (2.13, CPU, channels_last) writes the gradient to nowhere and ends the process.
    """
    x, trains = inputs[0], any(p.requires_grad for p in module.parameters())
    return (x.detach().requires_grad_(),) if trains and torch.is_grad_enabled() and not x.requires_grad else inputs


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[nn.Module]:
    """Run the norms in evaluation for a while, so that running statistics are read and not moved, while the rest trains."""
    norms = {model.get_submodule(path) for path in sites(model)}
    norms |= {module for module in model.modules() if isinstance(module, AdaptiveNorm)}
    with ExitStack() as stack:
        for norm in norms:
            stack.enter_context(running(norm, "eval"))
        yield model


def shuffled(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of the model whose convolutions have their own weights in random order: their distribution, no features.

    A frozen substitute keeps its own. Raises ValueError for weights that are computed (pruned, parametrized).
    """
    model, rng = copied(model), generator(seed, "shuffled")
    with torch.no_grad():
        for module in _own(model):
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
                check_plain(module)
                flat = module.weight.flatten().cpu()
                module.weight.copy_(flat[torch.randperm(len(flat), generator=rng)].view_as(module.weight))
    return model


def redrawn_scales(model: nn.Module, seed: int = 0) -> nn.Module:
    """Return a copy of the model whose norms have scales from U(0, 1) and shifts of 0 (Frankle et al. 2021, sec. 3).

    A frozen substitute keeps its own. Raises ValueError for weights that are computed (pruned, parametrized).
    """
    model, rng = copied(model), generator(seed, "scales")
    with torch.no_grad():
        for norm in _norms(model):
            check_plain(norm)
            for name, p in norm.named_parameters(recurse=False):
                p.copy_(
                    torch.rand(p.shape, generator=rng, dtype=torch.float32)
                    if name.startswith("weight")
                    else torch.zeros(p.shape)
                )
    return model


def check_plain(layer: nn.Module) -> None:
    """Raise ValueError for a layer whose weight is computed in every pass: what is written into it would be lost."""
    if parametrize.is_parametrized(layer) or "weight" in vars(layer):
        raise ValueError(
            f"the weight of a {parametrize.type_before_parametrizations(layer).__name__} is computed (pruned or parametrized), so "
            "that it cannot be set; make it plain first, with prune.remove or remove_parametrizations"
        )


class _Some(nn.Module):
    """A weight of which a few entries may train: a parametrization of `weight`."""

    index: Tensor
    frozen: Tensor

    def __init__(self, frozen: Tensor, index: Tensor) -> None:
        super().__init__()
        self.register_buffer("frozen", frozen.detach().clone())
        self.register_buffer("index", index)

    def forward(self, values: Tensor) -> Tensor:
        return self.frozen.flatten().index_put((self.index,), values).view_as(self.frozen)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight.flatten()[self.index]


def _open_subset(model: nn.Module, count: int) -> None:
    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
    layers = [
        m for m in _own(model) if isinstance(m, kinds) and "weight" not in vars(m)
    ]  # those of pruned layers are computed
    sizes = [layer.weight.numel() for layer in layers]
    if not 0 < count <= sum(sizes):
        raise ValueError(f"a subset of {count} weights cannot be drawn from {sum(sizes)}; the model needs norms and weights")
    drawn = torch.randperm(sum(sizes), generator=generator(0, "subset"))[:count].sort().values
    for layer, size, end in zip(layers, sizes, torch.tensor(sizes).cumsum(0).tolist(), strict=True):
        mine = drawn[(drawn >= end - size) & (drawn < end)] - (end - size)
        if len(mine):
            frozen = layer.weight
            parametrize.register_parametrization(layer, "weight", _Some(frozen, mine.to(frozen.device)))
            layer.parametrizations.weight.original.requires_grad_(True)  # type: ignore[union-attr]


def materialized(model: nn.Module) -> nn.Module:
    """Return the model with plain weights where a subset trained: itself, or a copy if it has such weights.

    Other parametrizations (weight or spectral norm) belong to the network and stay.
    """
    if not any(map(_opened, model.modules())):
        return model
    model = copied(model)
    for module in [m for m in model.modules() if _opened(m)]:
        values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
        del module.parametrizations
        module.__class__ = parametrize.type_before_parametrizations(
            module
        )  # the copy's alone: torch's removal edits the class
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value))
    return model


def _opened(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module, "weight") and isinstance(module.parametrizations.weight[0], _Some)  # type: ignore[union-attr, index]
