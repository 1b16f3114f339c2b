"""Ways to make a network more robust by training it further."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..norms import GN, RNT, sites
from ..training.recipes import Adversarial, Mixed
from ..types import Norm, Recipe


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to make a network more robust: what training minimizes, and the norm layers it gets before (None: it keeps its own)."""

    name: str
    says: str
    recipe: Recipe
    norm: Norm | None = None
    needs_norms: bool = False


WAYS = {
    way.name: way
    for way in (
        Way(name="pgd-at", says="PGD adversarial training of all weights", recipe=Adversarial()),
        Way(name="mixed", says="clean and adversarial images in one loss (the loss of NoFrost)", recipe=Mixed(steps=7)),
        Way(
            name="norms-alone",
            says="PGD adversarial training of the norm layers' parameters alone",
            recipe=Adversarial(trains="affine"),
            needs_norms=True,
        ),
        Way(
            name="robustnorm",
            says="norm layers converted to RobustNorm, then PGD adversarial training",
            recipe=Adversarial(),
            norm=RNT(),
            needs_norms=True,
        ),
        Way(
            name="groupnorm",
            says="norm layers converted to GroupNorm, then PGD adversarial training",
            recipe=Adversarial(),
            norm=GN(),
            needs_norms=True,
        ),
    )
}


def why_not(way: Way, model: nn.Module) -> str:
    """Why a way does not apply to a network; empty where it does."""
    return "the network has no norm layers that can be converted" if way.needs_norms and not sites(model) else ""
