"""Routed norms: one network, several sets of statistics or affine parameters, one of them in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from ..registry import check_words
from ..types import Site
from ..utils.model_state import copied
from ..utils.per_row import over
from .layer import StatNorm
from .layernorm2d import LayerNorm2d
from .layout import along, channels_second
from .rmsnorm import RMSNorm2d

Share = Literal["none", "statistics", "affine"]
Of = Literal["bn", "layernorm2d", "rmsnorm"]


class Routed(nn.Module):
    """BatchNorm with several routes, for x of shape (b, c, ...), or tokens (b, n, c) with `axis` -1: the whole batch takes the one that `route` names.

    Each route has statistics, a scale and a shift of its own, but for what is shared. The keys of BatchNorm (of `of`'s
    layer) load into every route. `weight` and `bias` are those of the route in use; with `soup` they lie between those of
    the first two routes. A detector (see `MultiBN`) may give each row a share of every route: `shares` (b, routes), for one
    pass.

    Raises ValueError for a number of routes below 1, and for options that do not go together. Choose a route with
    `routed(model, route)` or `on_route`.
    """

    kinds: tuple[str, ...] = ()  # the types of attack of routes 1, 2, ..., between which a detector chooses
    shares: Tensor | None = None

    def __init__(
        self,
        num_features: int,
        *,
        routes: int = 2,
        share: Share = "none",
        route: int = 0,
        of: Of = "bn",
        soup: float | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        axis: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= route < routes or share not in ("none", "statistics", "affine"):
            raise ValueError(
                f"routes is {routes}, route {route} and share {share!r}; give a number of routes, one of them counted from 0, "
                "and none, statistics or affine"
            )
        if of not in get_args(Of):
            raise ValueError(f"of is {of!r}; give {' or '.join(map(repr, get_args(Of)))}")
        if share != "statistics" and (of != "bn" or soup is not None):
            raise ValueError(f"of is {of} and soup {soup}, where routes share their statistics; got share {share!r}")
        if soup is not None and not (0 <= soup <= 1 < routes):
            raise ValueError(f"soup is {soup}, for {routes} routes; give the share of route 1, 0 to 1, of two routes")
        self.num_features, self.routes, self.share, self.route = num_features, routes, share, route
        self.axis, self.of, self.soup = axis, of, soup
        self.fixed = False  # the route was named, and no detector is asked
        own: nn.Module = StatNorm(num_features, eps=eps, momentum=momentum, affine=False)
        if of == "layernorm2d":
            own = LayerNorm2d(num_features, eps, elementwise_affine=False)
        if of == "rmsnorm":
            own = RMSNorm2d(num_features, eps, elementwise_affine=False)
        more = [StatNorm(num_features, eps=eps, momentum=momentum, affine=False) for _ in range(routes - 1)]
        self.statistics = nn.ModuleList([own, *(() if share == "statistics" else more)])
        rows = 1 if share == "affine" else routes
        self.weights = nn.Parameter(torch.ones(rows, num_features))
        self.biases = nn.Parameter(torch.zeros(rows, num_features))

    @property
    def weight(self) -> Tensor:
        return self._in_use(self.weights)

    @property
    def bias(self) -> Tensor:
        return self._in_use(self.biases)

    def _in_use(self, rows: Tensor) -> Tensor:
        if self.soup is not None:
            return torch.lerp(rows[0], rows[1], self.soup)
        return rows[self.route if self.share != "affine" else 0]

    @property
    def detected(self) -> bool:
        """Whether a detector weights the routes, and nobody has named one."""
        return bool(self.kinds) and not self.fixed

    @property
    def active(self) -> nn.Module:
        """What takes the statistics of the route in use."""
        return self.statistics[self.route if self.share != "statistics" else 0]

    @channels_second
    def forward(self, input: Tensor) -> Tensor:
        if self.shares is not None:
            return self._shared(input, self.shares).to(input.dtype)
        y = self.active(input)
        return torch.addcmul(along(self.bias, y, 1), y, along(self.weight, y, 1)).to(input.dtype)

    def _shared(self, x: Tensor, shares: Tensor) -> Tensor:
        """The mean over the routes, each row by its shares."""
        each = zip(self.statistics, self.weights, self.biases, shares.T, strict=True)
        parts = [
            over(share, x) * torch.addcmul(along(bias, x, 1), normalize(x), along(weight, x, 1))
            for normalize, weight, bias, share in each
        ]
        return sum(parts[1:], parts[0])

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
        options = f"{self.num_features}, routes={self.routes}, share={self.share!r}, route={self.route}"
        return (
            options
            + (f", of={self.of!r}" if self.of != "bn" else "")
            + (f", soup={self.soup}" if self.soup is not None else "")
        )


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
    before = [(layer.route, layer.soup, layer.fixed) for layer in layers]
    try:
        _take(layers, route)
        yield model
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.route, layer.soup, layer.fixed = old


def _take(layers: Iterable[Routed], route: int) -> None:
    for layer in layers:
        layer.route, layer.soup, layer.fixed = route, None, True


def on_route(model: nn.Module, route: int) -> nn.Module:
    """Return a copy of the model that takes this route. Raises ValueError as `routed` does."""
    model = copied(model)
    with routed(model, route):
        pass
    _take((module for module in model.modules() if isinstance(module, Routed)), route)
    return model


@dataclass(frozen=True, kw_only=True)
class MBN:
    """Mixture BatchNorm (AuxBN): a route for clean images, and one for adversarial ones.

    Options
        routes      number of routes
        share       what the routes share: "none", "statistics" (separate affine parameters) or "affine" (separate statistics)
        route       the route in use, unless another one is chosen
        of          whose statistics routes share, where they share them: "bn", or "layernorm2d" or "rmsnorm", as in transformers
        soup        where statistics are shared: use scale and shift between those of routes 0 and 1, this share of route 1; null: those
                    of the route
        eps         added to the variance
        momentum    weight of a new batch in the running statistics

    Source: Xie and Yuille 2020, arXiv:1906.03787; AuxBN: Xie et al. 2020, arXiv:1911.09665; shared statistics: Zhang et al.
    2024, arXiv:2403.19150; adapters (all shared but scale and shift) and soups of them: Rebuffi et al. 2023,
    arXiv:2210.04886.
    """

    name: ClassVar[str] = "mbn"
    label: ClassVar[str] = "mixture BatchNorm"

    routes: int = 2
    share: Share = "none"
    route: int = 0
    of: Of = "bn"
    soup: float | None = None
    eps: float = 1e-5
    momentum: float = 0.1

    def __post_init__(self) -> None:
        check_words(self)

    def __call__(self, site: Site) -> nn.Module:
        return Routed(
            site.channels,
            routes=self.routes,
            share=self.share,
            route=self.route,
            of=self.of,
            soup=self.soup,
            eps=self.eps,
            momentum=self.momentum,
            axis=site.axis,
        )
