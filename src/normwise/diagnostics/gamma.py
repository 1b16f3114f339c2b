"""Gamma: which features the scales of the norm layers use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from ..norms import reads
from ..seeding import draw
from ..types import Batch, ThreatModel
from .table import NOWHERE, Diagnosis
from .taps import ask, layers_of

ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Gamma(Diagnosis):
    """Sizes of each norm layer's scales, and which of its outputs vary over clean images.

    `dead` and `tiny` are the shares of channels whose |gamma| is below a share of the layer's largest; `constant` is the
    share of channels with one output for all rows and positions, up to rounding; `off` of those whose output is never above
    0: a ReLU behind them passes nothing. A layer without a scale has the last two alone.

    Options
        dead    below this share of the layer's largest |gamma| a scale is dead
        tiny    the same, for scales that are small

    Source: gamma as the measure of a channel's use: Liu et al. 2017, arXiv:1708.06519. The thresholds are our own.
    """

    name: ClassVar[str] = "gamma"
    columns: ClassVar[dict[str, str]] = {
        "site": "",
        "reads": "",
        "channels": "channels",
        "largest": "|gamma|",
        "median": "|gamma|",
        "dead": "share of channels",
        "tiny": "share of channels",
        "constant": "share of channels",
        "off": "share of channels",
    }
    of_norms: ClassVar[bool] = True
    nothing: ClassVar[str] = NOWHERE

    dead: float = 1e-3
    tiny: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.dead <= self.tiny <= 1:
            raise ValueError(
                f"dead of gamma is {self.dead} and tiny {self.tiny}; give shares of the largest, 0 < dead <= tiny <= 1"
            )

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        layers, ends = layers_of(model, batches[0].x), dict[str, tuple[Tensor, Tensor]]()

        def note(path: str, axis: int) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
                values = y.movedim(axis, 0).flatten(1)
                low, high = values.amin(1), values.amax(1)
                before = ends.get(path, (low, high))
                ends[path] = low.minimum(before[0]), high.maximum(before[1])

            return hook

        with ExitStack() as stack:
            for path, (layer, axis) in layers.items():
                stack.callback(layer.register_forward_hook(note(path, axis)).remove)
            for batch in batches:
                ask(model, batch.x, draw(rng))
        for path, (layer, _) in layers.items():
            if path in ends:
                yield (
                    path,
                    "+".join(sorted(reads(layer) or ())),
                    len(ends[path][0]),
                    *self._sizes(layer),
                    *_still(*ends[path]),
                )

    def _sizes(self, layer: nn.Module) -> tuple[float | None, ...]:
        weight = getattr(layer, "weight", None)
        if weight is None:
            return None, None, None, None
        gamma = weight.detach().abs().flatten().double()
        largest = gamma.max()
        shares = ((gamma <= largest * part if largest == 0 else gamma < largest * part) for part in (self.dead, self.tiny))
        return largest.item(), gamma.median().item(), *(one.double().mean().item() for one in shares)


def _still(low: Tensor, high: Tensor) -> tuple[float, float]:
    """The shares of channels that are constant, and that are never above 0."""
    constant = high - low <= ROUNDING * torch.maximum(low.abs(), high.abs()).clamp_min(1)
    return constant.double().mean().item(), (high <= 0).double().mean().item()
