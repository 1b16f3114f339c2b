"""Saturation: where a bounded norm is flat, and how much gradient passes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..losses import margin
from ..norms.bounded import Bounded, bounded, observed
from ..norms.layout import along
from ..types import Batch, ThreatModel
from ..utils.forward import logits_of
from .inputs import pgd_path
from .table import Diagnosis

KINDS = ("clean", "adversarial")


class _Seen(NamedTuple):
    """One call of a layer: what goes into its function, the slopes there, and the gradient's energy behind and before it."""

    z: Tensor
    slope: Tensor
    arrives: float
    passes: float


@dataclass(frozen=True, kw_only=True)
class Saturation(Diagnosis):
    """How far Dynamic Tanh and Derf are saturated, on clean images and after PGD from them.

        slope = f'(z) / max f',   z what goes into the bounded function f
        saturated = share of units whose slope is below `flat`
        passes = |slope * g| / |g|,   g the gradient of the margins behind f, norms over all units and images

    `passes` is 1 for a linear layer; near 0 little of the gradient reaches what is before the layer, and an attack sees
    little. It does not exist where no gradient arrives. A network without such layers has no table.

    Options
        steps   PGD steps
        flat    a slope below this share of the largest one counts as saturated

    Source: our own; that saturating units hide gradients: Athalye et al. 2018, arXiv:1802.00420, sec. 4.
    """

    name: ClassVar[str] = "saturation"
    columns: ClassVar[dict[str, str]] = {
        "site": "",
        "alpha": "alpha",
        "median |z|": "z",
        "saturated": "share of units",
        "saturated under attack": "share of units",
        "passes": "share of the gradient",
        "passes under attack": "share of the gradient",
    }
    nothing: ClassVar[str] = "no norm is a bounded function (dyt, derf)"

    steps: int = 20
    flat: float = 0.01

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.flat < 1:
            raise ValueError(f"steps of saturation is {self.steps} and flat {self.flat}; give steps >= 1 and 0 < flat < 1")

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        layers = bounded(model)
        if not layers:
            return
        seen: dict[tuple[str, str], list[_Seen]] = {(path, kind): [] for path in layers for kind in KINDS}
        for batch in batches:
            x_adv = pgd_path(model, batch.x, batch.y, threat, (self.steps,), rng)[self.steps]
            for kind, x in zip(KINDS, (batch.x, x_adv), strict=True):
                for path, one in _by_layer(model, layers, batch._replace(x=x)):
                    seen[path, kind].append(one)
        for path, layer in layers.items():
            clean, attacked = (seen[path, kind] for kind in KINDS)
            if clean and attacked:  # a layer that the network does not use is never called
                flat = [
                    float((torch.cat([one.slope for one in each]) < self.flat).double().mean()) for each in (clean, attacked)
                ]
                far = torch.cat([one.z for one in clean]).abs().median().item()
                yield path, layer.alpha.item(), far, *flat, _passing(clean), _passing(attacked)


def _passing(seen: Sequence[_Seen]) -> float | None:
    arrives = sum(one.arrives for one in seen)
    return (sum(one.passes for one in seen) / arrives) ** 0.5 if arrives else None


def _by_layer(model: nn.Module, layers: Mapping[str, Bounded], batch: Batch) -> Iterator[tuple[str, _Seen]]:
    with torch.enable_grad(), observed(model) as found:
        total = margin(logits_of(model, batch.x.clone().requires_grad_()), batch.y).sum()
    calls = [(path, z, y) for path, each in found.items() for z, y in each if y.requires_grad]
    grads = torch.autograd.grad(total, [y for *_, y in calls], allow_unused=True) if calls else ()
    for (path, z, y), grad in zip(calls, grads, strict=True):
        layer = layers[path]
        behind = (torch.zeros_like(y) if grad is None else grad) * along(layer.weight.detach(), y, layer.axis)
        slope, behind = layer.slope(z.double()), behind.double()
        energies = behind.square().sum().item(), (slope * behind).square().sum().item()
        yield path, _Seen(z.flatten(), slope.flatten(), *energies)
