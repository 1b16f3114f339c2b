"""Does the network behave differently for attackers? Tested on the data's own grid, and with other kinds of calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ...attacks import PGD, Square
from ...evaluation.evaluator import searched
from ...evaluation.naming import label
from ...evaluation.plan import AttackPlan
from ...seeding import generator
from ...types import Attack, Batch, Images
from ...utils.fidelity import logit_distance
from ...utils.forward import in_time, logits_in, logits_of
from ...utils.model_state import device_of, running, untouched
from .case import Case, Found, found, question
from .levels import SLACK, OnGrid

LONE = 8  # rows that are attacked one at a time
ASKED = 32  # rows of clean images, and of what each of some searches found, that are asked about in other ways
SEARCHES = 4  # whose images are asked about in other ways
MOVED, COARSE = (
    0.05,
    0.2,
)  # of the largest logit: what is another answer; where numbers are coarse, with another class besides


@question(
    "grid of the pixels",
    "images are stored in whole levels and attacks use values between them: a network must not behave differently there; quote "
    "the lower of both figures",
)
def grid(case: Case) -> Found:
    """PGD-20 through a rounding to the data's own levels, and what all searches found, rounded towards the clean images."""
    levels = case.again.levels
    if levels is None:
        return found("the pixels lie on no grid of 255 levels or fewer: nothing is rounded", None)
    region = case.threat.around(case.first(2).x, generator=generator(case.seed, "grid"))
    if region.kind in ("linf", "l2", "l1") and region.radius * levels < 1 - SLACK:
        measured = f"pixels are whole multiples of 1/{levels}, and the radius is {region.radius * levels:.2g} of a level"
        return found(f"{measured}: no image on the grid but the clean one is allowed", case.scored)
    measured, fail = f"pixels are whole multiples of 1/{levels}; ", False
    try:
        left = case.evaluate(OnGrid(attack=PGD(steps=20), levels=levels)).robust_accuracy
        measured, fail = f"{measured}pgd-20 on that grid leaves {left}; ", case.exceeds(left)
    except ValueError as error:  # no gradient to follow
        measured += f"pgd-20 on that grid: {str(error).split(';')[0]}; "
    measured += f"rounded to it, images of one search break {case.again.worse} images more than as they were found"
    return found(measured, case.scored, fail=fail or case.again.worse > case.tolerance * case.rows)


def _in_inference(model: nn.Module, x: Images) -> Tensor:
    with torch.inference_mode():
        return logits_of(model, x)


def _with_gradients(model: nn.Module, x: Images) -> Tensor:
    with torch.enable_grad():
        return logits_of(model, x)


def _for_a_gradient(model: nn.Module, x: Images) -> Tensor:
    with torch.enable_grad():
        return logits_in(model(x.clone().requires_grad_()), len(x))


def _in_autocast(model: nn.Module, x: Images) -> Tensor:
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        return logits_of(model, x)


def _channels_last(model: nn.Module, x: Images) -> Tensor:
    return logits_of(model, x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x)


def _alone(model: nn.Module, x: Images) -> Tensor:
    return torch.cat([logits_of(model, one) for one in x.split(1)])


WAYS: dict[str, Callable[[nn.Module, Images], Tensor]] = {  # of asking, beside under no_grad
    "in inference_mode": _in_inference,
    "with gradients enabled": _with_gradients,
    "with requires_grad_": _for_a_gradient,
    "in autocast": _in_autocast,
    "in channels_last": _channels_last,
    "alone": _alone,
}


@question(
    "other ways of asking",
    "a network must give an image the same answer however it is called: one that detects how attacks call it can hide from them",
    "the images, and how the network is called: one image at a time, or in autocast; the running statistics are fixed",
)
def ways(case: Case) -> Found:
    """Answers to clean images and to found ones under no_grad, beside those in other ways; and an attack on one row at a time."""
    if case.random:
        return found("the model is random: answers always differ", None)
    unlike, refused, rows = dict[str, int](), list[str](), 0
    parts = list(_some(case))
    for name, way in WAYS.items():
        if name == "alone" and case.coupled:
            continue
        try:
            unlike[name] = sum(_unlike(case, way, x, coarse=name == "in autocast") for x in parts)
        except TimeoutError:
            raise
        except Exception:
            refused.append(name)
    rows = sum(map(len, parts))
    differing = [f"{count} {name}" for name, count in unlike.items() if count]
    if differing:
        case.violations.append(
            f"answers depend on how the network is called: of {rows} images {', '.join(differing)} get other answers"
        )
    measured = f"of {rows} clean and adversarial images, other answers than under no_grad: {', '.join(differing) or 'none'}"
    measured += f"; it cannot be called {', '.join(refused)}" if refused else ""
    faces = list(_attacked(case))
    measured += "".join(
        f"; attacked {name}, {fell} of {stood} images are misclassified that stayed correct before"
        for name, fell, stood in faces
    )
    shown = [
        f"attacked {name}, {fell} of {stood} images are misclassified that stayed correct before"
        for name, fell, stood in faces
        if 2 * fell > max(stood, 2)
    ]
    case.violations += shown
    return found(measured, rows, fail=bool(differing or shown))


def _some(case: Case) -> Iterator[Images]:
    """The first clean images, and the first that some searches ended with."""
    device, kept = device_of(case.model), case.again.kept
    size = len(case.batches[0].y) if case.coupled else ASKED
    yield case.batches[0].x[:size].to(device)
    for one in kept[:: max(1, len(kept) // SEARCHES)][:SEARCHES]:
        yield one.batch.x[:size].to(device)


def _unlike(case: Case, way: Callable[[nn.Module, Images], Tensor], x: Images, coarse: bool) -> int:
    """Rows that are answered otherwise in this way than under no_grad, each by a copy of the network where there can be one."""
    answers = []
    for one in (logits_of, way):
        in_time()
        model = case.again.fresh(case.model) or case.model
        with torch.no_grad(), running(model, "eval"), untouched(model, generator(case.seed, "ways")):
            answers.append(one(model, x).detach().clone().double())
    usual, other = answers
    gap = logit_distance(other, usual).amax(1)
    if coarse:
        return int(((gap > COARSE) & (other.argmax(1) != usual.argmax(1))).sum())
    return int((gap > MOVED).sum())


def _attacked(case: Case) -> Iterator[tuple[str, int, int]]:
    """Per way of asking, how many rows fall to a short attack that stood when they were attacked as always; of how many."""
    company = [Batch(*(part[:LONE] for part in batch)) for batch in case.standing()[:1]]
    if case.coupled or not company:
        return
    attack: Attack = PGD(steps=20)
    try:
        case.evaluate(attack, batches=company)
    except ValueError:  # no gradient to follow
        attack = Square(steps=100)
        case.evaluate(attack, batches=company)
    stood = [one for one in company[0].ids.tolist() if one not in case.ledger.first]
    here = [place for place, one in enumerate(company[0].ids.tolist()) if one in stood]
    if not here:
        return
    rows = Batch(*(part[here] for part in company[0]))
    alone = [Batch(*parts) for parts in zip(*(part.split(1) for part in rows), strict=True)]
    e = case.evaluate(attack, batches=alone, called=f"{label(attack)} on one image at a time")
    yield "alone", e.n - round(e.robust_accuracy.value * e.n), e.n
    try:
        plan = AttackPlan(case.threat, [attack], seed=case.seed, stateful="restore")
        e = searched(_InAutocast(case.model), [rows], plan).evaluation
        yield "in autocast", round((e.clean_accuracy.value - e.robust_accuracy.value) * e.n), e.n
    except TimeoutError:
        raise
    except Exception:  # it cannot be asked so
        return


class _InAutocast(nn.Module):
    """The network, asked in autocast."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Images) -> Tensor:
        return _in_autocast(self.network, x).float()
