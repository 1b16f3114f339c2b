"""Routed norms: one network, several sets of statistics or affine parameters, one of them in use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..types import Site
from ..utils.model_state import copied
from .layer import StatNorm

Share = Literal["none", "statistics", "affine"]


class Routed(nn.Module):
    """BatchNorm with several routes, for x of shape (b, c, ...): the whole batch takes the one that `route` names.

    Each route has statistics, a scale and a shift of its own, but for what is shared. BatchNorm's keys load into every
    route. `weight` and `bias` are those of the route in use.

    Raises ValueError for a number of routes below 1. Choose a route with `routed(model, route)` or `on_route`.
    """

    def __init__(
        self,
        num_features: int,
        *,
        routes: int = 2,
        share: Share = "none",
        route: int = 0,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__()
        if not 0 <= route < routes or share not in ("none", "statistics", "affine"):
            raise ValueError(
                f"routes is {routes}, route {route} and share {share!r}; give a number of routes, one of them counted from 0, "
                "and none, statistics or affine"
            )
        self.num_features, self.routes, self.share, self.route = num_features, routes, share, route
        own = StatNorm(num_features, eps=eps, momentum=momentum, affine=False)
        more = [StatNorm(num_features, eps=eps, momentum=momentum, affine=False) for _ in range(routes - 1)]
        self.statistics = nn.ModuleList([own, *(() if share == "statistics" else more)])
        rows = 1 if share == "affine" else routes
        self.weights = nn.Parameter(torch.ones(rows, num_features))
        self.biases = nn.Parameter(torch.zeros(rows, num_features))

    @property
    def weight(self) -> Tensor:
        return self.weights[self.route if self.share != "affine" else 0]

    @property
    def bias(self) -> Tensor:
        return self.biases[self.route if self.share != "affine" else 0]

    @property
    def active(self) -> StatNorm:
        """The statistics of the route in use."""
        found = self.statistics[self.route if self.share != "statistics" else 0]
        assert isinstance(found, StatNorm)
        return found

    def forward(self, input: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (input.ndim - 2)
        y = self.active(input)
        return torch.addcmul(self.bias.view(shape), y, self.weight.view(shape)).to(input.dtype)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix) and "." not in key.removeprefix(prefix)]:
            name = key.removeprefix(prefix)
            if name in ("weight", "bias"):
                every = "weights" if name == "weight" else "biases"
                state_dict[prefix + every] = state_dict.pop(key).expand_as(getattr(self, every))
            elif name.startswith(("running_", "num_batches", "needs_", "unknown_")):
                value = state_dict.pop(key)
                for index in range(len(self.statistics)):
                    state_dict[f"{prefix}statistics.{index}.{name}"] = value
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.num_features}, routes={self.routes}, share={self.share!r}, route={self.route}"


@contextmanager
def routed(model: nn.Module, route: int) -> Iterator[nn.Module]:
    """Let every routed norm of the model take this route for a while.

    Raises ValueError if the model has no routed norm, or one of them has no such route.
    """
    layers = [module for module in model.modules() if isinstance(module, Routed)]
    fewest = min((layer.routes for layer in layers), default=0)
    if not 0 <= route < fewest:
        raise ValueError(
            f"no route {route} in {type(model).__name__}: it has {fewest or 'no'} routes; convert(model, MBN()) makes 2"
        )
    before = [layer.route for layer in layers]
    try:
        for layer in layers:
            layer.route = route
        yield model
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.route = old


def on_route(model: nn.Module, route: int) -> nn.Module:
    """Return a copy of the model that takes this route. Raises ValueError as `routed` does."""
    model = copied(model)
    with routed(model, route):
        pass
    for module in model.modules():
        if isinstance(module, Routed):
            module.route = route
    return model


@dataclass(frozen=True, kw_only=True)
class MBN:
    """Mixture BatchNorm (AuxBN): a route for clean images, and one for adversarial ones.

    Options
        routes      number of routes
        share       what the routes share: "none", "statistics" (separate affine parameters) or "affine" (separate statistics)
        route       the route in use, unless another one is chosen
        eps         added to the variance
        momentum    weight of a new batch in the running statistics

    Source: Xie and Yuille 2020, arXiv:1906.03787; AuxBN: Xie et al. 2020, arXiv:1911.09665; shared statistics: Zhang et
    al. 2024, arXiv:2403.19150.
    """

    name: ClassVar[str] = "mbn"
    label: ClassVar[str] = "mixture BatchNorm"

    routes: int = 2
    share: Share = "none"
    route: int = 0
    eps: float = 1e-5
    momentum: float = 0.1

    def __call__(self, site: Site) -> nn.Module:
        return Routed(
            site.channels, routes=self.routes, share=self.share, route=self.route, eps=self.eps, momentum=self.momentum
        )
