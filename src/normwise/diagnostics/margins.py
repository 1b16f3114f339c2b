"""Margins: how far the nearest misclassified image is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, nn

from ..attacks import FMN
from ..evaluation.coupling import measure_coupling
from ..losses import correct
from ..seeding import draw
from ..types import Batch, Search, ThreatModel
from .table import Diagnosis
from .taps import ask


@dataclass(frozen=True, kw_only=True)
class Margins(Diagnosis):
    """Quantiles of the distance to the nearest misclassified image that FMN finds, over images classified correctly.

    In the threat's own geometry (linf, l2 or l1); its radius does not count. Distances are upper bounds. A quantile is
    missing where so many rows have no misclassified image that FMN could find. Of coupled rows each was seen in its batch,
    the others moving too.

    Options
        steps       gradient evaluations per image
        quantiles   the quantiles, in percent

    Raises ValueError in other geometries.
    Source: Pintor et al. 2021, arXiv:2102.12827 (FMN).
    """

    name: ClassVar[str] = "margins"
    columns: ClassVar[dict[str, str]] = {
        "geometry": "",
        "quantile": "percent of images",
        "distance": "pixel range",
        "n": "rows",
        "found": "rows",
    }

    steps: int = 100
    quantiles: tuple[float, ...] = (5, 25, 50, 75, 95)

    def __post_init__(self) -> None:
        FMN(steps=self.steps)  # refuses what cannot be
        if not self.quantiles or not all(0 <= one <= 100 for one in self.quantiles):
            raise ValueError(f"quantiles of margins are percentages; got {self.quantiles}; give numbers from 0 to 100")

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        independent = not measure_coupling(model, [batches[0].x]).coupled
        found = []
        for batch in batches:
            right = correct(ask(model, batch.x, draw(rng)), batch.y)
            nearest = FMN(steps=self.steps).distances(
                model, batch.x, batch.y, threat, generator=rng, search=Search(independent=independent)
            )
            found.append(nearest.distance[right].double().cpu())
        distances, kind = torch.cat(found), threat.around(batches[0].x[:1], generator=rng).kind
        for one in sorted(self.quantiles):
            distance = distances.quantile(one / 100).item() if len(distances) else None
            yield kind, one, distance, len(distances), int(torch.isfinite(distances).sum())
