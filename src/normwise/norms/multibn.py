"""MultiBN: a route for each type of attack, and a detector that shares each image out between the routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from ..seeding import derive, drawing
from ..types import Images, Site
from .routed import Routed


class Detector(nn.Module):
    """Logits (b, types) that say how likely an image (b, c, h, w), or a clip (b, c, t, h, w), is of each type.

    Three convolutions without a norm and the mean over the picture; of a clip, also over its frames. Each row is answered by
    itself.
    """

    def __init__(self, channels: int, types: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.types = nn.Conv2d(2 * width, types, 1)  # the last linear layer of the network stays its own

    def forward(self, x: Images) -> Tensor:
        if x.ndim not in (4, 5):
            raise ValueError(
                f"the detector of multibn reads images or clips; got {tuple(x.shape)}; give (b, c, h, w) or (b, c, t, h, w)"
            )
        frames = x.shape[2] if x.ndim == 5 else 1
        pictures = x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x
        y = F.relu(self.conv1(pictures - 0.5))
        y = F.relu(self.conv3(F.relu(self.conv2(y)))).mean((2, 3), keepdim=True)
        found: Tensor = self.types(y).flatten(1)
        return found.unflatten(0, (-1, frames)).mean(1)


@dataclass(frozen=True, kw_only=True)
class MultiBN:
    """BatchNorm with a route for clean images, route 0, and one for each type of attack; a detector weights the routes, row by row.

        y = sum over routes r of p_r(x) * (weight_r * normalized_r + bias_r),   p = softmax(detector(x))

    The detector reads the same pixels as the network and is part of it (`model.detector`), and so attacks go through both.
    `routed(model, r)` and `on_route(model, r)` take one route and ask no detector. Who chooses so by the attack is an
    oracle: no defence that can be used.

    Options
        kinds       types of attack, which the recipe `multibn` trains: some of linf, l2, multav, roa, af, spa
        eps         added to the variance
        momentum    weight of a new batch in the running statistics

    Source: Lo and Patel 2021, arXiv:2009.05244. Differs: the detector is small and its probabilities weight the routes,
    where theirs takes the likeliest one, through which no gradient flows.
    """

    name: ClassVar[str] = "multibn"
    label: ClassVar[str] = "MultiBN"

    kinds: tuple[str, ...] = ("linf", "roa")
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("multibn has a route for each type of attack; kinds are none; give some, such as linf and roa")

    def __call__(self, site: Site) -> nn.Module:
        layer = Routed(site.channels, routes=1 + len(self.kinds), eps=self.eps, momentum=self.momentum, axis=site.axis)
        layer.kinds = self.kinds
        return layer

    def finish(self, model: nn.Module) -> None:
        """Give a network a detector, in place; it draws nothing from the global random state.

        Its channels are those of the first convolution. A network without one gets no detector, and takes route 0. It stands
        in the module that holds it and all the layers, below what only looks at frames or standardizes. Raises ValueError
        where that is a bare nn.Sequential.
        """
        first = next((module for module in model.modules() if isinstance(module, _ConvNd)), None)
        if first is None:
            return
        model = _holder(model, first)
        old, types = getattr(model, "detector", None), 1 + len(self.kinds)
        if isinstance(old, Detector) and old.types.out_channels == types:
            return
        if not isinstance(old, Detector):
            model.register_forward_pre_hook(_share)
            model.register_forward_hook(_forget, always_call=True)
        with drawing(derive(0, "detector")):
            detector = Detector(first.in_channels, types).train(model.training)
        model.detector = detector.to(first.weight.device, first.weight.dtype)


def _holder(model: nn.Module, first: nn.Module) -> nn.Module:
    """The innermost module, no nn.Sequential, that holds all routed layers and the first convolution. Raises ValueError where there is none."""
    layers = {first, *(module for module in model.modules() if isinstance(module, Routed))}
    found: nn.Module | None = None
    inner: nn.Module | None = model
    while inner is not None and not isinstance(inner, Routed):
        found = found if isinstance(inner, nn.Sequential) else inner
        inner = next((child for child in inner.children() if layers <= set(child.modules())), None)
    if found is None:
        raise ValueError(
            "multibn needs a place for its detector, and an nn.Sequential would run it as a layer; put the layers into a class"
        )
    return found


def detected(model: nn.Module) -> list[Routed]:
    """The layers whose routes a detector weights."""
    return [module for module in model.modules() if isinstance(module, Routed) and module.detected]


def _share(model: Any, args: tuple[Tensor, ...]) -> None:
    if layers := detected(model):
        shares: Tensor = model.detector(args[0]).softmax(1)
        for layer in layers:
            layer.shares = shares


def _forget(model: nn.Module, args: Any, output: Any) -> None:
    for layer in detected(model):
        layer.shares = None
