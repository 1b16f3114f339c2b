"""Smoothness: how steep a network is in pixels, how fast that changes, and how far logits can be pushed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from .. import losses
from ..attacks.oracle import Oracle
from ..seeding import draw
from ..types import Batch, PerRow, ThreatModel
from ..utils.per_row import DUAL, flat, l1, l2
from .inputs import pgd_path
from .table import Diagnosis
from .taps import ask


@dataclass(frozen=True, kw_only=True)
class Smoothness(Diagnosis):
    """Input gradients, curvature and a local Lipschitz estimate, per image.

        gradient norm        |g(x)| in the dual norm of the threat (linf: l1, l2: l2, l1: linf, others: l2)
        Lipschitz estimate   largest |z(x') - z(x)|_1 / d(x', x) over points x' of PGD's path from x, d the threat's distance
        curvature            |g(x + h) - g(x)|_2 / |h|_2, h the step of steepest ascent of `reach` radii, inside the region
        gradient similarity  cosine of g(x) and g(x'), x' a random point of the region

    g is the gradient of the cross-entropy in pixels, z the logits divided by their deviation over all rows and classes, so
    that networks of other scales compare. Gradient norm and curvature belong to the loss as it is: a network that is
    confident has small ones where it is right. The estimate is a lower bound.

    Options
        steps   numbers of PGD steps at which the Lipschitz estimate is taken
        reach   length of the step for the curvature, in radii

    Source: Lipschitz estimate: Yang et al. 2020, arXiv:2003.02460; curvature: Moosavi-Dezfooli et al. 2019, arXiv:1811.09716
    (CURE); similarity: Andriushchenko and Flammarion 2020, arXiv:2007.02617 (gradient alignment). Differs: the points are
    PGD's on cross-entropy; the step's length follows from the threat, and the box cuts it.
    """

    name: ClassVar[str] = "smoothness"
    columns: ClassVar[dict[str, str]] = {
        "figure": "",
        "unit": "",
        "mean": "see unit",
        "5%": "see unit",
        "median": "see unit",
        "95%": "see unit",
        "n": "rows",
    }

    steps: tuple[int, ...] = (1, 2, 5, 10)
    reach: float = 0.5

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1 or not 0 < self.reach <= 1:
            raise ValueError(
                f"steps of smoothness is {self.steps} and reach {self.reach}; give whole numbers >= 1, and a reach above 0, at most 1"
            )

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        found = [torch.stack(self._rows(model, batch, threat, rng)) for batch in batches]
        logits = torch.cat([ask(model, batch.x, 0).flatten() for batch in batches])
        each = torch.cat(found, 1).double().cpu()
        each[1] /= logits.double().std(correction=0).cpu()
        kind = threat.around(batches[0].x[:1], generator=rng).kind
        dual = {"linf": "l1", "l1": "linf"}.get(kind, "l2")
        units = (
            f"nats per pixel range, {dual}",
            f"logit deviations per pixel range, {kind}",
            "nats per squared pixel range, l2",
            "cosine",
        )
        names = ("gradient norm", "Lipschitz estimate", "curvature", "gradient similarity")
        for name, unit, values in zip(names, units, each, strict=True):
            values = values[torch.isfinite(values)]
            marks = values.quantile(torch.tensor([0.05, 0.5, 0.95]).double()).tolist() if len(values) else [None] * 3
            yield name, unit, values.mean().item(), *marks, len(values)

    def _rows(
        self, model: nn.Module, batch: Batch, threat: ThreatModel, rng: Generator
    ) -> tuple[PerRow, PerRow, PerRow, PerRow]:
        x, y = batch.x, batch.y
        oracle, region = Oracle(model), threat.around(x, generator=rng)
        everybody = torch.ones_like(y, dtype=torch.bool)

        def gradient(at: Tensor) -> Tensor:
            return oracle.gradient(at, y, losses.cross_entropy, everybody).grad

        here = gradient(x)
        ahead = region.project(region.ascend(x, here, self.reach * region.radius))
        bend = l2(gradient(ahead) - here) / l2(ahead - x)
        aside = gradient(region.start())
        cosine = (flat(here) * flat(aside)).sum(1) / (l2(here) * l2(aside))
        seed, slope = draw(rng), torch.full_like(bend, -torch.inf)
        clean = ask(model, x, seed)
        for x_adv in pgd_path(model, x, y, threat, self.steps, rng).values():
            slope = slope.maximum(l1(ask(model, x_adv, seed) - clean) / region.distance(x_adv).nan_to_num())
        return DUAL.get(region.kind, l2)(here), slope, bend, cosine
