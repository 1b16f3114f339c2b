"""Drift: how far what goes into each norm layer lies from the statistics that the layer keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..data import CORRUPTIONS
from ..data.corruptions import corrupted
from ..data.corruptions.kind import LEAST, check_severity
from ..norms import StatNorm, reads
from ..norms.moments import MEASURES, mean_and_range, mean_and_variance
from ..norms.routed import Routed
from ..registry import unknown
from ..seeding import draw
from ..types import Batch, ThreatModel
from .inputs import pgd_path, shuffled
from .table import NOWHERE, Diagnosis
from .taps import EPS, Layer, ask, heard, layers_of


@dataclass(frozen=True, kw_only=True)
class Drift(Diagnosis):
    """Centre and spread of the inputs of each norm layer, compared with its running statistics.

        shift = |m - m0| / s0;   moved = |m - m of the clean batch| / s0;   log variance ratio = |log(s^2 / s0^2)|
        divergence = KL(p | p0) + KL(p0 | p) = ((s^2 + d^2) / s0^2 + (s0^2 + d^2) / s^2) / 2 - 1,   d = m - m0
        Wasserstein-2 = sqrt(d^2 + (s - s0)^2) / s0

    m and s^2 are a batch's mean and variance per channel (what the median norm takes for them, at its sites), m0 and s0^2
    the reference; p and p0 are the Gaussians that have them. Figures are means over channels, then over batches. Inputs:
    clean, after so many steps of PGD from the clean image, noise (the last step's changes of pixels, shuffled and with
    random signs, so that every lp norm is equal up to the box), and a natural corruption, where inputs are images of 4
    pixels a side or more: its line is called by kind and severity, "fog 3". `reference` says what m0 and s0^2 are:
    "running", "running mean, clean variance" where a layer tracks another spread, or "clean" (the same batch before the
    attack) where it tracks nothing; there log range ratio compares the batch's range with the running one of layers that
    track a range.

    Options
        steps       numbers of PGD steps
        corruption  one of the 15 kinds of Hendrycks and Dietterich (2019, arXiv:1903.12261)
        severity    its severity, 1 to 5

    Source: divergences of Gaussians in closed form (Kullback and Leibler 1951, sec. 2; Dowson and Landau 1982). Differs:
    1e-5 is added to all variances, and the Wasserstein distance is in deviations of the reference.
    """

    name: ClassVar[str] = "drift"
    columns: ClassVar[dict[str, str]] = {
        "site": "",
        "reads": "",
        "reference": "",
        "input": "",
        "steps": "steps",
        "shift": "reference deviations",
        "moved": "reference deviations",
        "log variance ratio": "nats",
        "divergence": "nats",
        "Wasserstein-2": "reference deviations",
        "log range ratio": "nats",
    }
    of_norms: ClassVar[bool] = True
    nothing: ClassVar[str] = NOWHERE

    steps: tuple[int, ...] = (1, 2, 5, 10, 20)
    corruption: str = "defocus_blur"
    severity: int = 5

    def __post_init__(self) -> None:
        if self.corruption not in CORRUPTIONS:
            raise unknown("corruption", self.corruption, CORRUPTIONS)
        check_severity(self.severity)
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps of drift are numbers of PGD steps; got {self.steps}; give whole numbers >= 1")

    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterator[tuple[Any, ...]]:
        layers, rows = layers_of(model, batches[0].x), sum(len(batch.y) for batch in batches)
        if not layers:
            return
        found: dict[tuple[str, int | None], dict[str, Tensor]] = {}
        for batch in batches:
            path = pgd_path(model, batch.x, batch.y, threat, sorted(self.steps), rng)
            noise = (batch.x + shuffled(path[max(path)] - batch.x, rng)).clamp(0, 1)
            kinds: dict[tuple[str, int | None], Tensor] = {("clean", 0): batch.x, ("noise", None): noise}
            seed, clean = draw(rng), dict[str, list[Seen]]()
            if batch.x.ndim == 4 and min(batch.x.shape[2:]) >= LEAST:
                changed = corrupted(batch, CORRUPTIONS[self.corruption], self.severity, seed)
                kinds[f"{self.corruption} {self.severity}", None] = changed.x
            kinds |= {("adversarial", count): x for count, x in path.items()}
            for sort, x in kinds.items():
                seen = _seen(model, layers, x, seed)
                clean = clean or seen
                sums = found.setdefault(sort, {})
                for site, layer in layers.items():
                    if seen[site]:  # a layer that the network does not use is never called
                        figures = _distances(tracked(layer.module), seen[site], clean[site])
                        sums[site] = sums.get(site, 0) + len(batch.y) / rows * figures
        for site, layer in layers.items():
            for (kind, count), sums in found.items():
                if site in sums:
                    key = site, "+".join(sorted(reads(layer.module) or ())), tracked(layer.module).reference, kind, count
                    yield *key, *sums[site].tolist()


class Seen(NamedTuple):
    """Statistics per channel of what went into a layer once."""

    mean: Tensor
    variance: Tensor
    range: Tensor


class Tracked(NamedTuple):
    """What a layer tracks of what goes into it; None: it does not."""

    mean: Tensor | None = None
    variance: Tensor | None = None
    range: Tensor | None = None

    @property
    def reference(self) -> str:
        """What its input is compared with, in words."""
        if self.mean is None:
            return "clean"
        return "running mean, clean variance" if self.variance is None else "running"


def tracked(module: nn.Module) -> Tracked:
    """The running statistics of a layer: of the route in use, and only what is known."""
    layer = module.active if isinstance(module, Routed) else module
    if isinstance(layer, StatNorm):
        measure = MEASURES[layer.measure]
        known = not layer._unknown_spread
        centre = layer.get_buffer(f"running_{measure.centre}")
        spread = layer.get_buffer(f"running_{measure.spread}") if known else None
        if layer.measure == "range":
            return Tracked(centre, None, spread)
        return Tracked(centre, spread) if known else Tracked()
    mean, variance = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
    return Tracked(mean, variance)


def _seen(model: nn.Module, layers: dict[str, Layer], x: Tensor, seed: int) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = {path: [] for path in layers}

    def note(path: str, h: Tensor) -> None:
        layer = layers[path].module
        median = isinstance(layer, StatNorm) and layer.measure == "median"
        of = MEASURES["median"].of if median else mean_and_variance
        found[path].append(Seen(*of(h.float()), mean_and_range(h.float())[1]))

    with heard(layers, note):
        ask(model, x, seed)
    return found


def _distances(reference: Tracked, seen: list[Seen], clean: list[Seen]) -> Tensor:
    """The figures of one site and batch, means over channels and calls."""
    each = []
    for one, before in zip(seen, clean, strict=True):
        mean = before.mean if reference.mean is None else reference.mean
        variance = before.variance if reference.variance is None else reference.variance
        shift, *others = between(one.mean, one.variance, mean, variance)
        moved = (one.mean - before.mean).abs() / (variance + EPS).sqrt()
        ranged = torch.full_like(mean, torch.nan)
        if reference.range is not None:
            ranged = ((one.range + EPS) / (reference.range + EPS)).log().abs()
        each.append(torch.stack([shift, moved, *others, ranged]).double().mean(1))
    return torch.stack(each).mean(0)


class Between(NamedTuple):
    """How far one Gaussian lies from another, per channel."""

    shift: Tensor
    log_variance_ratio: Tensor
    divergence: Tensor
    wasserstein: Tensor


def between(mean: Tensor, variance: Tensor, mean0: Tensor, variance0: Tensor) -> Between:
    """Compare Gaussians with these means and variances with the reference ones, each of shape (c,); see `Drift`.

    >>> one, four = torch.tensor([1.0]), torch.tensor([4.0])
    >>> [round(float(x), 2) for x in between(3 * one, four, one, one)]
    [2.0, 1.39, 3.62, 2.24]
    """
    variance, variance0, d2 = variance + EPS, variance0 + EPS, (mean - mean0).square()
    return Between(
        shift=(d2 / variance0).sqrt(),
        log_variance_ratio=(variance / variance0).log().abs(),
        divergence=((variance + d2) / variance0 + (variance0 + d2) / variance) / 2 - 1,
        wasserstein=((d2 + (variance.sqrt() - variance0.sqrt()).square()) / variance0).sqrt(),
    )
