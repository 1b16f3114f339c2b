"""Attack, then judge: the only place where a verdict is spoken, in the batch it reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from . import intervals
from .coupling import Coupling, measure_coupling
from .folding import fold
from .judge import Judge, check_images, classes_of
from .modes import digest, running
from .norms.site import norm_reads
from .record import Evaluation
from .registry import plain
from .seeding import generator
from .types import Attack, Batch, Images, Labels, Mode, Rows, ThreatModel

Report = Callable[[str, int, int], None]  # what is going on, parts done, parts in all


class Verdict(NamedTuple):
    """The record, and row by row what it stands on.

    `x_adv` holds the worst case found of each row (or of each batch, where rows are coupled), `predictions` the answers to
    it as judged, `broken_by` the index in `attacks` of the first attack that broke the row (-1: none did, -2: the row was
    misclassified untouched).
    """

    evaluation: Evaluation
    x: Images
    x_adv: Images
    y: Labels
    ids: Tensor
    clean_predictions: Tensor
    predictions: Tensor
    broken_by: Tensor


class Judged(NamedTuple):
    """One batch, judged."""

    batch: Batch
    clean: Tensor  # predictions
    x_adv: Tensor
    worst: Tensor  # predictions on x_adv
    broken_by: Tensor
    survivors: dict[str, int]


def evaluate(
    model: nn.Module,
    batches: Sequence[Batch],
    threat: ThreatModel,
    attacks: Sequence[Attack],
    *,
    seed: int = 0,
    mode: Mode = "eval",
    craft_on: nn.Module | None = None,
    stateful: Literal["refuse", "restore"] = "refuse",
    fast: bool = True,
    model_name: str = "",
    data: Mapping[str, Any] | None = None,
    report: Report = lambda text, done, total: None,
) -> Verdict:
    """Judge a model under one threat model, on the device it is on.

    First it is measured whether rows are coupled. Independent rows: an attack sees only rows that are classified
    correctly, the worst case is taken row by row, intervals are Wilson's. Coupled rows: batches stay whole, the worst case
    of a batch is the one candidate (an attack's batch, or the untouched one) with fewest survivors, intervals are a
    bootstrap over batches, and a last short batch is left out. Every image is checked to lie inside the threat model, and
    every success is judged by the model itself, in the batch reported.

    `craft_on` names another model to attack (a surrogate); the judge is always `model`. `mode` is the mode of attack and
    judge alike. A model whose forward pass changes its buffers is refused, or with `stateful="restore"` judged with its
    buffers put back after each pass.

    `fast` searches on a copy with norms folded into convolutions (independent rows in evaluation mode); the judge is the
    model itself all the same, and a row that fell for the copy alone is attacked once more on the model.

    Raises ValueError for images, labels or logits that cannot be (wrong shape, dtype, range, NaN), for no batches, and for
    an attack that leaves the threat model or the model changed.
    """
    if len(batches) == 0:
        raise ValueError("there is nothing to evaluate on: no batches; give at least one batch of images and labels")
    started = time.perf_counter()
    with running(model, mode), running(craft_on or model, mode):
        before = digest(model)
        size = len(batches[0].y)
        judge = Judge(model, seed)
        check_images(batches[0])
        judge.classes = classes_of(judge, batches[0].x)
        measured = measure_coupling(
            model, [b.x[:PROBED].to(judge.device) for b in batches[:2] if len(b.y) == size], seed=seed
        )
        if measured.stateful and stateful == "refuse":
            raise ValueError(
                "a forward pass in this mode changes the model's buffers, so that a verdict depends on what was asked before; "
                "evaluate in eval mode, or pass stateful='restore' to put the buffers back after each pass"
            )
        chosen = [b for b in batches if len(b.y) == size] if measured.coupled else list(batches)
        attacked = [craft_on or model]
        if fast and mode == "eval" and not measured.coupled:
            attacked = [*_folded(attacked[0], seed, chosen[0].x[:8].to(judge.device)), *attacked]
        digests = [digest(one) for one in attacked]
        judged: list[Judged] = []
        for index, batch in enumerate(chosen):
            batch = Batch(*(tensor.to(judge.device) for tensor in batch))
            judged.append(_batch(judge, attacked, batch, threat, attacks, measured, index))
            report(_so_far(judged), index + 1, len(chosen))
        x_adv = torch.cat([one.x_adv for one in judged])
        y = torch.cat([one.batch.y for one in judged])
        rebatched = _rescore(judge, x_adv, y, size, torch.randperm(len(y), generator=generator(seed, "rebatch")))
        alone = _rescore(judge, x_adv, y, 1, torch.arange(len(y))) if measured.coupled else None
        reading = norm_reads(model)
        after = digest(model)
    if after != before or digests != [digest(one) for one in attacked]:
        raise ValueError(
            f"the model was changed while it was evaluated (digest {before}, then {after}); attack a model that keeps still"
        )

    def score(name: str) -> Any:
        counts = [one.survivors[name] for one in judged]
        return intervals.of_batches(counts, size) if measured.coupled else intervals.of_rows(sum(counts), len(y))

    evaluation = Evaluation(
        model=model_name or type(model).__name__,
        mode=mode,
        norm_reads=reading,
        data=dict(data or {}),
        threat=plain(threat),
        attacks=[plain(attack) for attack in attacks],
        seed=seed,
        n=len(y),
        batch_size=size,
        coupled=measured.coupled,
        coupling=asdict(measured),
        clean_accuracy=score(_CLEAN),
        per_attack={label: score(label) for label in _labels(attacks)},
        robust_accuracy=score(_WORST),
        rebatched_accuracy=rebatched,
        alone_accuracy=alone,
        checks=(),
        seconds=time.perf_counter() - started,
        forwards=judge.forwards,
        backwards=judge.backwards,
        digest_before=before,
        digest_after=after,
    )
    return Verdict(
        evaluation,
        torch.cat([one.batch.x for one in judged]),
        x_adv,
        y,
        torch.cat([one.batch.ids for one in judged]),
        torch.cat([one.clean for one in judged]),
        torch.cat([one.worst for one in judged]),
        torch.cat([one.broken_by for one in judged]),
    )


PROBED = 64  # rows of a batch on which coupling is measured, at most
_CLEAN, _WORST = "clean", "worst case"


def _so_far(judged: Sequence[Judged]) -> str:
    rows = sum(len(one.worst) for one in judged)
    clean, worst = (sum(one.survivors[name] for one in judged) for name in (_CLEAN, _WORST))
    return f"{rows} rows, clean {100 * clean / rows:.1f}%, worst case {100 * worst / rows:.1f}%"


def _label(attack: Attack) -> str:
    return str(getattr(attack, "label", attack.name))


def _labels(attacks: Sequence[Attack]) -> list[str]:
    """Call each attack by its label; equal labels of other options are told apart by a number."""
    labels = list(map(_label, attacks))
    return [f"{label}~{same + 1}" if (same := labels[:i].count(label)) else label for i, label in enumerate(labels)]


def _batch(
    judge: Judge,
    attacked: Sequence[nn.Module],
    batch: Batch,
    threat: ThreatModel,
    attacks: Sequence[Attack],
    measured: Coupling,
    index: int,
) -> Judged:
    """Attack and judge one batch."""
    check_images(batch, judge.classes)
    x, y, _ = batch
    clean = judge.predictions(x)
    right = clean == y
    images, answers = [x], [clean]
    for attack in attacks:
        x_adv, answer = _craft(judge, attacked, batch, threat, attack, index, None if measured.coupled else right)
        images.append(x_adv)
        answers.append(answer)
    wrong = torch.stack(answers) != y  # (candidates, b): the untouched batch is the first candidate
    if measured.coupled:
        survivors = (~wrong).sum(1)
        worst = survivors.argmin().expand(len(y))  # one candidate for the whole batch: a batch that existed
        broken_by = torch.where(wrong[worst[0]], worst - 1, -1)
    else:
        wrong |= ~right
        survivors = (~wrong).sum(1)
        worst = torch.where(wrong.any(0), wrong.int().argmax(0), len(attacks))  # first to break the row, else the last tried
        broken_by = torch.where(wrong.any(0), worst - 1, -1)
    broken_by = torch.where(right | (broken_by >= 0), broken_by, -2)
    rows = torch.arange(len(y), device=y.device)
    return Judged(
        batch,
        clean,
        torch.stack(images)[worst, rows],
        torch.stack(answers)[worst, rows],
        broken_by,
        dict(zip([_CLEAN, *_labels(attacks)], survivors.tolist(), strict=True)) | {_WORST: int((~wrong[worst, rows]).sum())},
    )


def _folded(model: nn.Module, seed: int, x: Images) -> list[nn.Module]:
    """The model folded, where that can be done and is the same function up to rounding; else nothing."""
    try:
        folded = fold(model)
        expected, got = Judge(model, seed).logits(x), Judge(folded, seed).logits(x)
    except Exception:  # a model that cannot be copied or asked this way is attacked as it is
        return []
    same = torch.isfinite(got).all() and (got - expected).abs().max() <= 1e-3 * expected.abs().max()
    return [folded] if same and norm_reads(folded) != norm_reads(model) else []


def _craft(
    judge: Judge,
    attacked: Sequence[nn.Module],
    batch: Batch,
    threat: ThreatModel,
    attack: Attack,
    index: int,
    only: Rows | None,
) -> tuple[Images, Tensor]:
    """Let one attack propose images (for the rows `only`, where rows are independent); returns them with the answers to them."""
    x_adv, first_hit = _propose(judge, attacked[0], batch, threat, attack, index, only)
    answers = judge.predictions(x_adv)
    if only is not None and len(attacked) > 1:
        missed = (
            only & (first_hit >= 0) & (answers == batch.y)
        )  # fell for the folded copy, by rounding, but not for the model
        if missed.any():
            again, _ = _propose(judge, attacked[1], batch, threat, attack, index, missed)
            x_adv[missed] = again[missed]
            answers = judge.predictions(x_adv)
    return x_adv, answers


def _propose(
    judge: Judge,
    attacked: nn.Module,
    batch: Batch,
    threat: ThreatModel,
    attack: Attack,
    index: int,
    only: Rows | None,
) -> tuple[Images, Tensor]:
    """Run one attack on a batch, check that its images are allowed; returns them and the step at which each row fell."""
    rng = generator(judge.seed, attack, index)
    chosen = torch.ones(len(batch.y), dtype=torch.bool, device=batch.x.device) if only is None else only
    proposal = attack(attacked, batch.x[chosen], batch.y[chosen], threat, generator=rng, independent=only is not None)
    judge.forwards += proposal.forwards
    judge.backwards += proposal.backwards
    if proposal.x_adv.shape != batch.x[chosen].shape:
        got, expected = tuple(proposal.x_adv.shape), tuple(batch.x[chosen].shape)
        raise ValueError(f"{_label(attack)} returned images of shape {got}; expected {expected}")
    x_adv, first_hit = batch.x.clone(), torch.full_like(batch.y, -1)
    x_adv[chosen], first_hit[chosen] = proposal.x_adv.to(x_adv), proposal.first_hit.to(first_hit)
    outside = int((~threat.around(batch.x, generator=rng).contains(x_adv)).sum())
    if outside:
        raise ValueError(
            f"{_label(attack)} left {threat.name}: {outside} of {len(chosen)} rows of batch {index}; mend its projection"
        )
    return x_adv, first_hit


def _rescore(judge: Judge, x: Images, y: Labels, size: int, order: Tensor) -> float | None:
    """Accuracy on the same images in other batches; None where the model cannot take batches of this size."""
    order = order.to(y.device)
    try:
        right = sum(int((judge.predictions(x[rows]) == y[rows]).sum()) for rows in order.split(size))
    except ValueError:
        return None
    return right / len(y)
