"""The grid that the data's pixels lie on, and images on it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from ...attacks.bpda import Pass
from ...evaluation.naming import label
from ...types import WHOLE, Attack, Batch, Images, Labels, Proposal, Region, Search, ThreatModel
from ...utils.per_row import over

SLACK = 1e-3  # of a level: what float32 may be off
PROBED = 4096  # pixels that are looked at before all


def levels_of(batches: Sequence[Batch]) -> int | None:
    """Measure the levels L such that every pixel is k / L for a whole k: 255, or the fewest below; None where there are none."""

    def on(levels: int, x: Tensor) -> bool:
        return bool(((levels * x - (levels * x).round()).abs() < SLACK).all())

    few = batches[0].x.flatten()[:PROBED]
    return next((n for n in (255, *range(1, 255)) if on(n, few) and all(on(n, batch.x) for batch in batches)), None)


def towards(x: Images, x_adv: Images, levels: int, region: Region) -> Images:
    """Round each pixel of x_adv to the next level on the way to the clean x; rows that leave the region so are x."""
    moved = levels * (x_adv.double() - x.double())
    whole = (moved.abs() + SLACK).floor() * moved.sign()
    image = torch.where(whole == 0, x, (((levels * x.double()).round() + whole) / levels).to(x))
    return torch.where(over(region.contains(image), image), image, x)


@dataclass(frozen=True, kw_only=True)
class OnGrid:
    """Another attack, whose images are looked at rounded to the grid; the gradient passes straight through the rounding.

    The images that it returns lie on the grid: the nearest levels, or where these are not allowed the next ones towards the
    clean image. In linf it searches in the largest radius of whole levels, where the nearest are always allowed.
    """

    name: ClassVar[str] = "grid"

    attack: Attack
    levels: int

    @property
    def label(self) -> str:
        """How it is called in tables."""
        return f"{label(self.attack)} on the grid"

    @property
    def steps(self) -> int:
        """Steps of the attack."""
        return int(getattr(self.attack, "steps", 1))

    def __call__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: Generator,
        search: Search = WHOLE,
    ) -> Proposal:
        """Search through the rounding."""
        whole = threat
        if threat.name == "linf":
            eps = math.floor(threat.eps * self.levels + SLACK) / self.levels  # type: ignore[attr-defined]
            whole = dataclasses.replace(threat, eps=eps)  # type: ignore[type-var]
        found = self.attack(_Rounded(model, self.levels), x, y, whole, generator=generator, search=search)
        region, nearest = threat.around(x, generator=generator), _nearest(found.x_adv, self.levels)
        allowed = over(region.contains(nearest), nearest)
        return found._replace(x_adv=torch.where(allowed, nearest, towards(x, found.x_adv, self.levels, region)))


class _Rounded(nn.Module):
    """The network behind a rounding that passes gradients straight through."""

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Images) -> Any:
        return self.network(Pass.apply(_nearest(x.detach(), self.levels), x))


def _nearest(x: Images, levels: int) -> Tensor:
    return ((levels * x.double()).round() / levels).to(x)
