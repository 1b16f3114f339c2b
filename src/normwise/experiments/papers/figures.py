"""What is measured on a trained network: who still stands at which radius, drift, smoothness, margins."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...attacks import DDN, PGD
from ...data import CORRUPTIONS, corruptions
from ...data.corruptions.kind import SEVERITIES
from ...diagnostics.inputs import shuffled
from ...evaluation.coupling import Coupling
from ...evaluation.curves import Survivors
from ...evaluation.evaluator import searched
from ...evaluation.plan import AttackPlan
from ...evaluation.shifts.run import answered, predicting
from ...norms import sites
from ...norms.layer import StatNorm
from ...norms.moments import mean_and_variance
from ...seeding import generator
from ...threats import L2, Linf
from ...types import Attack, Batch, Search, ThreatModel
from ...utils.batches import Masked, sizes_of
from ...utils.forward import logits_of
from ...utils.model_state import copied, device_of, running, untouched
from ...utils.per_row import bits

Standing = dict[str, str]  # radius in pixels -> one character per row: 1 stays correct, 0 does not


def standing(found: Survivors, radii: Sequence[float]) -> Standing:
    """Who stays correct untouched ("0"), and at each radius."""
    return {"0": bits(found.clean)} | {
        f"{radius:.6g}": bits(rows) for radius, rows in zip(sorted(radii), found.correct, strict=True)
    }


def last(
    model: nn.Module, batches: Sequence[Batch], radius: float, attack: Attack, before: Standing, seed: int
) -> dict[str, Any]:
    """What one more attack leaves at one radius of the independent rows that an earlier evaluation left.

    "before" and "strongest" are shares of all rows, "broken_by" counts which part broke what.
    """
    key = f"{radius:.6g}"
    after, by = torch.tensor([bit == "1" for bit in before[key]]), dict[str, int]()
    if some := Masked(batches, after.split(sizes_of(batches))):
        verdict = searched(model, some, AttackPlan(Linf(eps=radius), (attack,), seed=seed))
        after[after.clone()] = verdict.correct
        by = dict(verdict.evaluation.broken_by)
    return {
        "clean": share(before["0"]),
        "coupled": False,
        "before": {key: share(before[key])},
        "strongest": {key: share(bits(after))},
        "broken_by": by,
        "rows": {"strongest": {key: bits(after)}},
    }


def answers(model: nn.Module, batches: Sequence[Batch], classes: int) -> dict[str, Any]:
    """The label of every row, as words; the number of classes there are; and how many of them the network answers untouched."""
    with torch.no_grad(), running(copied(model), "eval") as still:
        answered = {int(one) for x, _ in _beside(still, batches) for one in logits_of(still, x).argmax(1)}
    labels = " ".join(str(int(label)) for batch in batches for label in batch.y)
    return {"labels": labels, "classes": classes, "answered": len(answered)}


def share(bits: str) -> float:
    """The share of rows that stay correct."""
    return bits.count("1") / len(bits)


def _beside(model: nn.Module, batches: Sequence[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels on the model's device."""
    device = device_of(model)
    return ((batch.x.to(device), batch.y.to(device)) for batch in batches)


def drift(model: nn.Module, batches: Sequence[Batch], eps: float, seed: int) -> dict[str, dict[str, float]]:
    """How far inputs of norms with running moments lie from these, per kind of image, as means over sites.

    "shift" is |mean of the batch - running mean| / running deviation, averaged over channels; "variance" is the mean
    absolute logarithm of the ratio of variances. Kinds: clean, adversarial (PGD-20 at eps), and noise: for each image the
    signs of random pixels with the adversarial change's own sizes, shuffled, so that every lp norm is equal up to the box.
    """
    rng, found = generator(seed, "drift"), dict[str, list[tuple[float, float]]]()
    for x, y in _beside(model, batches):
        adversarial = PGD(steps=20)(model, x, y, Linf(eps=eps), generator=rng).x_adv
        noise = (x + shuffled(adversarial - x, rng)).clamp(0, 1)
        for kind, images in (("clean", x), ("noise", noise), ("adversarial", adversarial)):
            found.setdefault(kind, []).append(_distance(model, images, rng))
    return {
        kind: {"shift": sum(a for a, _ in each) / len(each), "variance": sum(b for _, b in each) / len(each)}
        for kind, each in found.items()
    }


def _distance(model: nn.Module, x: Tensor, rng: torch.Generator) -> tuple[float, float]:
    seen: list[tuple[float, float]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean, variance = mean_and_variance(inputs[0])
        tracked, spread = module.get_buffer("running_mean"), module.get_buffer("running_var") + 1e-5
        shift = (mean - tracked).abs() / spread.sqrt()
        ratio = ((variance + 1e-5) / spread).log().abs()
        seen.append((shift.mean().item(), ratio.mean().item()))

    layers = [model.get_submodule(path) for path in sites(model)]
    hooks = [m.register_forward_pre_hook(watch) for m in layers if isinstance(m, StatNorm) and m.measure == "moments"]
    try:
        with torch.no_grad(), untouched(model, rng):
            logits_of(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        return math.nan, math.nan
    return sum(a for a, _ in seen) / len(seen), sum(b for _, b in seen) / len(seen)


def smoothness(model: nn.Module, batches: Sequence[Batch], eps: float, seed: int) -> dict[str, float]:
    """Two numbers for the claim of smoother models with larger margins; the paper's own metrics are not known.

    "lipschitz": |logits(x') - logits(x)|_1 / |x' - x|_inf at the end of PGD-10 on cross-entropy at eps, mean over rows, with
    logits scaled to unit deviation per model. "margin": the median smallest l2 change (DDN-100) that changes the
    answer, over rows classified correctly.
    """
    rng = generator(seed, "smoothness")
    slopes, margins, scales = [], [], []
    for x, y in _beside(model, batches):
        with torch.no_grad(), untouched(model, rng):
            clean = logits_of(model, x)
        scales.append(clean.std().item())
        adversarial = PGD(steps=10)(model, x, y, Linf(eps=eps), generator=rng).x_adv
        with torch.no_grad(), untouched(model, rng):
            moved = (logits_of(model, adversarial) - clean).abs().sum(1)
        slopes.append(moved / (adversarial - x).abs().flatten(1).amax(1).clamp_min(1e-6))
        right = clean.argmax(1) == y
        if right.any():
            margins.append(
                DDN(steps=100)
                .distances(model, x[right], y[right], L2(eps=0.5), generator=rng, search=Search(independent=True))
                .distance
            )
    return {
        "lipschitz": torch.cat(slopes).mean().item() / (sum(scales) / len(scales)),
        "margin": torch.cat(margins).median().item() if margins else 0.0,
    }


def corrupted(model: nn.Module, batches: Sequence[Batch], seed: int) -> dict[str, Any]:
    """Who is right under the 15 corruptions of Hendrycks and Dietterich (2019, arXiv:1903.12261), at all 5 severities.

    "corruptions" holds accuracies and "rows" one character per row, by kind and severity. Images are made as in
    `data.corruptions` from the seed and each row's id, so that two networks of one seed see the same ones.
    """
    predictor, coupled = predicting(model, batches, seed)
    rows = {
        kind: {
            str(severity): answered(
                predictor, [corruptions.corrupted(batch, corruption, severity, seed) for batch in batches]
            )
            for severity in SEVERITIES
        }
        for kind, corruption in CORRUPTIONS.items()
    }
    clean = answered(predictor, batches)
    return {
        "clean": share(clean),
        "coupled": coupled,
        "corruptions": {kind: {severity: share(bits) for severity, bits in each.items()} for kind, each in rows.items()},
        "rows": {"clean": clean, "corruptions": rows},
    }


def kept(
    model: nn.Module,
    batches: Sequence[Batch],
    threats: Mapping[str, ThreatModel],
    attack: Attack,
    seed: int,
    coupling: Coupling,
    craft_on: nn.Module | None = None,
) -> dict[str, float]:
    """Accuracy under one attack in each of these threat models; `craft_on` is what is attacked in the model's place."""
    found = {}
    for name, threat in threats.items():
        plan = AttackPlan(threat, (attack,), seed=seed)
        verdict = searched(model, batches, plan, craft_on=craft_on, coupling=coupling)
        found[name] = verdict.evaluation.robust_accuracy.value
    return found


def plain_numbers(figures: Any) -> Any:
    """Numbers that are none (a network without norms has no drift) as null."""
    if isinstance(figures, dict):
        return {key: plain_numbers(value) for key, value in figures.items()}
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures
