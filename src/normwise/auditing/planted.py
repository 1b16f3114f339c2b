"""Planted images: networks of which it is known that an adversarial image exists."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from ..seeding import generator
from ..types import Images, ThreatModel
from ..utils.forward import logits_of
from ..utils.model_state import copied, set_mode, untouched

DRAWS = 5  # of an image to plant, until the features tell it apart


class Planted(nn.Module):
    """A network's features with a new last layer for two classes: 1 where weight . features > level."""

    weight: Tensor
    level: Tensor

    def __init__(self, features: nn.Module, weight: Tensor, level: Tensor) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("weight", weight)
        self.register_buffer("level", level)

    def forward(self, x: Tensor) -> Tensor:
        score = logits_of(self.features, x).to(self.weight) @ self.weight - self.level
        return torch.stack([torch.zeros_like(score), score], 1)


def planted_images(
    model: nn.Module, x: Images, threat: ThreatModel, *, inner: int = 256, seed: int = 0
) -> tuple[nn.Module, Images] | None:
    """A copy of the network in which one image of the region, drawn at random from its far end, is misclassified.

    The last linear layer (or, without one, the logits) is replaced by a linear discriminant between the features of one
    planted image at the full radius and those of `inner` random images within 0.95 of it; the level lies halfway between the
    planted image and the nearest of them. So an adversarial image is known to exist, and random search does not find it.
    Takes one image, x of shape (1, ...); returns None where the features do not tell the planted image apart.
    Source: Zimmermann et al. 2022, arXiv:2206.13991, sec. 3. Differs: a discriminant in closed form instead of a fitted one.
    """
    rng, features = generator(seed, "planted"), _features(model, x)
    around = threat.around(x, generator=rng)
    within = threat.around(x.expand(inner, *x.shape[1:]), generator=rng)
    for _ in range(DRAWS):
        noise = torch.rand(x.shape, generator=rng, dtype=torch.float32).to(x) - 0.5
        planted = around.project(around.ascend(x, noise, around.radius))
        points = torch.cat([planted, x, x + 0.95 * (within.start() - x)])
        with torch.no_grad(), untouched(features, rng):
            weight, scores = _discriminant(logits_of(features, points))
        gap = scores[0] - scores[1:].max()
        if gap > 1e-6 * scores[0].abs():
            scale = 1 / gap  # so that logits are of the order of 1
            return Planted(features, (scale * weight).to(x), (scale * (scores[0] - gap / 2)).to(x)).eval(), planted
    return None


def _discriminant(found: Tensor) -> tuple[Tensor, Tensor]:
    """The direction that tells the first row from the others, and every row's score along it."""
    found = found.double()
    inside = found[1:] - found[1:].mean(0)
    spread = inside.T @ inside / len(inside)
    spread += 1e-3 * spread.diagonal().mean().clamp_min(1e-12) * torch.eye(len(spread)).to(spread)
    weight = torch.linalg.solve(spread, found[0] - found[1:].mean(0))
    return weight, found @ weight


def _features(model: nn.Module, x: Images) -> nn.Module:
    """A copy of the network that answers with what its last linear layer reads; with its logits, where that cannot be had."""
    whole = set_mode(copied(model), "eval")
    made = copied(whole)
    linear = [name for name, module in made.named_modules() if isinstance(module, nn.Linear)]
    if linear and linear[-1]:
        parent, _, child = linear[-1].rpartition(".")
        made.get_submodule(parent)._modules[child] = nn.Identity()
        with suppress(Exception), torch.no_grad(), untouched(made, generator(0, "features")):
            logits_of(made, x)  # a network may read that layer's weights by name
            return made
    return whole
