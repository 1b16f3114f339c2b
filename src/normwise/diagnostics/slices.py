"""Slices: the decision around an image, on a plane through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, nn

from .. import losses
from ..attacks.oracle import Oracle
from ..evaluation.coupling import measure_coupling
from ..seeding import draw
from ..types import Batch, ThreatModel
from ..utils.per_row import flat, over
from .table import Diagnosis
from .taps import ask


@dataclass(frozen=True, kw_only=True)
class Slices(Diagnosis):
    """The class and margin at x + a u + b v, clipped to the box, for a few images and a square of a and b.

    u is the step of steepest ascent of one radius (eps times the gradient's sign, in linf), v that of a random gradient
    orthogonal to u: a and b count radii. Margin: the largest wrong logit less the label's; above 0 the answer is wrong. Of
    coupled rows the whole batch moves, each row along its own u and v.

    Options
        rows    images, the first ones of the first batch
        cells   points per side; odd, so that the image itself is one
        reach   largest |a| and |b|, in radii

    Source: slices in the direction of the attack and a random one are common, e.g. Qin et al. 2019, arXiv:1907.02610, fig.
    1.
    """

    name: ClassVar[str] = "slices"
    columns: ClassVar[dict[str, str]] = {
        "row": "",
        "label": "",
        "a": "radii",
        "b": "radii",
        "class": "",
        "margin": "logits",
    }

    rows: int = 3
    cells: int = 21
    reach: float = 2.0

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cells < 3 or self.cells % 2 == 0 or not 0 < self.reach < float("inf"):
            raise ValueError(
                f"slices has rows {self.rows}, cells {self.cells} and reach {self.reach}; give a count, an odd count >= 3, and a number > 0"
            )

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        x, y, ids = batches[0]
        if not measure_coupling(model, [x]).coupled:
            x, y = x[: self.rows], y[: self.rows]
        region = threat.around(x, generator=rng)
        grad = Oracle(model).gradient(x, y, losses.cross_entropy, torch.ones_like(y, dtype=torch.bool)).grad
        u = region.ascend(x, grad, region.radius) - x
        random = torch.randn(x.shape, generator=rng, dtype=torch.float32).to(x)
        along = (flat(random) * flat(u)).sum(1) / flat(u).square().sum(1).clamp_min(torch.finfo(x.dtype).tiny)
        v = region.ascend(x, random - over(along, u) * u, region.radius) - x
        side, seed = torch.linspace(-self.reach, self.reach, self.cells).tolist(), draw(rng)
        for a in side:
            for b in side:
                logits = ask(model, (x + a * u + b * v).clamp(0, 1), seed)
                answers, margins = logits.argmax(1).tolist(), losses.margin(logits, y).tolist()
                for row in range(min(self.rows, len(y))):
                    yield int(ids[row]), int(y[row]), a, b, answers[row], margins[row]
