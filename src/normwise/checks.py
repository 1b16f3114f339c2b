"""Is this evaluation to be believed? Reasons to doubt it, attached to its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn

from . import losses, reach
from .attacks import PGD
from .attacks.oracle import Oracle
from .judge import Judge
from .modes import device_of, running, untouched
from .record import Check, Evaluation, Training
from .seeding import generator
from .types import Batch

ENOUGH_BATCHES = 20  # for a bootstrap over batches
ROWS = 64  # of a batch in which neighbours are attacked, at most


def annotate(evaluation: Evaluation, model: nn.Module, batch: Batch) -> Evaluation:
    """Return the evaluation with its checks; `batch` is one of the batches it was made on.

    Each check says what it measured and why it matters. Its status is "pass", or "warn": the figures may mean less than
    they seem to.
    """
    found = [_independence(evaluation), _randomness(evaluation), _memory(evaluation), _order(evaluation)]
    found += _batches(evaluation)
    x, y = batch.x.to(device_of(model)), batch.y.to(device_of(model))
    with (
        running(model, "eval" if evaluation.mode == "eval" else "train"),
        untouched(model, generator(evaluation.seed, "checks")),
    ):
        found += [_probabilities(model, x), _gradient(model, x, y)]
    return dataclasses.replace(evaluation, checks=tuple(found))


def of_training(training: Training) -> tuple[Check, ...]:
    """What training itself gives reason to doubt: with one step, whether the model came to withstand one step alone."""
    if "one_step" not in training.validation:
        return ()
    one, many = (100 * training.validation[name] for name in ("one_step", "robust"))
    kept = (
        f"in the kept epoch {training.best_epoch} one step leaves {one:.1f}% of the validation rows, many leave {many:.1f}%"
    )
    first = training.overfitted_epoch
    measured = f"many steps left less than half of what one left, first in epoch {first} of {training.epochs}; " * bool(
        first
    )
    why = "training with one step can overfit to that step (catastrophic overfitting): the figures are then of an earlier epoch, or of no robust model"
    return (_check("no overfitting to one step", not first, measured + kept, why, None),)


def crafted_elsewhere(on: str) -> Check:
    """Images that were made on another network than the one that is judged say little of its robustness."""
    why = "who attacks another network, or sees a part of the gradient, is weaker than who sees it all: what is left is no robustness"
    return _check("attacked itself", False, f"crafted on {on}", why, None)


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
    return _check(
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


def _check(name: str, good: bool, measured: str, why: str, n: int | None) -> Check:
    return Check(name=name, status="pass" if good else "warn", measured=measured, why=why, n=n)


def _independence(e: Evaluation) -> Check:
    c = e.coupling
    return _check(
        "row independence",
        not e.coupled,
        f"largest change of an untouched row's logits: {c['largest_change']:.1e} (tolerance {c['tolerance']:.1e}); "
        f"{c['flips']} of {c['rows']} untouched rows changed their decision",
        "a row whose answer depends on its neighbours can be helped or broken by them: the verdict holds for these batches only",
        c["rows"],
    )


def _randomness(e: Evaluation) -> Check:
    random = bool(e.coupling["random"])
    return _check(
        "determinism",
        not random,
        "other random draws inside the model give other logits" if random else "the model's own random draws change nothing",
        "attacks that do not average over randomness are too weak for a random model",
        e.coupling["rows"],
    )


def _memory(e: Evaluation) -> Check:
    stateful = bool(e.coupling["stateful"])
    return _check(
        "statelessness",
        not stateful,
        "a forward pass changes buffers (put back here after each pass)" if stateful else "a forward pass changes no buffer",
        "a model that learns from its queries answers differently later",
        e.coupling["rows"],
    )


def _order(e: Evaluation) -> Check:
    fgsm, stronger = e.per_attack.get("fgsm"), [s for name, s in e.per_attack.items() if name.startswith("pgd-")]
    if fgsm is None or not stronger:
        return _check(
            "strength grows with steps", True, "not measured: needs fgsm and pgd", "a check that did not run", None
        )
    pgd = min(score.value for score in stronger)
    return _check(
        "strength grows with steps",
        pgd <= fgsm.value + 1 / fgsm.rows,
        f"fgsm leaves {100 * fgsm.value:.1f}%, pgd {100 * pgd:.1f}%",
        "one step that beats many is a sign of a masked gradient",
        fgsm.rows,
    )


def _batches(e: Evaluation) -> list[Check]:
    if not e.coupled:
        return []
    batches = e.clean_accuracy.n
    return [
        _check(
            "enough batches",
            batches >= ENOUGH_BATCHES,
            f"{batches} whole batches of {e.batch_size}",
            f"the interval of a coupled model is a bootstrap over batches; below {ENOUGH_BATCHES} it is too narrow",
            e.clean_accuracy.rows,
        )
    ]


def _probabilities(model: nn.Module, x: torch.Tensor) -> Check:
    logits = Oracle(model).logits(x)
    sums = bool(((logits.sum(1) - 1).abs() < 1e-3).all() and (logits >= 0).all())
    return _check(
        "logits",
        not sums,
        "rows sum to 1 and none is negative: probabilities" if sums else "the outputs are no probabilities",
        "a softmax inside the model saturates, and gradients of a loss of it vanish",
        len(x),
    )


def _gradient(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> Check:
    try:
        grad = Oracle(model).gradient(x, y, losses.margin, torch.ones_like(y, dtype=torch.bool)).grad
        zero = int((grad.flatten(1) == 0).all(1).sum())
        measured = f"{zero} of {len(y)} rows have a gradient of exactly 0 (margin loss)"
    except ValueError as error:  # cut, or not finite
        zero, measured = len(y), str(error)
    return _check(
        "gradient reaches the pixels",
        zero <= len(y) // 10,
        measured,
        "where the gradient is 0, gradient attacks stand still whatever the model's robustness",
        len(y),
    )
