"""What goes into each norm layer: listened to, or given another centre and spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..modes import untouched
from ..norms import sites
from ..seeding import generator
from ..types import Images, Logits

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


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that normalize, by path; a module tied to several paths is listed at its first."""
    first: dict[nn.Module, str] = {}
    for path in sites(model):
        first.setdefault(model.get_submodule(path), path)
    return {path: module for module, path in first.items()}


def channel_axis(module: nn.Module, x: Tensor) -> int:
    """Which axis of a norm layer's input or output counts channels: the second, but for LayerNorm's own first."""
    return x.ndim - len(module.normalized_shape) if isinstance(module, nn.LayerNorm) else 1


@contextmanager
def heard(layers: Mapping[str, nn.Module], hear: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `hear(path, x)` with what goes into each layer, as (b, c, ...); what it returns goes in instead."""

    def hook(path: str) -> Callable[..., tuple[Tensor, ...] | None]:
        def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            axis = channel_axis(module, inputs[0])
            instead = hear(path, inputs[0].movedim(axis, 1))
            return None if instead is None else (instead.movedim(1, axis), *inputs[1:])

        return look

    hooks = [layer.register_forward_pre_hook(hook(path)) for path, layer in layers.items()]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def ask(model: nn.Module, x: Images, seed: int) -> Logits:
    """What the model answers, without a graph; one seed, one answer, whatever the model draws or changes."""
    with torch.no_grad(), untouched(model, generator(seed, "ask")):
        return model(x)


def moments(model: nn.Module, layers: Mapping[str, nn.Module], x: Images, seed: int) -> dict[str, list[Moments]]:
    """Moments of what goes into each layer, for each time that it is called."""
    found: dict[str, list[Moments]] = {path: [] for path in layers}

    def note(path: str, h: Tensor) -> None:
        found[path].append(_moments(h))

    with heard(layers, note):
        ask(model, x, seed)
    return found


def with_moments(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
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
