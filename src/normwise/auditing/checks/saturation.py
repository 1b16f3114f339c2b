"""Norms that are bounded functions: attack them as if they were less steep."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ...attacks import PGD
from ...attacks.bpda import straight_through
from ...evaluation.predictor import Predictor
from ...norms.bounded import Bounded, bounded, observed
from ...seeding import generator
from ...utils.forward import logits_of
from ...utils.model_state import copied, running, untouched
from ..broken_defenses import Scale
from .case import GAP, Case, Found, found, question

FLAT = 0.01  # of the largest slope
SEARCH = PGD(steps=50, restarts=3)


@question(
    "saturated normalization",
    "a bounded function in a norm's place (Dynamic Tanh, Derf) hides the gradient where it is saturated: attack with a gentler slope "
    "too, and quote the lowest figure",
    "the images; gradients come from copies whose bounded norms are less steep. Batches and statistics are fixed",
)
def saturated(case: Case) -> Found:
    """PGD-50 with the slopes of less steep functions, and on copies that are less steep, logits rescaled; checked on the network."""
    layers = bounded(case.model)
    if not layers:
        return found("no norm is a bounded function", None)
    reach, flat = _reach(case, layers)
    if max(reach.values(), default=0.0) <= 1:
        return found(f"{100 * flat:.1f}% of units are saturated, and no layer is where it bends", case.scored)
    batch = case.first()
    size = max(float(Predictor(case.model, case.seed).answers(batch.x, batch.y)[1].abs().median()), 1e-12)
    own, left = case.accuracy(PGD(steps=20)), dict[str, float]()
    for name, gentle in _gentler(case.model, layers, reach):
        rescaled = nn.Sequential(gentle, Scale(1 / size)).eval()
        left[name] = case.accuracy(SEARCH, craft_on=rescaled, called=f"bounded norms {name}")
    figures = ", ".join(f"{name} {100 * value:.1f}%" for name, value in left.items())
    measured = f"{100 * flat:.1f}% of units are saturated; pgd-50x3 leaves, with bounded norms {figures}; pgd-20 on the network itself {100 * own:.1f}%"
    return found(measured, case.scored, fail=min(left.values()) < own - max(GAP, case.tolerance))


def _reach(case: Case, layers: dict[str, Bounded]) -> tuple[dict[str, float], float]:
    """How far out most units of each layer lie, in its function's own units; and the share of all units that are saturated."""
    asked = untouched(case.model, generator(case.seed, "saturation"))
    with running(case.model, "eval"), asked, torch.no_grad(), observed(case.model) as seen:
        logits_of(case.model, case.first().x)
    units = {path: torch.cat([z.flatten() for z, _ in calls]).float() for path, calls in seen.items() if calls}
    reach = {path: float(torch.quantile(z.abs()[:: len(z) // 2**20 + 1], 0.9)) for path, z in units.items()}
    flat = torch.cat([layers[path].slope(z) < FLAT for path, z in units.items()]) if units else torch.zeros(1)
    return reach, float(flat.float().mean())


def _gentler(model: nn.Module, layers: dict[str, Bounded], reach: dict[str, float]) -> Iterator[tuple[str, nn.Module]]:
    """Copies with a gentler slope: on the way back alone, or both ways; as gentle as brings most units within reach, or half as much."""
    for name, power in (("within reach", 1.0), ("half way", 0.5)):
        soft = {path: _softened(layers[path], far**power) for path, far in reach.items() if far > 1}
        yield f"{name} on the way back", straight_through(model, soft)
        both = copied(model)
        for path, far in reach.items():
            _soften(both.get_submodule(path), max(far, 1.0) ** power)
        yield f"{name} both ways", both


def _softened(layer: Bounded, by: float) -> nn.Module:
    layer = copied(layer)
    _soften(layer, by)
    return layer


def _soften(layer: nn.Module, by: float) -> None:
    """Divide all that stands inside the function: alpha, and a shift."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name not in ("weight", "bias"):
                parameter.div_(by)
