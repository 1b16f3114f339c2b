"""Does a row's answer depend on the rows beside it? Measured, not declared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from torch import Tensor, nn

from ..seeding import generator
from ..types import Batch, Images
from ..utils.batches import Rows, images_of, sizes_of
from ..utils.fidelity import logit_distance
from ..utils.forward import logits_of
from ..utils.model_state import device_of, digest, modes_of, plain_state, unregistered_tensors, untouched
from ..utils.per_row import over

PROBED = 64  # images of a batch on which coupling is measured, at most


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """What repeating a forward pass, and changing a row's neighbours, does to the row's logits.

    coupled         a row's logits moved when only other rows of its batch were replaced, or the rows were reordered
    random          the same batch gives other logits when the model's own random draws are others, wherever it draws them
    stateful        a forward pass, with a gradient asked for or without, changes a buffer, a parameter or a mode; or it
                    changes tensors that modules hold, and the next answer with them
    counts          attributes of modules that every pass changes, such as a counter or a list that grows; nobody puts them back
    largest_change  of a logit of an untouched row, as `utils.fidelity.logit_distance` measures it
    tolerance       what repeating the same pass explains, in the same units
    flips           untouched rows whose decision changed with their neighbours, out of `rows`
    """

    coupled: bool
    random: bool
    stateful: bool
    largest_change: float
    tolerance: float
    flips: int
    rows: int
    counts: str = ""


def probed(batches: Sequence[Batch]) -> list[Images]:
    """The images that show how rows of these batches are coupled: up to 64 of the first batch of the largest size and, if it is
    as large, of the one after it. A row alone has no neighbours that it could show."""
    sizes = sizes_of(batches)
    first = sizes.index(max(sizes))
    return [batch.x[:PROBED] for batch in batches[first : first + 2] if len(batch.y) == sizes[first]]


def coupling_in(model: nn.Module, batches: Sequence[Batch], *, seed: int = 0) -> Coupling:
    """How rows of these batches are coupled: measured on `probed` rows, and on whole batches where rows answer otherwise in these."""
    shown, sizes = probed(batches), sizes_of(batches)
    found = measure_coupling(model, shown, seed=seed)
    if found.coupled or found.random or max(sizes) <= PROBED:
        return found
    largest = [number for number, size in enumerate(sizes) if size == max(sizes)]
    whole = [batches[number].x for number in largest[:2]]
    with torch.no_grad(), untouched(model, generator(seed, "whole")):
        few, many = (logits_of(model, x.to(device_of(model)).clone()).double() for x in (shown[0], whole[0]))
    same = float(logit_distance(many[: len(few)], few).amax()) <= found.tolerance
    return found if same else measure_coupling(model, whole, seed=seed)


def measure_coupling(model: nn.Module, batches: Rows, *, seed: int = 0) -> Coupling:
    """Measure coupling on batches of one size, in the mode the model is in, leaving the model as it was.

    Each row's logits are compared with those it has when half of its neighbours are replaced by rows of another batch
    (of the same batch, rolled, if there is only one), by noise of black and white pixels, and when the rows are reordered.
    First all that may matter is changed at once, neighbours of either kind, places and random draws: where nothing moves,
    nothing matters, and three passes are enough. Else one thing is changed at a time, and only the pass that looks for
    randomness sees other draws.

    `batches` are images, or rows as `evaluate` takes them; shorter ones are left out. Raises ValueError for no batch, or
    logits that are not (rows, classes).
    """
    batches = [x.to(device_of(model)) for x in images_of(batches)]
    batches = [x for x in batches if len(x) == max(map(len, batches))]
    batches = [x for x in batches if x.shape == batches[0].shape and x.dtype == batches[0].dtype]
    if not batches:
        raise ValueError("coupling is measured on at least one batch of images; got none")
    found = [_measure(model, x, batches[(i + 1) % len(batches)], seed) for i, x in enumerate(batches)]
    worst = max(found, key=lambda one: one.largest_change)
    return Coupling(
        coupled=any(one.coupled for one in found),
        random=any(one.random for one in found),
        stateful=any(one.stateful for one in found),
        largest_change=worst.largest_change,
        tolerance=worst.tolerance,
        flips=sum(one.flips for one in found),
        rows=sum(one.rows for one in found),
        counts=next((one.counts for one in found if one.counts), ""),
    )


def _measure(model: nn.Module, x: Images, other: Images, seed: int) -> Coupling:
    states = [plain_state(model)]
    stateful, holds, coarse = False, False, {x.dtype, *(p.dtype for p in model.parameters() if p.is_floating_point())}

    def ask(images: Tensor, draws: int = 0, graph: bool = False) -> Tensor:
        nonlocal stateful, holds
        with torch.set_grad_enabled(graph), untouched(model, generator(seed, "coupling", draws)):
            before = digest(model), modes_of(model)
            logits = logits_of(model, images.clone().requires_grad_(graph))
            coarse.add(logits.dtype)
            stateful = stateful or (digest(model), modes_of(model)) != before
            states.append(plain_state(model))
            holds = holds or any(value is not None for *_, value in unregistered_tensors(model))
        return logits.detach().double()

    rng = generator(seed, "peers")
    strangers = other if len(other) == len(x) and other is not x else x.roll(1, 0)
    noise = torch.randint(0, 2, x.shape, generator=rng).to(x)
    order = torch.randperm(len(x), generator=rng).to(x.device)
    place = torch.arange(len(x), device=x.device)
    halves = place % 2 == 0, place % 2 == 1

    def moved(answer: Tensor, expected: Tensor) -> float:
        found = float(logit_distance(answer, expected).amax()) if len(expected) else 0.0
        return math.inf if math.isnan(found) else found  # a row that neighbours turn into no number is not left alone

    base = None
    with suppress(Exception):  # a model that cannot be differentiated is not stateful for what an attack does
        base = ask(x, graph=True)
    base = ask(x) if base is None else base
    tolerance = rounding = min(100 * max(torch.finfo(dtype).eps for dtype in coarse), 0.05)
    stateful = stateful or (holds and _remembers(model, x, seed, tolerance))
    random, flipped = False, torch.zeros(len(x), dtype=torch.bool, device=x.device)
    both, change = torch.where(over(place % 4 < 2, x), noise, strangers), 0.0
    for kept in halves:
        if change <= rounding:
            answer = ask(torch.where(over(kept, x), x, both)[order], draws=1)
            change = max(change, moved(answer[kept[order]], base[order][kept[order]]))
    if change > rounding:
        base = ask(x)
        repeated, redrawn = moved(ask(x), base), moved(ask(x, draws=1), base)
        tolerance = max(10 * repeated, rounding)
        random = max(repeated, redrawn) > rounding  # the model's own generator is not set back: repeating differs
        change = 0.0
        for kept, peers in product(halves, (strangers, noise)):
            answer = ask(torch.where(over(kept, x), x, peers))
            change = max(change, moved(answer[kept], base[kept]))
            flipped |= kept & (answer.argmax(1) != base.argmax(1))
        if not random:  # else a row in another place meets other draws
            change = max(change, moved(ask(x[order]), base[order]))
    return Coupling(
        coupled=change > tolerance,
        random=random,
        stateful=stateful,
        largest_change=change,
        tolerance=tolerance,
        flips=int(flipped.sum()),
        rows=len(x),
        counts=", ".join(
            name for name in states[-1] if all(one.get(name) != two.get(name) for one, two in pairwise(states))
        ),
    )


def _remembers(model: nn.Module, x: Images, seed: int, tolerance: float) -> bool:
    """Whether tensors that a pass over other images leaves in the modules change the answer, which is else the same again."""

    def ask(before: Images | None = None) -> Tensor:
        with torch.no_grad(), untouched(model, generator(seed, "coupling", 0)):
            if before is not None:
                logits_of(model, before)
            with untouched(model, generator(seed, "coupling", 0)):  # the same draws, whatever was drawn before
                return logits_of(model, x.clone()).double()

    fresh, after, again = ask(), ask(1 - x), ask()
    return float(logit_distance(after, fresh).amax()) > tolerance >= float(logit_distance(again, fresh).amax())
