"""Attack, then judge: the only place where a verdict is spoken, in the batch it reports."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import FGSM, PGD, STRONGEST
from ..norms.site import norm_reads
from ..records import Evaluation, Score
from ..registry import plain
from ..seeding import generator
from ..types import Attack, Batch, Mode, Report, ThreatModel, silent
from ..utils import intervals
from ..utils.batches import Rows, as_batches
from ..utils.hashing import mark_of, settings_of
from ..utils.model_state import answer_for_good, copied, digest, running
from .acceleration import FAST, Speed
from .batch import CLEAN, PROTOCOL, WORST, Outcome, Trial, attack_and_judge, broken_by, labels
from .coupling import Coupling
from .predictor import Judge
from .preflight import CRAFTED, Court, Stateful, convene
from .sanity_checks import annotate
from .store import Shelf
from .verdict import Verdict

AT_ONCE = 2**28  # bytes of images that are held to be shuffled


def evaluate(
    model: nn.Module,
    batches: Rows,
    threat: ThreatModel,
    attacks: Sequence[Attack] | Attack | None = None,
    *,
    strongest: Sequence[Attack] | None = None,
    seed: int = 0,
    mode: Mode = "eval",
    craft_on: nn.Module | None = None,
    stateful: Stateful = "refuse",
    speed: Speed = FAST,
    again: bool = True,
    coupling: Coupling | None = None,
    folder: Path | None = None,
    shard: tuple[int, int] = (0, 1),
    model_name: str = "",
    data: Mapping[str, Any] | None = None,
    report: Report = silent,
) -> Verdict:
    """Judge a model under one threat model, on the device it is on.

    `batches` are batches, a DataLoader, pairs (images, labels), or two tensors (see `as_batches`). `attacks` are one or several;
    without any, they are what the command line takes: FGSM and PGD, and APGD as the strongest.

    First it is measured whether rows are coupled. Independent rows: an attack sees only rows that are classified
    correctly, the worst case is taken row by row, intervals are Wilson's. Coupled rows: batches stay whole, the worst case
    of a batch is the one candidate (an attack's batch, the untouched one, or each row's most damaging image of these, side
    by side) with fewest survivors, intervals are a
    bootstrap over batches, and a last short batch is left out. Every image is checked to lie inside the threat model, and
    every success is judged by the model itself, in the batch reported. A model with noise of its own is asked 11 times, and
    its most frequent answer counts.

    Each of the `attacks` sees all rows that are right, whatever those before it broke, for each has a figure of its own. Where
    rows shall leave from attack to attack, give them as one: `worst_case(...)`.

    `strongest` are attacks that search on what `attacks` left standing (of coupled rows again on every batch): the record
    then says both how many rows survive the `attacks`, a protocol, and how many survive all.

    `craft_on` names another model to attack (a surrogate); the judge is always `model`. A row that falls for the surrogate
    alone, or by a lucky draw of a model's noise, is attacked once more, and then to the end of the search. `mode` is the mode
    of attack and judge alike. A model whose forward pass changes its buffers is refused, or with `stateful="restore"` judged
    with its buffers put back after each pass, or with "sequence" in the order of the batches: a copy of it keeps what each
    batch's worst case did to it, and is attacked and judged as it then is; rows are judged again by what it ends as.

    `speed` says on what copy of the model is searched (in evaluation mode; for coupled rows in float32 and not compiled), and by
    which shortcuts; the judge is the model itself all the same. A row that fell for the copy alone is attacked once more on the model, and so is one that a search in lower
    precision left standing with less than a tenth of its clean margin.

    `again`: the images are judged once more in other batches, and coupled rows alone, and the record gets its checks; who asks
    many radii may leave that out, and give the `coupling` that was measured at the first (of this model, in this mode).

    With `folder` every finished batch is written there, images included, instead of being held: memory does not grow with
    the number of rows, and a killed evaluation goes on from there, to the same verdict. `shard` (i, n) judges every n-th
    batch from the i-th on: n calls, on any machines with one folder, and then one without `shard`, share the work.

    The record's `checks` are reasons to doubt it: coupled rows, outputs that are probabilities, gradients that do not reach the
    pixels. They cost one look at 64 rows of the first batch, which is not counted.

    Raises ValueError for images, labels or logits that cannot be (wrong shape, dtype, range, NaN), for no batches, for
    batches of coupled rows of several sizes (a shorter last one is left out), for an attack that cannot work in the threat
    model, for one that leaves it or the model changed, for a `craft_on` of other classes or images, and for a folder that
    holds part of an evaluation of another model, other data or other settings.
    """
    started, batches = time.perf_counter(), as_batches(batches)
    strongest = strongest if strongest is not None else STRONGEST if attacks is None else ()
    attacks = (FGSM(), PGD()) if attacks is None else [attacks] if isinstance(attacks, Attack) else attacks
    for given, name in ((attacks, "attacks"), (strongest, "strongest")):
        if not isinstance(given, Sequence) or not all(callable(attack) for attack in given):
            raise ValueError(f"{name} is {given!r}; expected a list of attacks, such as [PGD()]")
    if stateful == "sequence" and shard != (0, 1):
        raise ValueError(f"shard is {shard}, and batches in sequence cannot be shared out; leave shard out")
    before, model = digest(model), copied(model) if stateful == "sequence" else model
    with running(model, mode), running(craft_on or model, mode):
        whose = f"{before} {settings_of(model)}"
        every = (*attacks, *strongest)
        court = convene(
            model,
            batches,
            threat,
            every,
            craft_on,
            stateful,
            speed if mode == "eval" else speed.on_the_model,
            seed,
            coupling,
        )
        judge, size, coupled = court.judge, court.size, court.coupling.coupled
        mine = _share(court.batches, shard)
        held = court.digests()
        settings = plain({"threat": threat, "attacks": attacks, "seed": seed, "mode": mode, "speed": speed})
        flags = {name: getattr(court.coupling, name) for name in ("coupled", "random", "stateful")}
        settings |= {"strongest": plain(strongest)} if strongest else {}
        settings |= {"stateful": stateful} if stateful == "sequence" else {}
        crafted = f"{held[-1]} {settings_of(craft_on)}" if craft_on is not None else whose
        shelf = Shelf(folder, {"model": whose, CRAFTED: crafted, "coupling": flags, **settings})
        found: list[Outcome] = []
        for index in mine:
            found.append(_outcome(court, shelf, index, batches[index], threat, attacks, strongest))
            if stateful == "sequence" and court.digests() == held:
                answer_for_good(model, shelf.get(index).trial.x_adv.to(judge.device), generator(seed, "sequence", index))
                held = court.digests()
            report(_so_far(found), len(found), len(mine))
        rows = Trial(*map(torch.cat, zip(*(one.trial for one in found), strict=True)))

        def adversarial(number: int) -> Tensor:
            return shelf.get(mine[number]).trial.x_adv

        rebatched = _rescore(judge, adversarial, found, size) if again else None
        alone = _rescore(judge, adversarial, found, 1) if again and coupled else None
        reading, after = norm_reads(model), court.digests()
    if after != held:
        raise ValueError(
            f"the model was changed while it was evaluated (digest {held[0]}, then {after[0]}); attack a model that keeps still"
        )

    def score(name: str) -> Score:
        counts = [one.survivors[name] for one in found]
        return intervals.of_batches(counts, size) if coupled else intervals.of_rows(sum(counts), len(rows.y))

    evaluation = Evaluation(
        model=model_name or type(model).__name__,
        mode=mode,
        norm_reads=reading,
        data=dict(data or {}),
        threat=plain(threat),
        attacks=[plain(attack) for attack in attacks],
        strongest=[{**plain(attack), "label": name} for attack, name in zip(strongest, labels(strongest), strict=True)],
        seed=seed,
        n=len(rows.y),
        batch_size=size,
        coupled=coupled,
        coupling=asdict(court.coupling),
        clean_accuracy=score(CLEAN),
        per_attack={label: score(label) for label in labels(attacks)},
        protocol_accuracy=score(PROTOCOL) if strongest else None,
        robust_accuracy=score(WORST),
        rebatched_accuracy=rebatched,
        alone_accuracy=alone,
        checks=(),
        seconds=time.perf_counter() - started + sum(one.seconds for one in found if one.earlier),
        forwards=judge.forwards + sum(one.forwards for one in found if one.earlier),
        backwards=judge.backwards + sum(one.backwards for one in found if one.earlier),
        digest_before=before,
        digest_after=before if stateful == "sequence" else after[0],
        broken_by=dict(Counter(name for name in broken_by(every, rows) if name)),
    )
    if again:
        evaluation = annotate(evaluation, model, batches[court.batches[0]], every, court.unlike)
    chosen = [batches[i] for i in mine]
    return Verdict(evaluation=evaluation, attacks=every, rows=rows, batches=chosen, adversarial=adversarial)


def _share(indices: list[int], shard: tuple[int, int]) -> list[int]:
    """Every n-th batch from the i-th on. Raises ValueError where that is none."""
    first, count = shard
    if not 0 <= first < min(count, len(indices)):
        raise ValueError(f"shard is {first} of {count}, of {len(indices)} batches; give (i, n) with 0 <= i < n <= batches")
    return indices[first::count]


def _outcome(
    court: Court,
    shelf: Shelf,
    index: int,
    batch: Batch,
    threat: ThreatModel,
    attacks: Sequence[Attack],
    strongest: Sequence[Attack],
) -> Outcome:
    """What becomes of one batch, now or in an earlier call; its images are on the shelf."""
    judge, mark = court.judge, mark_of(batch)
    if shelf.holds(index, mark):
        outcome = shelf.get(index)._replace(earlier=True)
    else:
        then, forwards, backwards = time.perf_counter(), judge.forwards, judge.backwards
        there = Batch(*(tensor.to(judge.device) for tensor in batch))
        coupled = court.coupling.coupled
        trial, survivors = attack_and_judge(
            judge, court.attacked, there, threat, attacks, coupled, index, strongest, court.speed
        )
        spent = judge.forwards - forwards, judge.backwards - backwards, time.perf_counter() - then
        outcome = Outcome(trial, survivors, *spent)
        shelf.put(index, mark, outcome)
    return outcome._replace(trial=outcome.trial._replace(x_adv=torch.empty(0)))


def _so_far(found: Sequence[Outcome]) -> str:
    rows = sum(len(one.trial.y) for one in found)
    clean, worst = (sum(one.survivors[name] for one in found) for name in (CLEAN, WORST))
    return f"{rows} rows, clean {100 * clean / rows:.1f}%, worst case {100 * worst / rows:.1f}%"


def _rescore(judge: Judge, adversarial: Callable[[int], Tensor], found: Sequence[Outcome], size: int) -> float | None:
    """Accuracy on the same images in other batches of this size; None where the model cannot take these.

    Rows are shuffled over as many batches as may be held at a time.
    """
    right, x, y = 0, list[Tensor](), list[Tensor]()
    for number, one in enumerate(found):
        x.append(adversarial(number))
        y.append(one.trial.y)
        if number + 1 < len(found) and sum(part.nbytes for part in x) < AT_ONCE:
            continue
        images, target = torch.cat(x), torch.cat(y)
        order = torch.randperm(len(target), generator=generator(judge.seed, "rebatch"))
        try:
            for rows in order.split(size):
                right += int((judge.answers(images[rows], target[rows])[0].cpu() == target[rows]).sum())
        except ValueError:
            return None
        x, y = [], []
    return right / sum(len(one.trial.y) for one in found)
