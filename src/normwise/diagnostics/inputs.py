"""Kinds of images to compare: further and further along an attack, and noise of equal norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from ..attacks import PGD
from ..seeding import draw
from ..types import Images, Labels, ThreatModel


def pgd_path(
    model: nn.Module, x: Images, y: Labels, threat: ThreatModel, steps: Sequence[int], rng: Generator
) -> dict[int, Images]:
    """The images after so many steps of PGD from the clean image, all on one path; whole batches, nothing stops early."""
    seed = draw(rng)
    return {
        count: PGD(steps=count, random_start=False, keep="last")(
            model, x, y, threat, generator=torch.Generator().manual_seed(seed)
        ).x_adv
        for count in steps
    }


def shuffled(change: Tensor, rng: Generator) -> Tensor:
    """A random change of (b, ...) with this one's own sizes, at other pixels and with random signs: each lp norm is equal."""
    flat = change.flatten(1)
    order = torch.rand(flat.shape, generator=rng, dtype=torch.float32).argsort(1).to(flat.device)
    signs = torch.randint(0, 2, flat.shape, generator=rng).to(flat.device) * 2 - 1
    return (flat.gather(1, order) * signs).view_as(change)
