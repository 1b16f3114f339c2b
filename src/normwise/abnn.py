"""ABNN: a frozen, pre-trained substitute looks at the same input and delivers statistics to the target network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .modes import running
from .norms.adaptive import AdaptiveNorm, Scope, Source
from .types import Images, Logits


class ABNN(nn.Module):
    """A target with an `AdaptiveNorm` behind each tap, fed with a substitute's features of the very same input.

    Reads pixels of shape (b, c, ...), gives the target's logits. The substitute is frozen and in evaluation mode whatever
    the mode of the rest; gradients in pixels go through both networks. Make one with `abnn`.
    """

    def __init__(self, target: nn.Module, substitute: nn.Module, layers: Mapping[tuple[str, str], AdaptiveNorm]) -> None:
        super().__init__()
        self.target, self.substitute = target, substitute.requires_grad_(False).eval()
        self.taps = list(layers)
        self.layers = nn.ModuleList(layers.values())
        self.through_substitute = True
        self.clean: Tensor | None = None

    def train(self, mode: bool = True) -> ABNN:
        super().train(mode)
        self.substitute.eval()
        return self

    def forward(self, x: Images) -> Logits:
        features = tapped(self.substitute, [there for _, there in self.taps], x if self.clean is None else self.clean)
        if not self.through_substitute:
            features = [h.detach() for h in features]
        changes = {here: _behind(layer, h) for (here, _), layer, h in zip(self.taps, self.layers, features, strict=True)}
        with _hooked(self.target, changes):
            logits: Tensor = self.target(x)
        return logits

    @property
    def alignment(self) -> Tensor:
        """The layers' alignment losses of the last forward in training, summed."""
        return torch.stack([torch.as_tensor(layer.alignment) for layer in self.layers]).sum()


def abnn(
    target: nn.Module,
    substitute: nn.Module,
    x: Images,
    *,
    source: Source = "features",
    scope: Scope = "batch",
    head: str = "pooled",
    taps: Sequence[tuple[str, str]] = (),
) -> ABNN:
    """Return a new network: copies of target and substitute with an `AdaptiveNorm` behind each tap.

    `taps` are pairs of module paths, in the target and in the substitute; without any, the stem and each stage of this
    library's residual networks. `x` is a batch of images (two are enough): one forward tells the sizes.
    `head`: "pooled" or "flattened"; options as in `AdaptiveNorm`.

    Raises ValueError for a network without the taps, or taps that give no features of shape (b, c, ...).
    Source: Lo and Patel 2024, arXiv:2405.11708. Differs: in our residual networks the stem is tapped before its ReLU.
    """
    if head not in ("pooled", "flattened"):
        raise ValueError(f"head is {head!r}; give pooled or flattened")
    target, substitute = copy.deepcopy(target), copy.deepcopy(substitute)
    pairs = list(taps) or list(zip(*_matched(target, substitute), strict=True))
    with running(target, "eval"), running(substitute, "eval"), torch.no_grad():
        here = tapped(target, [one for one, _ in pairs], x)
        there = tapped(substitute, [other for _, other in pairs], x)
    layers = {}
    for pair, z, h in zip(pairs, here, there, strict=True):
        size = h[0].numel() if head == "flattened" else 0
        layers[pair] = AdaptiveNorm(z.shape[1], h.shape[1], source=source, scope=scope, size=size).to(z)
    return ABNN(target, substitute, layers)


def detached(model: ABNN) -> ABNN:
    """A weaker attacker's view, sharing all weights: the gradient does not go through the substitute. To craft on."""
    view = copy.copy(model)
    view.through_substitute = False
    return view


def at_clean(model: ABNN, x: Images) -> ABNN:
    """A weaker attacker's view, sharing all weights: the substitute looks at the clean images `x`, whatever it is given.

    For batches of exactly these rows. A defence evaluated like this would leak the clean statistics.
    """
    view = copy.copy(model)
    view.clean = x
    return view


def tapped(model: nn.Module, paths: Sequence[str], x: Images) -> list[Tensor]:
    """What the modules at these paths put out for x. Raises ValueError for one that is not there or puts out no features."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[[Any], Any]:
        def look(y: Any) -> Any:
            found[path] = y
            return y

        return look

    with _hooked(model, {path: keep(path) for path in dict.fromkeys(paths)}):
        model(x)
    for path in paths:
        y = found.get(path)
        if not isinstance(y, Tensor) or y.ndim < 2 or len(y) != len(x):
            got = "nothing" if y is None else f"{type(y).__name__} {tuple(getattr(y, 'shape', ()))}"
            raise ValueError(
                f"{path} of {type(model).__name__} gives no features to tap: got {got}, expected (b, c, ...); name another module"
            )
    return [found[path] for path in paths]


@contextmanager
def _hooked(model: nn.Module, changes: Mapping[str, Callable[[Any], Any]]) -> Iterator[None]:
    modules = dict(model.named_modules())
    missing = [path for path in changes if path not in modules]
    if missing:
        children = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"{type(model).__name__} has no module {missing[0]!r} to tap; give paths such as its {children}")
    handles = [
        modules[path].register_forward_hook(lambda module, inputs, y, change=change: change(y))
        for path, change in changes.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _behind(layer: nn.Module, h: Tensor) -> Callable[[Any], Any]:
    return lambda z: layer(z, h)


def _matched(target: nn.Module, substitute: nn.Module) -> tuple[list[str], list[str]]:
    found = []
    for model in (target, substitute):
        stages = [name for name, _ in model.named_children() if name.startswith("layer")]
        stem = "conv1" if getattr(model, "preact", False) else "bn1"
        if not stages or not hasattr(model, stem):
            raise ValueError(
                f"{type(model).__name__} has no stem and stages that are known; give taps, pairs of module paths"
            )
        found.append([stem, *stages])
    if len(found[0]) != len(found[1]):
        raise ValueError(
            f"the target has taps {', '.join(found[0])} and the substitute {', '.join(found[1])}; give taps, pairs of module paths"
        )
    return found[0], found[1]
