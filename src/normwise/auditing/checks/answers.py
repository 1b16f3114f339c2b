"""Are answers repeatable, independent of the batch, and logits?"""

from __future__ import annotations

import torch

from ... import losses
from ...attacks import PGD
from ...evaluation import dead as dead_decision
from ...evaluation import ranges
from ...evaluation.coupling import measure_coupling
from ...evaluation.predictor import Predictor
from ...seeding import generator
from ...types import Batch
from ...utils.fidelity import logit_distance
from ...utils.forward import in_time, logits_of
from ...utils.model_state import device_of, running, untouched
from .case import GAP, Case, Found, found, question

SIZES = (1, 2, 8, 32, 128, 512)
ROUNDING = 1e-3  # of a logit; what moves less explains no other decision
LARGEST = 512 * 3 * 64 * 64  # values of a batch: the activations of more images of 224 pixels than 41 take gigabytes


@question(
    "repeated and lonely answers",
    "robust accuracy is about one image and one model, and other images, earlier queries or random draws must not decide it; "
    "declare it with the claim, or evaluate with fixed running statistics",
)
def repeated(case: Case) -> Found:
    """Repeat a pass, change the neighbours, reorder the images, watch the buffers."""
    same = [batch.x.to(device_of(case.model)) for batch in case.batches[:2] if len(batch.y) == len(case.batches[0].y)]
    with running(case.model, "eval"):
        c = case.coupling = measure_coupling(case.model, same, seed=case.seed)
    if not (c.random or c.stateful or c.coupled):
        case.merge()
    violations = {
        "random": (c.random, "other random draws give other answers"),
        "stateful": (c.stateful, "a forward pass changes the model's buffers or modes"),
        "coupled": (
            c.coupled,
            f"images are coupled: answers depend on the rest of the batch ({c.flips} of {c.rows} unchanged images got another class)",
        ),
    }
    problems = [text for violated, text in violations.values() if violated]
    for name, (violated, text) in violations.items():
        if violated:
            case.violated(name, text)
    measured = "; ".join(problems) or f"largest change {c.largest_change:.1e}, tolerance {c.tolerance:.1e}"
    return found(measured, c.rows, fail=bool(case.violations), warn=bool(problems))


@question(
    "batch size",
    "the class of an image must not depend on the batch size: use running statistics, or declare the coupling and the batch "
    "size with the claim",
)
def batch_size(case: Case) -> Found:
    """Use batches of 1, 2, 8, 32, 128 and 512 images, fewer if they are large; if there are too few images, they are repeated."""
    x = torch.cat([batch.x for batch in case.batches])[: SIZES[-1]].to(device_of(case.model))
    model, size = case.network, len(case.batches[0].y)
    sizes = [other for other in SIZES if other <= max(size, LARGEST // x[0].numel())]
    with torch.no_grad(), running(model, "eval"), untouched(model, generator(case.seed, "sizes")):
        usual = torch.cat([logits_of(model, part) for part in x.split(size)])
        changes = dict[int, int]()
        for other in sizes:
            in_time()
            rows = x[: 64 if other == 1 else len(x)]
            filled = rows.repeat(-(-other // len(rows)), *[1] * (x.ndim - 1)) if other > len(rows) else rows
            parts = [logits_of(model, part) for part in filled.split(other)]
            if wide := next((part.shape[1] for part in parts if part.shape[1] != usual.shape[1]), 0):
                case.violated(
                    "coupled", f"in batches of {other} the network knows {wide} classes, in {size} {usual.shape[1]}"
                )
                return found(f"{wide} classes in batches of {other}, {usual.shape[1]} in {size}", len(x), fail=True)
            answers = torch.cat(parts)[: len(rows)]
            moved = logit_distance(answers, usual[: len(rows)]).amax(1) > ROUNDING
            changes[other] = int((moved & (answers.argmax(1) != usual[: len(rows)].argmax(1))).sum())
    changed = ", ".join(f"{count} in batches of {other}" for other, count in changes.items() if count)
    if changed and not case.random:
        case.violated("coupled", f"decisions depend on the size of the batch: {changed}")
    measured = f"decisions that differ from those in batches of {size}: {changed or 'none'} (batches of {', '.join(map(str, sizes))})"
    return found(measured, len(x), fail=bool(changed) and not case.random)


@question(
    "batches of one class",
    "whoever decides which images share a batch also decides their classes, and a sorted list is enough; use running "
    "statistics, or quote accuracy in such batches too",
    "which images share a batch, and their order; if images are coupled, also the images. The batch size and the running "
    "statistics are fixed",
)
def one_class(case: Case) -> Found:
    """Clean accuracy in batches sorted by class, beside the batches as given; attacked too, if images are coupled."""
    x, y, ids = (torch.cat(parts) for parts in zip(*case.batches, strict=True))
    size, predictor = len(case.batches[0].y), Predictor(case.model, case.seed)
    with running(case.model, "eval"):
        right = {}
        for name, order in (("as given", torch.arange(len(y))), ("sorted", y.argsort(stable=True))):
            parts = [rows for rows in order.split(size) if len(rows) == size or not case.coupled]
            count = sum(int((predictor.answers(x[rows], y[rows])[0].cpu() == y[rows].cpu()).sum()) for rows in parts)
            right[name] = count / sum(map(len, parts))
    measured = (
        f"clean accuracy {100 * right['as given']:.1f}% as given, {100 * right['sorted']:.1f}% in batches sorted by class"
    )
    if case.coupled:
        skewed = [Batch(x[rows], y[rows], ids[rows]) for rows in y.argsort(stable=True).split(size)]
        left = case.evaluate(PGD(steps=20), batches=skewed, inside=False).robust_accuracy
        case.reach["sorted by class"] = left.value
        measured += f"; pgd-20 leaves {left} of those"
    return found(
        measured, case.scored, fail=not case.random and abs(right["as given"] - right["sorted"]) > max(GAP, case.tolerance)
    )


@question(
    "outputs", "a softmax inside the model saturates, and the gradients of a loss on it vanish; remove it from the model"
)
def outputs(case: Case) -> Found:
    """Are the outputs probabilities? Without a claim, what PGD-20 leaves becomes the claim."""
    try:
        scored = case.evaluate(PGD(steps=20))
    except Exception:  # such an attack leaves what the network gets right untouched
        if case.claim is None:
            case.claim = case.pgd20()
        raise
    if case.claim is None:
        case.claim = scored.robust_accuracy.value
    logits = next(check for check in scored.checks if check.name == "logits")
    if case.coupled:
        case.reach["joint"] = scored.robust_accuracy.value
    left = f"pgd-20 leaves {100 * scored.robust_accuracy.value:.1f}% of {100 * scored.clean_accuracy.value:.1f}%"
    return found(f"{logits.measured}; {left}", scored.n, fail=logits.status != "pass")


@question(ranges.NAME, ranges.WHY)
def pixels(case: Case) -> Found:
    """Clean accuracy on the images as they are, and as if the network expected another range."""
    x, y = (torch.cat([getattr(batch, part) for batch in case.batches]) for part in ("x", "y"))
    with running(case.model, "eval"):
        right = ranges.accuracies(Predictor(case.model, case.seed).logits, x, y, len(case.batches[0].y))
    return found(ranges.describe(right, x), len(y), fail=ranges.better_elsewhere(right, len(y)), warn=ranges.narrow(x))


@question(dead_decision.NAME, dead_decision.WHY)
def dead(case: Case) -> Found:
    """The share of the most frequent answer, beside that of the most frequent label."""
    batch = case.first(rows=512)
    with running(case.model, "eval"):
        answers = Predictor(case.model, case.seed).answers(batch.x, batch.y)[0]
    checked = dead_decision.check_decision(answers, batch.y, strict=True)
    return Found(checked.status, checked.measured, checked.n)


@question(
    "size of the logits",
    "large logits make cross-entropy saturate: gradients vanish in float32, and an attack on the plain cross-entropy gets "
    "stuck; ours uses the margin form, with other attacks use DLR or margin",
)
def logit_size(case: Case) -> Found:
    """Images whose plain cross-entropy has a gradient of exactly 0 in float32, because the probability is 1."""
    batch = case.first()
    with running(case.model, "eval"):
        logits = Predictor(case.model, case.seed).logits(batch.x)
    right = logits.argmax(1) == batch.y
    saturated = ((logits.float().softmax(1).gather(1, batch.y[:, None])[:, 0] == 1) & right).sum()
    margin = float((-losses.margin(logits, batch.y))[right].median()) if right.any() else 0.0
    share = float(saturated) / max(1, int(right.sum()))
    measured = f"median margin {margin:.3g}; plain cross-entropy is exactly 0 for {int(saturated)} of {int(right.sum())} correct images"
    return found(measured, len(batch.y), fail=share > 0.9, warn=share > 0.1)
