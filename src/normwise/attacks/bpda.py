"""Gradients where a layer gives none: the same answers, another way back (BPDA)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..registry import unknown
from ..utils.model_state import copied


def straight_through(model: nn.Module, layers: Mapping[str, Callable[[Tensor], Tensor] | None]) -> nn.Module:
    """Return a copy of the model whose named layers answer as before, to the bit, and pass gradients of something else back.

    `layers` maps a module's path to a differentiable stand-in of the layer, (b, ...) to the shape of the layer's own answer;
    None stands for the identity. A layer that the model holds under several names is meant by any of them. Give the copy to
    `evaluate` as `craft_on`: success is checked on the model itself.

    Raises ValueError for a path that the model does not have, for two stand-ins of one layer, and at the first forward for a
    stand-in of another shape.
    Source: Athalye et al. 2018, arXiv:1802.00420, sec. 4.1.

    >>> crafted_on = straight_through(model, {"norm": None})
    """
    model = copied(model)
    paths = dict(model.named_modules(remove_duplicate=False))
    slots = [(parent, name, child) for parent in model.modules() for name, child in parent._modules.items()]
    stand_ins: dict[nn.Module, Callable[[Tensor], Tensor] | None] = {}
    for path, stand_in in layers.items():
        if path not in paths or not path:
            raise unknown("layer", path, [name for name in paths if name])
        if stand_ins.setdefault(paths[path], stand_in) is not stand_in:
            raise ValueError(f"layer {path!r} has another name too, with another stand-in; give one of them")
    for layer, stand_in in stand_ins.items():
        wrapped = _StraightThrough(layer, stand_in)
        for parent, name, child in slots:
            if child is layer:
                parent._modules[name] = wrapped
    return model


class _StraightThrough(nn.Module):
    def __init__(self, layer: nn.Module, stand_in: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.layer = layer
        self.stand_in = stand_in if stand_in is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            answer = self.layer(x.clone())  # it may write into its input
        way_back = self.stand_in(x)
        if way_back.shape != answer.shape:
            raise ValueError(
                f"the layer answers {tuple(answer.shape)}, its stand-in {tuple(way_back.shape)}; give one that answers alike"
            )
        passed: Tensor = Pass.apply(answer, way_back)
        return passed


class Pass(torch.autograd.Function):
    """The first tensor forward, the second one's gradient back."""

    @staticmethod
    def forward(ctx: Any, answer: Tensor, way_back: Tensor) -> Tensor:
        return answer.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        return None, grad
