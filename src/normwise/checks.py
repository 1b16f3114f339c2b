"""Is this evaluation to be believed? Further reasons to doubt it: from training, and from malicious neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from . import reach
from .attacks import PGD
from .doubts import ROWS, check
from .doubts import annotate as annotate
from .judge import Judge
from .modes import running
from .record import Check, Training
from .types import Batch


def of_training(training: Training) -> tuple[Check, ...]:
    """What training itself gives reason to doubt: with one step, whether the model came to withstand one step alone."""
    why = "adversarial training takes a folded copy to craft on where it answers as the network does"
    remarked = tuple(check("crafting", True, text, why, None) for text in training.remarks)
    if "one_step" not in training.validation:
        return remarked
    one, many = (100 * training.validation[name] for name in ("one_step", "robust"))
    kept = (
        f"in the kept epoch {training.best_epoch} one step leaves {one:.1f}% of the validation rows, many leave {many:.1f}%"
    )
    first = training.overfitted_epoch
    measured = f"many steps left less than half of what one left, first in epoch {first} of {training.epochs}; " * bool(
        first
    )
    why = "training with one step can overfit to that step (catastrophic overfitting): the figures are then of an earlier epoch, or of no robust model"
    return (*remarked, check("no overfitting to one step", not first, measured + kept, why, None))


def crafted_elsewhere(on: str) -> Check:
    """Images that were made on another network than the one that is judged say little of its robustness."""
    why = "who attacks another network, or sees a part of the gradient, is weaker than who sees it all: what is left is no robustness"
    return check("attacked itself", False, f"crafted on {on}", why, None)


def beside_malicious(model: nn.Module, batches: Sequence[Batch], seed: int = 0) -> Check:
    """Do rows that nobody touched change their class when the other half of their batch is malicious?

    On up to four batches; the victims are the half of each whose answers are least certain. Source: as `reach.peers`.
    """
    try:
        least_certain = [_least_certain_first(model, batch, seed) for batch in batches[:4]]
        r = reach.peers(model, least_certain, PGD(steps=20, relative_step=0.1), seed=seed)
        measured = f"{len(r.fell)} of {r.victims} untouched rows fall when the other half of their batch is malicious"
        measured += "".join(f"; row {row}, a {label}, is then taken for a {said}" for row, label, said in r.fell[:1])
        good, n = not r.fell, r.victims
    except ValueError as error:  # no gradient to follow, for one
        measured, good, n = f"not measured: {error}", False, None
    return check(
        "untouched rows beside malicious ones",
        good,
        measured,
        "an image that nobody touched must keep its class whatever is asked about beside it; read running statistics",
        n,
    )


def _least_certain_first(model: nn.Module, batch: Batch, seed: int) -> Batch:
    x, y, ids = (part[:ROWS] for part in batch)
    with running(model, "eval"):
        margin = Judge(model, seed).answers(x, y)[1].cpu()
    order = torch.where(margin < 0, margin, -torch.inf).argsort(
        descending=True, stable=True
    )  # what is wrong has no class to lose
    return Batch(x[order], y[order], ids[order])
