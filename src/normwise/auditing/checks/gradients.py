"""Do gradients reach the pixels, and are they useful?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ... import losses
from ...attacks import FGSM, PGD
from ...attacks.bpda import straight_through
from ...attacks.oracle import Oracle
from ...evaluation.predictor import Predictor
from ...seeding import generator
from ...types import Batch, Images, Region
from ...utils.forward import logits_of
from ...utils.model_state import device_of, running, untouched
from ...utils.per_row import l1
from .case import Case, Found, found, question

PARTS = [(point + 1) / 9 for point in range(9)]  # of the way out to the radius, where the loss surface is looked at

BLIND = 0.5  # share of rows for which the gradient may be no better than random directions

StandIn = Callable[[Tensor], Tensor] | None  # for `straight_through`


@question(
    "gradients per layer",
    "without a gradient, gradient attacks do nothing, however weak the network is; attack a straight-through copy",
)
def per_layer(case: Case) -> Found:
    """Layers that cut the gradient or make it infinite; images whose gradient is 0 or vanishing."""
    cuts, batch = cutting_layers(case.model, case.batches[0], case.seed), case.first()
    if cuts:
        return found(f"cut at {', '.join(cuts)}", len(case.batches[0].y), fail=True)
    try:
        with running(case.model, "eval"), untouched(case.model, generator(case.seed, "gradients")):
            evaluated = Oracle(case.model).gradient(
                batch.x, batch.y, losses.margin, torch.ones_like(batch.y, dtype=torch.bool)
            )
    except ValueError as error:
        return found(f"{str(error).split(';')[0]}; {_reached(case)}", len(batch.y), fail=True)
    with running(case.model, "eval"):
        plain = Predictor(case.model, case.seed).logits(batch.x)
    half = any(weight.dtype in (torch.float16, torch.bfloat16) for weight in case.model.parameters())
    if not case.random and (evaluated.logits - plain).abs().max() > (5e-2 if half else 1e-3) * plain.abs().max():
        measured = "the network gives other answers when a gradient is requested"
        case.violations.append(measured)
        return found(measured, len(batch.y), fail=True)
    size = l1(evaluated.grad)
    zero, faint = size == 0, size < 1e-6 * evaluated.logits.abs().amax(1)
    many = len(zero) // 10
    measured = (
        f"{int(zero.sum())} of {len(zero)} images have a gradient of exactly 0, {int((faint & ~zero).sum())} a vanishing one"
    ) + (f"; {_reached(case)}" if int(faint.sum()) > many else "")
    return found(measured, len(zero), fail=int(zero.sum()) > many, warn=int(faint.sum()) > many)


class _Surface(NamedTuple):
    """Mean rise of the margin, in standard deviations of the logits, along the gradient and in random directions; share of misled images."""

    along: list[float]
    beside: list[float]
    blind: float


def _out(oracle: Oracle, region: Region, batch: Batch, origin: Images, rng: torch.Generator) -> _Surface:
    evaluated = oracle.gradient(origin, batch.y, losses.margin, torch.ones_like(batch.y, dtype=torch.bool))
    ways = [evaluated.grad, *(torch.randn(batch.x.shape, generator=rng, dtype=torch.float32).to(batch.x) for _ in range(4))]

    def raised(way: Tensor, part: float) -> Tensor:
        image = region.project(region.ascend(origin, way, part * region.radius))
        return losses.margin(oracle.logits(image), batch.y) - evaluated.loss

    rises = torch.stack([torch.stack([raised(way, part) for way in ways]) for part in PARTS])  # part, way, row
    scale = evaluated.logits.std().clamp_min(1e-12)
    blind = (rises[-1, 0] < rises[-1, 1:].amax(0)).float().mean()
    along, beside = (rises[:, 0].mean(1) / scale).tolist(), (rises[:, 1:].mean((1, 2)) / scale).tolist()
    return _Surface(along, beside, float(blind))


def _surface(case: Case, model: nn.Module, started: bool = False) -> _Surface:
    """The loss surface of a network around the first images, or around random starts."""
    batch, rng = case.first(), generator(case.seed, "surface")
    with running(model, "eval"), untouched(model, generator(case.seed, "surface's model")):
        region = case.threat.around(batch.x, generator=rng)
        return _out(Oracle(model), region, batch, region.start() if started else batch.x, rng)


@question(
    "loss surface",
    "if random directions raise the loss as much as the gradient, the gradient is no use: use black-box attacks, "
    "straight-through copies and transfer",
)
def surface(case: Case) -> Found:
    """The margin along the gradient and along random directions of the same length, out to the radius.

    From the image, and from a random start, where it ends with the region. In patches, frames and few pixels it only warns: steps are large.
    """
    clean, started = _surface(case, case.model), _surface(case, case.model, started=True)
    lines = [
        f"from {origin} the margin rises by {one.along[-1]:.2f} deviations of the logits along the gradient, by "
        f"{one.beside[-1]:.2f} in random directions; no better than one of 4 random directions: {100 * one.blind:.0f}% of images"
        for origin, one in (("the image", clean), ("a random start", started))
    ]
    return found(
        f"out to the radius, {'; '.join(lines)}",
        len(case.first().y),
        fail=clean.blind > BLIND and case.pixels not in ("patch", "frame", "spa"),
        warn=max(clean.blind, started.blind) > 0.2,
        series={
            "over": "share of the radius",
            "values": PARTS,
            "scores": clean.along,
            "of": "margin along the gradient",
            "beside": {
                "random directions": clean.beside,
                "gradient, from a random start": started.along,
                "random directions, from a random start": started.beside,
            },
        },
    )


@question(
    "one step and many",
    "a network that is robust against one step only was trained against one step (catastrophic overfitting) or against none: "
    "evaluate it with many steps",
)
def one_step(case: Case) -> Found:
    """Catastrophic overfitting: strong against one step, weak against many."""
    one, many = case.accuracy(FGSM()), case.accuracy(PGD(steps=50, restarts=2))
    measured = f"fgsm leaves {100 * one:.1f}%, pgd-50x2 {100 * many:.1f}%"
    return found(measured, case.scored, warn=many < one / 2 and one - many > 0.1)


@question(
    "label leaking",
    "a network that is more accurate after one step than before reads the label from the step: its training leaked labels; "
    "evaluate it with many steps",
)
def leaking(case: Case) -> Found:
    """Is accuracy after one step above clean accuracy? (Kurakin et al. 2017, arXiv:1611.01236, sec. 4.3)"""
    clean = left = 0
    for batch in case.batches:
        x, y = batch.x.to(device_of(case.model)), batch.y.to(device_of(case.model))
        rng = generator(case.seed, "leaking", len(y), clean)
        with running(case.model, "eval"), untouched(case.model, rng):
            oracle, region = Oracle(case.model), case.threat.around(x, generator=rng)
            evaluated = oracle.gradient(x, y, losses.named("ce"), torch.ones_like(y, dtype=torch.bool))
            stepped = oracle.logits(region.project(region.ascend(x, evaluated.grad, region.radius)))
        clean += int(losses.correct(evaluated.logits, y).sum())
        left += int(losses.correct(stepped, y).sum())
    rise = (left - clean) / case.rows
    measured = f"{100 * clean / case.rows:.1f}% correct on clean images, {100 * left / case.rows:.1f}% after one step with the true labels"
    return found(measured, case.rows, fail=rise > case.tolerance)


@question(
    "straight through",
    "an attacker can go around a layer without a gradient: quote what is left then",
    "the images; gradients come from a copy whose cutting layers pass them unchanged. Batches and statistics are fixed",
)
def passed_through(case: Case) -> Found:
    """Attack a copy whose cutting layers, and a softmax in the network, pass the gradient as it comes.

    A layer with several output channels for each input channel, such as a thermometer code, passes the gradient of each to that
    one. For other shapes no replacement is known.
    """
    cuts = cutting_layers(case.model, case.batches[0], case.seed)
    cuts |= {path: None for path, module in case.model.named_modules() if path and isinstance(module, nn.Softmax)}
    if not cuts:
        arrives = gradients_by_layer(case.model, case.first(), case.seed).get("", 0.0) > 0
        measured = (
            "no layer cuts the gradient" if arrives else "no gradient arrives, and no single layer cuts it: craft on a copy"
        )
        return found(measured, len(case.batches[0].y), fail=not arrives)
    if strange := [path for path, stand_in in cuts.items() if stand_in is no_stand_in]:
        return found(f"{', '.join(strange)} has no known replacement: craft on a copy of your own", None, fail=True)
    way = straight_through(case.model, cuts)
    left = case.evaluate(PGD(steps=50), craft_on=way, called="straight through").robust_accuracy
    blind = _surface(case, way).blind
    case.through = left if blind <= BLIND else None
    measured = f"with {', '.join(cuts)} passed straight through, pgd-50 leaves {left}; "
    measured += f"that gradient is no better than one of 4 random directions: {100 * blind:.0f}% of images"
    return found(measured, left.rows, fail=case.exceeds(left))


@question(
    "noise of its own",
    "an attacker can average over the model's noise: quote what is left then",
    "the images; the attacker knows how the model draws, not what it will draw. Batches and statistics are fixed",
)
def noise(case: Case) -> Found:
    """PGD whose gradients are means over draws of the model's noise."""
    if not case.random:
        return found("the model is not random", None)
    left = case.evaluate(PGD(steps=20, draws=10)).robust_accuracy
    return found(f"pgd-20 over 10 draws leaves {left}", left.rows, fail=case.exceeds(left))


def _reached(case: Case) -> str:
    """Say how far the gradient gets, from the logits down."""
    sizes = gradients_by_layer(case.model, case.first(), case.seed)
    bad = [path or "the pixels" for path, size in sizes.items() if not math.isfinite(size)]
    if bad:
        return f"it is not finite from {bad[-1]} down"
    there = [path for path, size in sizes.items() if size > 0]
    if there and there[0]:
        return f"the deepest layer it reaches is {there[0]}"
    falls = [(sizes[below] / sizes[above], above) for below, above in itertools.pairwise(sizes)] if there else []
    factor, where = min(falls, default=(0.0, ""))
    return f"it shrinks most at {where}, to {factor:.1g} of what arrives there" if where else "it reaches no layer"


def gradients_by_layer(model: nn.Module, batch: Batch, seed: int = 0) -> dict[str, float]:
    """The largest entry of the margins' gradient in the pixels ("") and behind each innermost layer, in the order of the pass.

    0 where none arrives, NaN or infinite where it is not finite.
    """
    x, outputs = batch.x.detach().clone().requires_grad_(), dict[str, Tensor]()

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            if isinstance(answer, Tensor) and answer.requires_grad:
                outputs[path] = answer

        return hook

    handles = [m.register_forward_hook(keep(path)) for path, m in model.named_modules() if path and not any(m.children())]
    with running(model, "eval"), untouched(model, generator(seed, "by layer")), torch.enable_grad():
        try:
            total = losses.margin(logits_of(model, x), batch.y).sum()
        finally:
            for handle in handles:
                handle.remove()
        behind = {"": x, **outputs}
        if not total.requires_grad:
            return dict.fromkeys(behind, 0.0)
        grads = torch.autograd.grad(total, list(behind.values()), allow_unused=True)
    return {path: 0.0 if grad is None else float(grad.abs().max()) for path, grad in zip(behind, grads, strict=True)}


def cutting_layers(model: nn.Module, batch: Batch, seed: int = 0) -> dict[str, StandIn]:
    """The innermost layers through which no gradient passes, each with a stand-in for `straight_through`.

    Found by asking each layer alone, on the input it got: the gradient of its output's sum of squares is missing or 0. None
    stands for the identity, and `no_stand_in` in for a layer of another shape, but for one with several channels for each.
    """
    x, inputs = batch.x.to(device_of(model)), dict[str, Tensor]()
    leaves = {path: module for path, module in model.named_modules() if path and not any(module.children())}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
            if given and isinstance(given[0], Tensor) and isinstance(answer, Tensor):
                inputs.setdefault(path, given[0].detach().clone())

        return hook

    handles = [module.register_forward_hook(keep(path)) for path, module in leaves.items()]
    cuts = dict[str, StandIn]()
    with running(model, "eval"), untouched(model, generator(seed, "cuts")):
        try:
            with torch.no_grad():
                logits_of(model, x)
        finally:
            for handle in handles:
                handle.remove()
        for path, given in inputs.items():
            if not given.is_floating_point():
                continue
            given.requires_grad_()
            with torch.enable_grad():
                answer = leaves[path](given.clone())  # which it may overwrite
                total = (answer.square() + answer).sum()
                grad = torch.autograd.grad(total, given, allow_unused=True)[0] if total.requires_grad else None
            moves = bool((answer != answer[:1]).any())
            if moves and (grad is None or not (grad != 0).any()):
                cuts[path] = _stand_in(given.shape, answer.shape)
    return cuts


def _stand_in(given: torch.Size, answered: torch.Size) -> StandIn:
    """Of a layer between these shapes."""
    if given == answered:
        return None
    times, rest = divmod(answered[1], given[1]) if len(given) == len(answered) > 1 else (0, 1)
    if rest or not times or (given[0], *given[2:]) != (answered[0], *answered[2:]):
        return no_stand_in
    return lambda x: x.repeat_interleave(times, 1)


def no_stand_in(x: Tensor) -> Tensor:
    """Stands in for a layer of which none is known."""
    return x
