"""Sanity checks of an evaluation: those that `evaluate` attaches to every record, those of training, and malicious neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .. import losses
from ..attacks import PGD
from ..attacks.base import BaseAttack
from ..attacks.oracle import Oracle
from ..records import Check, Evaluation, Training
from ..seeding import generator
from ..types import Attack, Batch, Search
from ..utils.fidelity import logit_distance
from ..utils.model_state import device_of, running, untouched
from . import batch_attacks, dead, ranges
from .batch import RowOutcomes
from .naming import label
from .predictor import Predictor

ENOUGH_BATCHES = 20  # for a bootstrap over batches
ROWS = 64  # of a batch that are asked about, at most
BEYOND = 0.05  # share of the rows that a search without gradients may find beyond those with
SEVERAL, WIDE = 8, 0.5  # rows that must all lie in [0, 1], and how much of it they must span, to be probabilities


def annotate(
    evaluation: Evaluation,
    model: nn.Module,
    batch: Batch,
    rows: RowOutcomes,
    attacks: Sequence[Attack] = (),
    difference: str = "",
    refused: str = "",
) -> Evaluation:
    """Return the evaluation with its checks. One that has checks is returned as it is.

    `batch` is one of the batches it was made on, `rows` what became of all.

    Each check says what it measured and why it matters. Its status is "pass", or "warn": the figures may mean less than they
    seem to. `difference`: why a faster copy was not searched. `refused`: why the images could not be scored in other
    batches. Costs one pass forward and backward over 64 rows at most, and five forward. `evaluate` has done this.
    """
    if evaluation.checks:
        return evaluation
    found = [_independence(evaluation), _randomness(evaluation), _memory(evaluation), _order(evaluation)]
    found += [dead.check_decision(rows.clean_predictions, rows.y)]
    found += _batches(evaluation) + _idle(attacks) + _masked(evaluation)
    with (
        running(model, "eval" if evaluation.mode == "eval" else "train"),
        torch.inference_mode(False),
        untouched(model, generator(evaluation.seed, "checks")),
    ):
        x, y = (part[:ROWS].to(device_of(model)).clone() for part in (batch.x, batch.y))
        oracle = Oracle(model, Search(independent=not evaluation.coupled))
        logits, gradient = _logits_and_gradient_check(oracle, x, y)
        pixels = ranges.check_range(oracle.logits, x, y)
        steady = not (evaluation.coupling["random"] or evaluation.coupling["stateful"])
        found += _same_without_a_gradient(logits, oracle.logits(x), evaluation.coupling["tolerance"]) if steady else []
    found += [_probabilities(logits), gradient, pixels, *_fallbacks(attacks, logits.shape[1])]
    found += [_copy(difference)] * bool(difference) + [_refused(refused)] * bool(refused)
    return dataclasses.replace(evaluation, checks=tuple(found))


ELSEWHERE, MASKED = "attacked itself", "gradients are not masked"


def check(name: str, good: bool, measured: str, why: str, n: int | None) -> Check:
    """A check that passes or warns."""
    return Check(name=name, status="pass" if good else "warn", measured=measured, why=why, n=n)


def _independence(e: Evaluation) -> Check:
    c = e.coupling
    return check(
        "row independence",
        not e.coupled,
        f"largest change of an unchanged image's logits: {c['largest_change']:.1e} (tolerance {c['tolerance']:.1e}); "
        f"{c['flips']} of {c['rows']} unchanged images got another class",
        "if the answer to an image depends on the rest of the batch, the figures hold for these batches only",
        c["rows"],
    )


def _randomness(e: Evaluation) -> Check:
    random = bool(e.coupling["random"])
    return check(
        "determinism",
        not random,
        "other random draws inside the model give other logits" if random else "the model's own random draws change nothing",
        "attacks that do not average over randomness are too weak for a random model",
        e.coupling["rows"],
    )


def _memory(e: Evaluation) -> Check:
    stateful, counts = bool(e.coupling["stateful"]), e.coupling.get("counts", "")
    measured = (
        "a forward pass changes buffers (put back here after each pass)" if stateful else "a forward pass changes no buffer"
    )
    return check(
        "statelessness",
        not (stateful or counts),
        f"{measured}; every pass changes {counts}, and nobody puts that back" if counts else measured,
        "a model that changes with every query answers differently later",
        e.coupling["rows"],
    )


def _order(e: Evaluation) -> Check:
    fgsm, stronger = e.per_attack.get("fgsm"), [s for name, s in e.per_attack.items() if name.startswith("pgd-")]
    if fgsm is None or not stronger:
        return check("strength grows with steps", True, "not measured: needs fgsm and pgd", "a check that did not run", None)
    pgd = min(score.value for score in stronger)
    return check(
        "strength grows with steps",
        pgd <= fgsm.value + 1 / fgsm.rows,
        f"fgsm leaves {100 * fgsm.value:.1f}%, pgd {100 * pgd:.1f}%",
        "one step that is stronger than many is a sign of masked gradients",
        fgsm.rows,
    )


def _batches(e: Evaluation) -> list[Check]:
    if not e.coupled:
        return []
    batches = e.clean_accuracy.n
    return [
        check(
            "enough batches",
            batches >= ENOUGH_BATCHES,
            f"{batches} whole batches of {e.batch_size}",
            f"the interval of a coupled model is a bootstrap over batches; below {ENOUGH_BATCHES} it is too narrow",
            e.clean_accuracy.rows,
        )
    ]


def _idle(attacks: Sequence[Attack]) -> list[Check]:
    """Attacks that are set to make no step search nothing: what they leave is clean accuracy, or that of noise."""
    parts = [part for one in attacks for part in getattr(one, "parts", (one,))]
    if not attacks or not all(0 in (getattr(part, "steps", 1), getattr(part, "restarts", 1)) for part in parts):
        return []
    measured = f"no attack searched: {', '.join(map(label, attacks))} makes no step"
    return [check("attacks search", False, measured, "without a search this is no robust accuracy", None)]


def _masked(e: Evaluation) -> list[Check]:
    """How many points more the searches without gradients find than those with."""
    if not e.beyond_gradients:
        return []
    name, rows = max(e.beyond_gradients.items(), key=lambda one: one[1])
    measured = f"{name}, without gradients, finds {100 * rows / e.n:+.1f} points beside the searches by gradient"
    why = f"more than {100 * BEYOND:.0f} points are a sign of masked gradients: the searches by gradient are then too weak"
    return [check(MASKED, rows <= BEYOND * e.n, measured, why, e.n)]


def _logits_and_gradient_check(oracle: Oracle, x: Tensor, y: Tensor) -> tuple[Tensor, Check]:
    """The logits, and whether the gradient reaches the pixels."""
    try:
        grad, _, logits = oracle.gradient(x, y, losses.margin, torch.ones_like(y, dtype=torch.bool))
        zero = int((grad.flatten(1) == 0).all(1).sum())
        measured = f"{zero} of {len(y)} images have a gradient of exactly 0 (margin loss)"
    except TimeoutError:
        raise
    except Exception as error:  # cut, not finite, or of a layer that has none
        problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}".split("\n")[0]
        zero, measured, logits = len(y), problem, oracle.logits(x)
    return logits, check(
        "gradient reaches the pixels",
        zero <= len(y) // 10,
        measured,
        "where the gradient is 0, gradient attacks do nothing, however weak the model is",
        len(y),
    )


def _same_without_a_gradient(asked_for: Tensor, plain: Tensor, tolerance: float) -> list[Check]:
    """Whether the answers that attacks see, with a gradient asked for, are those that are scored."""
    other = int((logit_distance(asked_for.double(), plain.double()).amax(1) > max(10 * tolerance, 1e-3)).sum())
    if not other:
        return []
    measured = f"{other} of {len(plain)} images get other logits when a gradient is asked for than without"
    why = "attacks then search another network than the one that is scored: find what reads requires_grad or is_grad_enabled"
    return [check("same with a gradient and without", False, measured, why, len(plain))]


def _copy(difference: str) -> Check:
    why = "searches usually run on a faster, folded copy that gives the same answers; here they ran on the network itself"
    return check("faster copy", True, f"not used: {difference}", why, None)


def _refused(error: str) -> Check:
    why = "the adversarial images are scored once more in other batches; that the model refuses these is a reason to look closer"
    return check("scored in other batches", False, error, why, None)


def _probabilities(logits: Tensor) -> Check:
    """Rows that sum to 1 are a softmax's. A sigmoid's lie in [0, 1] and span it; logits that do so by chance would be few."""
    low, high = float(logits.min()), float(logits.max())
    sums = low >= 0 and bool(((logits.sum(1) - 1).abs() < 1e-3).all())
    within = len(logits) >= SEVERAL and low >= 0 and high <= 1 and high - low > WIDE
    measured = "the outputs are no probabilities"
    if sums:
        measured = "the outputs sum to 1 for each image and none is negative: probabilities"
    elif within:
        measured = f"all outputs lie between 0 and 1, from {low:.2g} to {high:.2g}: probabilities, of a sigmoid perhaps"
    return check(
        "logits",
        not (sums or within),
        measured,
        "a softmax or a sigmoid inside the model saturates, and the gradients of a loss on it vanish",
        len(logits),
    )


def _fallbacks(attacks: Sequence[Attack], classes: int) -> list[Check]:
    """What is no reason to doubt, but has to be known: losses that need more classes than there are."""
    parts = [part for one in attacks if isinstance(one, BaseAttack) for part in one.parts]
    few = {label(part): part.classes for part in parts if part.classes > classes}
    if not few:
        return []
    needs = ", ".join(f"{name} is made for {needed} or more" for name, needed in few.items())
    why = "the difference of logits ratio divides by the third logit, towards a target also by the fourth"
    return [
        check(
            "losses for few classes",
            True,
            f"of {classes} classes, and {needs}: the difference of two logits was raised",
            why,
            None,
        )
    ]


def of_training(training: Training) -> tuple[Check, ...]:
    """What training itself gives reason to doubt: with one step, whether the model came to withstand one step alone."""
    why = "adversarial training makes its images on a folded copy, if that gives the same answers as the network"
    remarked = tuple(check("crafting", True, text, why, None) for text in training.remarks)
    if "one_step" not in training.validation:
        return remarked
    one, many = (100 * training.validation[name] for name in ("one_step", "robust"))
    measured = f"in the kept epoch {training.best_epoch} one step leaves {one:.1f}% of the validation images correct, many steps {many:.1f}%"
    if first := training.overfitted_epoch:
        measured = (
            f"many steps left less than half of what one step left, first in epoch {first} of {training.epochs}; {measured}"
        )
    why = "training with one step can overfit to that step (catastrophic overfitting): the figures are then those of an earlier epoch, or of a model that is not robust"
    return (*remarked, check("no overfitting to one step", not first, measured, why, None))


def crafted_elsewhere(on: str) -> Check:
    """Images made on another network say little about the robustness of this one."""
    why = "an attacker on another network, or with only a part of the gradient, is weaker: this is no robust accuracy"
    return check(ELSEWHERE, False, f"crafted on {on}", why, None)


def in_groups(rows: int, groups: int) -> Check:
    """Intervals of coupled rows count batches, and do not know of groups, such as clips of one patient."""
    why = "the images are coupled, so that intervals count whole batches; rows of one group are alike, and intervals may be too narrow"
    return check("rows of one group", False, f"{rows} rows of {groups} groups", why, rows)


def beside_malicious(model: nn.Module, batches: Sequence[Batch], seed: int = 0) -> Check:
    """Do rows that nobody touched change their class when the other half of their batch is malicious?

    On up to four batches; the victims are the half of each whose answers are least certain. Source: as
    `batch_attacks.peers`.
    """
    try:
        least_certain = [_least_certain_first(model, batch, seed) for batch in batches[:4]]
        r = batch_attacks.peers(model, least_certain, PGD(steps=20, relative_step=0.1), seed=seed)
        measured = (
            f"{len(r.fell)} of {r.victims} clean images are misclassified when the other half of their batch is malicious"
        )
        measured += "".join(f"; image {row} of class {label} is then predicted as {said}" for row, label, said in r.fell[:1])
        good, n = not r.fell, r.victims
    except ValueError as error:  # no gradient to follow, for one
        measured, good, n = f"not measured: {error}", False, None
    return check(
        "untouched rows beside malicious ones",
        good,
        measured,
        "a clean image must keep its class whatever the other images of the batch are; use running statistics",
        n,
    )


def _least_certain_first(model: nn.Module, batch: Batch, seed: int) -> Batch:
    x, y, ids = (part[:ROWS] for part in batch)
    with running(model, "eval"):
        margin = Predictor(model, seed).answers(x, y)[1].cpu()
    right = torch.where(margin < 0, margin, -torch.inf)  # what is wrong has no class to lose
    order = right.argsort(descending=True, stable=True)
    return Batch(x[order], y[order], ids[order])
