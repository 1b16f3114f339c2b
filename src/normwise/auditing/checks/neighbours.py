"""What the rest of the batch, and earlier batches, do to an image."""

from __future__ import annotations

from typing import Any

import torch

from ...attacks import PGD
from ...evaluation import batch_attacks
from ...evaluation.plan import AttackPlan
from ...evaluation.predictor import Predictor
from ...seeding import generator
from ...utils import intervals
from ...utils.model_state import answer_for_good, copied, device_of, set_mode
from .case import GAP, Case, Found, found, question

BEFORE = 10  # batches that an attacker sends ahead
IN_SEQUENCE = 20  # images of a batch, where they are independent and any size would do
INDEPENDENT = "images are independent"


@question(
    "one row among clean ones",
    "an attacker who sends one image meets clean neighbours, and a defence that works only against whole batches fails: quote "
    "the lower of this and of the whole batch",
    "one image of a batch; the others are clean, and their number, their order and the running statistics are fixed",
)
def single(case: Case) -> Found:
    """One image is attacked at a time, white-box through the statistics of a batch whose other images stay clean."""
    if not case.coupled:
        return found(INDEPENDENT, None)
    plan = AttackPlan(case.threat, (PGD(steps=20),), seed=case.seed)
    r = batch_attacks.single(case.model, case.batches, plan, victims=case.options.victims, coupling=case.coupling)
    left = intervals.of_rows(r.standing, r.victims)
    case.lower(left, "one row among clean ones")
    case.reach["single"] = left.value
    measured = f"{left} of {r.victims} images stay correct when each is attacked alone ({r.clean} correct before)"
    return found(measured, r.victims, fail=case.exceeds(left))


@question(
    "malicious neighbours",
    "a clean image must not change its class because of its neighbours: use running statistics, or never put images of "
    "different senders in one batch; this is not part of robust accuracy",
    "half of a batch, without limit; the images that count are unchanged, and order, size and running statistics are fixed",
)
def peers(case: Case) -> Found:
    """Half of a batch may be anything, to hurt the other half (Wu et al. 2023, arXiv:2301.12576)."""
    if not case.coupled:
        return found(INDEPENDENT, None)
    r = batch_attacks.peers(case.model, case.batches, PGD(steps=20), victims=case.options.victims, seed=case.seed)
    case.reach["peers"] = r.standing / r.victims
    measured = f"{r.clean - r.standing} of {r.victims} clean images are misclassified when the other half of their batch is malicious"
    return found(measured, r.victims, fail=r.clean - r.standing > max(1, 0.02 * r.victims))


@question(
    "other batches",
    "images that succeed in one batch and fail in others, or the reverse, show that the figure is about the batch: quote it "
    "with the batch size",
    "every image, without knowing its later neighbours: the batch, its order and its size, down to one image, are drawn anew. "
    "The running statistics are fixed",
)
def elsewhere(case: Case) -> Found:
    """Images made over random neighbours, checked in their batch, in other batches, and alone; and images made and checked alone."""
    if not case.coupled:
        return found(INDEPENDENT, None)
    e = case.evaluate(PGD(steps=20, draws=4, over="peers"), called="pgd-20 over random neighbours")
    lone: dict[str, Any] = {"batches": case.split(1)[: case.options.victims], "inside": False}
    try:
        own = case.evaluate(PGD(steps=20), **lone)
    except ValueError:  # alone it gives no gradient
        own = case.evaluate(**lone)
    left = {"in their batch": e.robust_accuracy.value}
    left |= {} if e.rebatched_accuracy is None else {"in other batches": e.rebatched_accuracy}
    left |= {} if e.alone_accuracy is None else {"alone": e.alone_accuracy}
    case.reach |= {f"made over neighbours, {where}": value for where, value in left.items() if where != "in their batch"}
    case.reach["made alone"] = own.robust_accuracy.value
    figures = ", ".join(f"{100 * value:.1f}% {where}" for where, value in left.items())
    measured = f"pgd-20 over random neighbours leaves {figures}; of {own.n} images in batches of one it leaves {own.robust_accuracy}"
    lowest, usual = (
        intervals.of_rows(round(min(some) * e.n), e.n)
        for some in (left.values(), [value for where, value in left.items() if where != "alone"])
    )
    case.lower(usual, "other batches")  # of the size that was claimed
    worse = case.exceeds(lowest) or case.exceeds(own.robust_accuracy)
    return found(measured, e.n, fail=worse, warn=max(left.values()) - min(left.values()) > GAP)


@question(
    "poisoned statistics",
    "a network that changes with every query can be poisoned: whoever sends images first changes the answers to others; fix "
    "its statistics, or state the order of the batches with the claim",
    "the running statistics, by ten batches sent first, or by every batch attacked before; batches, order and size are fixed",
)
def poisoned(case: Case) -> Found:
    """Clean accuracy after ten batches of black and white noise, or of one class, beside that after ten clean ones; PGD-20 in sequence."""
    if not (case.coupling and case.coupling.stateful):
        return found("a forward pass changes nothing", None)
    rng, right = generator(case.seed, "poison"), {}
    device = device_of(case.model)
    one_class = torch.cat([batch.x[batch.y == case.batches[0].y.mode().values] for batch in case.batches])
    for ahead in ("clean", "noise", "one class"):
        model = set_mode(copied(case.model), "eval")
        for number in range(BEFORE):
            x = case.batches[number % len(case.batches)].x.to(device)
            noise = torch.randint(0, 2, x.shape, generator=rng).to(x)
            same = one_class[torch.randint(0, len(one_class), (len(x),), generator=rng)].to(device)
            sent = {"clean": x, "noise": noise, "one class": same}[ahead]
            answer_for_good(model, sent, generator(case.seed, ahead, number))
        predictor = Predictor(model, case.seed)
        right[ahead] = sum(int((predictor.logits(b.x).argmax(1).cpu() == b.y.cpu()).sum()) for b in case.batches)
    shares = {ahead: count / case.rows for ahead, count in right.items()}
    figures = ", ".join(
        f"{100 * share:.1f}% after {BEFORE} of {ahead}" for ahead, share in shares.items() if ahead != "clean"
    )
    batches = None if case.coupled else case.split(IN_SEQUENCE)
    taught = case.evaluate(PGD(steps=20), batches=batches, stateful="sequence", called="pgd-20 in sequence").robust_accuracy
    measured = f"clean accuracy {100 * shares['clean']:.1f}% after {BEFORE} clean batches, {figures}; pgd-20 leaves {taught}"
    measured += (
        f" if every batch meets the state that the attacked ones before it left, {100 * case.pgd20():.1f}% if none does"
    )
    return found(measured, case.rows, fail=shares["clean"] - min(shares.values()) > GAP or case.exceeds(taught))
