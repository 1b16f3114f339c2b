"""What layers share that put a bounded function in a norm's place."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from .free import ChannelAffine


class Bounded(ChannelAffine):
    """y = weight * f(alpha x) + bias, f bounded and alpha one number per layer, for x (b, c, ...), or (b, ..., c) with `axis` -1.

    It reads nothing but x itself.
    """

    def __init__(self, channels: int, alpha: float = 0.5, *, axis: int = 1) -> None:
        super().__init__(channels, axis=axis)
        self.alpha = nn.Parameter(torch.full((1,), alpha))

    def forward(self, input: Tensor) -> Tensor:
        return self.affine(self.squash(self.inner(input))).to(input.dtype)

    def inner(self, x: Tensor) -> Tensor:
        """What goes into the bounded function."""
        return self.alpha * x

    @abstractmethod
    def squash(self, z: Tensor) -> Tensor:
        """The bounded function."""

    @abstractmethod
    def slope(self, z: Tensor) -> Tensor:
        """Its derivative, as a share of the largest one, 0 to 1."""

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, axis={self.axis}"


def bounded(model: nn.Module) -> dict[str, Bounded]:
    """The layers of a model that put a bounded function in a norm's place, by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Bounded)}


@contextmanager
def observed(model: nn.Module) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """While the model is asked: of each bounded layer, by path and call, what goes into its function, and what the layer answers."""
    layers = bounded(model)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in layers}

    def note(path: str) -> Callable[..., None]:
        return lambda layer, given, y: found[path].append((layer.inner(given[0].detach()).detach(), y))

    with ExitStack() as stack:
        for path, layer in layers.items():
            stack.callback(layer.register_forward_hook(note(path)).remove)
        yield found
