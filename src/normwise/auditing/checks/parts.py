"""Layers that need an attack of their own: routes, substitutes, ranges."""

from __future__ import annotations

from torch import Tensor

from ...attacks import PGD
from ...evaluation.predictor import Predictor, classes_of
from ...models.abnn import ABNN, detached
from ...norms import Routed, StatNorm, on_route
from ...utils.model_state import copied
from .case import GAP, Case, Found, found, question

SHARPNESS = 20.0  # of the smooth maximum, in the range's own units


@question(
    "every route",
    "a network with several sets of statistics is as robust as the route in use: say which route that is, and who chooses it",
    "the images, on the route in use; images made on the other routes are tried on it. Batches and statistics are fixed",
)
def routes(case: Case) -> Found:
    """PGD-20 on each route of routed norms, each checked on itself; what it finds is tried on the route in use too."""
    layers = [module for module in case.model.modules() if isinstance(module, Routed)]
    if not layers:
        return found("no norm has routes", None)
    values = []
    for route in range(min(layer.routes for layer in layers)):
        taken = all(layer.route == route and layer.soup is None and not layer.detected for layer in layers)
        other = None if taken else on_route(case.model, route)
        one = case if other is None else Case(other, case.batches, case.threat, seed=case.seed)
        values.append(one.accuracy(PGD(steps=20)))
        if other is not None:
            case.accuracy(PGD(steps=20), craft_on=other, called=f"made on route {route}")
    measured = ", ".join(f"route {route}: {100 * value:.1f}%" for route, value in enumerate(values))
    used = "what the detector weights" if layers[0].detected else layers[0].route
    summary = f"{measured}; in use: {used}, the worst route leaves {100 * min(values):.1f}%"
    return found(summary, case.scored, warn=max(values) - min(values) > GAP)


@question(
    "around the substitute",
    "the attacker knows the substitute too; images made through it, around it, or on it alone all count: quote the lowest figure",
    "the images that both networks see. The batch, its order, its size and the running statistics are fixed",
)
def substitute(case: Case) -> Found:
    """PGD-20 on the whole network, without the substitute's gradient, and on the substitute alone; checked on the whole network."""
    model = case.model
    if not isinstance(model, ABNN) or model.substitute is None:
        return found("there is no substitute", None)
    through = case.accuracy(PGD(steps=20))
    around = case.accuracy(PGD(steps=20), craft_on=detached(model), called="around the substitute")
    measured = f"through both {100 * through:.1f}%, around the substitute {100 * around:.1f}%"
    lowest = around
    batch = case.first(2)
    if classes_of(Predictor(model.substitute, 0), batch.x) == classes_of(Predictor(model, 0), batch.x):
        alone = case.accuracy(PGD(steps=20), craft_on=model.substitute, called="on the substitute alone")
        measured, lowest = f"{measured}, on the substitute alone {100 * alone:.1f}%", min(around, alone)
    return found(measured, case.scored, fail=lowest < through - case.tolerance)


@question(
    "smooth range",
    "the range of a batch passes gradients to only two pixels of a channel, so an attack may fail; attack with a smooth range and "
    "with a constant one too, and quote the lowest figure",
    "the images of a batch; gradients come from copies. The batch, its order, its size and the running statistics are fixed",
)
def smooth_range(case: Case) -> Found:
    """For norms that read the batch's range: PGD-20 on copies with a smooth one and with a constant one, checked on the network."""
    ways = {"smooth": _mean_and_smooth_range, "passed straight through": _mean_and_still_range}
    left = {}
    for name, of in ways.items():
        way = copied(case.model)
        layers = [m for m in way.modules() if isinstance(m, StatNorm) and m.measure == "range" and m.spread_share > 0]
        if not layers:
            return found("no norm reads the batch's range", None)
        for layer in layers:
            layer._measure = layer._measure._replace(of=of)
        left[name] = case.accuracy(PGD(steps=20), craft_on=way, called=f"range {name}")
    own = case.accuracy(PGD(steps=20))
    figures = ", ".join(f"{100 * value:.1f}% with the range {name}" for name, value in left.items())
    measured = f"pgd-20 leaves {figures}, {100 * own:.1f}% on the network itself"
    return found(measured, case.scored, fail=min(left.values()) < own - max(GAP, case.tolerance))


def _mean_and_smooth_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and a range whose ends are means weighted by exp(+-sharpness * x / range)."""
    flat = x.transpose(0, 1).flatten(1)
    scale = SHARPNESS / (flat.detach().amax(1, keepdim=True) - flat.detach().amin(1, keepdim=True)).clamp_min(1e-12)
    high, low = ((flat * (sign * scale * flat).softmax(1)).sum(1) for sign in (1, -1))
    return flat.mean(1), high - low


def _mean_and_still_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and the range without a gradient: minimum, maximum and power are passed straight through."""
    flat = x.transpose(0, 1).flatten(1)
    return flat.mean(1), (flat.amax(1) - flat.amin(1)).detach()
