"""Attack, then check on the network itself: the one place where accuracies are counted, in the batch they are reported for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..norms.site import norm_kinds, norm_reads
from ..records import Evaluation, Score
from ..registry import DIGEST_VERSION, plain
from ..seeding import generator
from ..types import Attack, Batch, Report, ThreatModel, silent
from ..utils import intervals
from ..utils.batches import Chosen, Rows, as_batches
from ..utils.hashing import mark_of
from ..utils.model_state import answer_for_good, copied, identity, refuse_lazy, running
from ..utils.per_row import bits
from .batch import CLEAN, PROTOCOL, WORST, Outcome, RowOutcomes, attack_batch, broken_by
from .coupling import Coupling
from .naming import labels
from .plan import AttackPlan, planned
from .preflight import CRAFTED, Prepared, prepare
from .sanity_checks import annotate
from .store import BatchStore, Shard
from .verdict import Verdict

STANDING = 10_000  # images of which a record says one by one what became of them
AT_ONCE = 2**25  # bytes of images that are held to be shuffled


def evaluate(
    model: nn.Module,
    batches: Rows,
    threat: ThreatModel | AttackPlan,
    attacks: Sequence[Attack] | Attack | None = None,
    *,
    craft_on: nn.Module | None = None,
    folder: Path | str | Shard | None = None,
    report: Report = silent,
) -> Verdict:
    """Evaluate a model under one threat model, on the device it is on.

    `batches` are batches, a DataLoader, pairs (images, labels), or two tensors (see `as_batches`). `threat` is a threat
    model, and `attacks` are one or several; without any, they are what the command line takes: FGSM and PGD, and APGD as the
    strongest. Or `threat` is an `AttackPlan`: it holds both, and every other setting.

    First it is measured whether rows are coupled. Independent rows: an attack sees only rows that are classified correctly,
    the worst case is taken row by row, intervals are Wilson's. Coupled rows: batches stay whole, the worst case of a batch
    is the one candidate (an attack's batch, the untouched one, or each row's most damaging image of these, side by side)
    with fewest survivors, intervals are a bootstrap over batches, and a last short batch is left out. Every image is checked
    to lie inside the threat model, and every success is checked on the model itself, in the batch reported. A model with
    noise of its own is asked 11 times, and its most frequent answer counts. The images are then scored once more in other
    batches, and coupled rows alone.

    Each of the `attacks` sees all rows that are right, whatever those before it broke, for each has a figure of its own.
    Where rows shall leave from attack to attack, give them as one: `worst_case(...)`. The record says how many rows survive
    the `attacks`, a protocol, and how many survive the plan's strongest too.

    With the goal "targeted" a row counts as robust where it is classified correctly, and no attack reaches its class to
    reach.

    `craft_on` names another model to attack (a surrogate); answers are always those of `model`. A row that reaches the goal
    for the surrogate alone, or by a lucky draw of a model's noise, is attacked once more, and then to the end of the search.
    So is one that did so for a faster copy alone, and one that a search in lower precision left with less than a tenth of
    its clean margin. A model in sequence (`AttackPlan.stateful`) is copied; the copy keeps what each batch's worst case did
    to it, and is attacked and checked as it then is; rows are scored again by what it ends as.

    With `folder` every finished batch is written there, images included, instead of being held: memory does not grow with
    the number of rows, and a killed evaluation is resumed from there, to the same verdict. A `Shard` of a folder takes some
    of the batches: n calls, on any machines with one folder, and then one with the folder itself, share the work.

    The record's `checks` are reasons to doubt it: coupled rows, outputs that are probabilities, gradients that do not reach
    the pixels. They cost a few passes over 64 rows of the first batch, which are not counted.

    Raises ValueError for images, labels or logits that cannot be (wrong shape, dtype, range, NaN), for no batches, for
    batches of coupled rows of several sizes (a shorter last one is left out), for an attack that cannot work in the threat
    model, for one that leaves it or the model changed, for a `craft_on` of other classes or images, and for a folder that
    holds part of an evaluation of another model, other data or other settings.
    """
    with _begun(model, as_batches(batches), planned(threat, attacks), craft_on, None) as run:
        run.search(Path(folder) if isinstance(folder, str) else folder, report)
        return run.verdict(again=True)


def searched(
    model: nn.Module,
    batches: Rows,
    plan: AttackPlan,
    *,
    craft_on: nn.Module | None = None,
    coupling: Coupling | None = None,
) -> Verdict:
    """As `evaluate`, but the images are not scored once more, and the record has no checks: for who asks at many radii.

    `coupling` is what was measured at the first (of this model, in this mode).
    """
    with _begun(model, as_batches(batches), plan, craft_on, coupling) as run:
        run.search(None, silent)
        return run.verdict(again=False)


@contextmanager
def _begun(
    model: nn.Module, batches: Sequence[Batch], plan: AttackPlan, craft_on: nn.Module | None, coupling: Coupling | None
) -> Iterator[_Run]:
    """An evaluation under way, with the networks in the plan's mode."""
    refuse_lazy(model)
    scored = copied(model) if plan.stateful == "sequence" else model
    with running(scored, plan.mode), running(craft_on or scored, plan.mode):
        whose = identity(scored)
        prepared = prepare(scored, batches, plan, craft_on, coupling)
        networks = {"model": str(whose), CRAFTED: str(identity(craft_on) if craft_on is not None else whose)}
        yield _Run(plan, batches, prepared, networks, whose.digest, prepared.digests())


@dataclass
class _Run:
    """One evaluation: its settings, who checks, and what became of the batches so far."""

    plan: AttackPlan
    batches: Sequence[Batch]
    prepared: Prepared
    networks: dict[str, str]
    before: str
    held: list[str]
    mine: list[int] = field(default_factory=list)
    kind: tuple[tuple[int, ...], torch.dtype] = ((), torch.float32)  # of the first batch: shape of an image, dtype
    found: list[Outcome] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)  # of all batches, without images
    first: dict[int, int] = field(default_factory=dict)  # of each batch, the place of its first row there
    started: float = field(default_factory=time.perf_counter)
    store: BatchStore = field(init=False)  # of finished batches; `search` opens it

    def search(self, folder: Path | Shard | None, report: Report) -> None:
        """Attack batch after batch; what an earlier call left in the folder is read."""
        share = folder if isinstance(folder, Shard) else Shard(folder, 0, 1)
        self.mine = share.of(self.prepared.batches)
        first = self.batches[self.prepared.batches[0]].x
        self.kind = tuple(first.shape[1:]), first.dtype
        in_sequence = self.plan.stateful == "sequence"
        if in_sequence and share.count > 1:
            raise ValueError("batches in sequence cannot be shared out; give the folder itself")
        lengths = [len(self.prepared.aims[index]) for index in self.mine]
        self.first = dict(zip(self.mine, accumulate(lengths, initial=0), strict=False))
        self.store, found = BatchStore(share.folder, self._key()), dict[int, Outcome]()
        for patient in (False, True) if share.whole else (True,):
            for index in share.turned([index for index in self.mine if index not in found]):
                with self.store.claimed(index, patient) if share.whole else nullcontext(True) as ours:
                    if not ours:
                        continue
                    found[index] = self._held(index, self._outcome(index))
                if in_sequence and self.prepared.digests() == self.held:
                    x_adv, predictor = self.store.get(index).rows.x_adv, self.prepared.predictor
                    rng = generator(self.plan.seed, "sequence", index)
                    answer_for_good(predictor.model, x_adv.to(predictor.device), rng)
                    self.held = self.prepared.digests()
                report(_so_far([*found.values()]), self.store.finished() if share.whole else len(found), len(self.mine))
        self.found = [found[index] for index in self.mine]

    def verdict(self, again: bool) -> Verdict:
        """The record of what was found. `again`: the images are scored once more, and the checks are made."""
        prepared, found, plan = self.prepared, self.found, self.plan
        rows = RowOutcomes(*[*self.rows, torch.empty(0)])
        rebatched, refused = self._rescore(prepared.size) if again else (None, "")
        alone = self._rescore(1)[0] if again and prepared.coupling.coupled else None
        reading, after = norm_reads(prepared.predictor.model), prepared.digests()
        if after != self.held:
            raise ValueError(
                f"the model was changed while it was evaluated (digest {self.held[0]}, then {after[0]}); attack a model that does not "
                "change"
            )
        earlier, beyond = [one for one in found if one.earlier], Counter[str]()
        for one in found:
            beyond.update(one.beyond)
        evaluation = Evaluation(
            model=type(prepared.predictor.model).__name__,
            mode=plan.mode,
            norm_reads=reading,
            norms=norm_kinds(prepared.predictor.model),
            data={},
            threat=plain(plan.threat),
            attacks=[plain(attack) for attack in plan.attacks],
            strongest=[
                {**plain(one), "label": name} for one, name in zip(plan.strongest, labels(plan.strongest), strict=True)
            ],
            goal=plan.goal,
            speed=plain(plan.speed),
            seed=plan.seed,
            n=len(rows.y),
            batch_size=prepared.size,
            coupled=prepared.coupling.coupled,
            coupling=asdict(prepared.coupling),
            clean_accuracy=self._score(CLEAN),
            per_attack={label: self._score(label) for label in labels(plan.attacks)},
            protocol_accuracy=self._score(PROTOCOL) if plan.strongest else None,
            robust_accuracy=self._score(WORST),
            rebatched_accuracy=rebatched,
            alone_accuracy=alone,
            checks=(),
            seconds=time.perf_counter() - self.started + sum(one.seconds for one in earlier),
            forwards=prepared.predictor.forwards + sum(one.forwards for one in earlier),
            backwards=prepared.predictor.backwards + sum(one.backwards for one in earlier),
            digest_before=self.before,
            digest_after=self.before if plan.stateful == "sequence" else after[0],
            broken_by=dict(Counter(name for name in broken_by(plan.every, rows) if name)),
            beyond_gradients=dict(beyond),
            standing="" if prepared.coupling.coupled or len(rows.y) > STANDING else bits(rows.broken_by == -1),
        )
        if again:
            first = self.batches[prepared.batches[0]]
            evaluation = annotate(
                evaluation, prepared.predictor.model, first, rows, plan.every, prepared.difference, refused
            )
        batches = Chosen(self.batches, self.mine)
        return Verdict(evaluation=evaluation, attacks=plan.every, rows=rows, batches=batches, adversarial=self._adversarial)

    def _key(self) -> dict[str, Any]:
        """What finished batches are outcomes of."""
        plan, coupling = self.plan, self.prepared.coupling
        flags = {name: getattr(coupling, name) for name in ("coupled", "random", "stateful")}
        plan = plan if plan.stateful == "sequence" else replace(plan, stateful="refuse")  # who keeps still is attacked alike
        return {"digest_version": DIGEST_VERSION, **self.networks, "coupling": flags, "plan": plan}

    def _outcome(self, index: int) -> Outcome:
        """What becomes of one batch, now or in an earlier call; its images are in the store."""
        predictor, batch = self.prepared.predictor, self.batches[index]
        mark, kind = mark_of(batch), (tuple(batch.x.shape[1:]), batch.x.dtype)
        if kind != self.kind:
            raise ValueError(
                f"cannot evaluate: got images of shape {kind[0]} and {kind[1]} in batch {index}, and {self.kind[0]} and {self.kind[1]} "
                "in the first; give images of one shape and dtype"
            )
        if self.store.holds(index, mark):
            outcome = self.store.get(index)._replace(earlier=True)
        else:
            then, forwards, backwards = time.perf_counter(), predictor.forwards, predictor.backwards
            there = Batch(*(tensor.to(predictor.device) for tensor in batch))
            rows, survivors, beyond = attack_batch(self.prepared, there, index)
            spent = predictor.forwards - forwards, predictor.backwards - backwards, time.perf_counter() - then
            outcome = Outcome(rows, survivors, *spent, beyond)
            self.store.put(index, mark, outcome)
        return outcome

    def _held(self, index: int, outcome: Outcome) -> Outcome:
        """The same without images, its rows a part of one tensor for all: many small ones would break memory into pieces."""
        *parts, _ = outcome.rows
        if not self.rows:
            total = sum(len(self.prepared.aims[one]) for one in self.mine)
            self.rows = [part.new_empty(total) for part in parts]
        place = slice(self.first[index], self.first[index] + len(outcome.rows.y))
        kept = [whole[place].copy_(part) for whole, part in zip(self.rows, parts, strict=True)]
        return outcome._replace(rows=RowOutcomes(*[*kept, torch.empty(0)]))

    def _adversarial(self, number: int) -> Tensor:
        return self.store.get(self.mine[number]).rows.x_adv

    def _score(self, name: str) -> Score:
        counts = [one.survivors[name] for one in self.found]
        if self.prepared.coupling.coupled:
            return intervals.of_batches(counts, self.prepared.size)
        return intervals.of_rows(sum(counts), sum(len(one.rows.y) for one in self.found))

    def _rescore(self, size: int) -> tuple[float | None, str]:
        """Accuracy on the same images in other batches of this size; None, and why, where the model cannot take these.

        Rows are shuffled over as many batches as may be held at a time.
        """
        predictor, left, held = self.prepared.predictor, 0, list[tuple[Tensor, Tensor, Tensor]]()
        for number, (index, one) in enumerate(zip(self.mine, self.found, strict=True)):
            lost = one.rows.broken_by == -2 if self.plan.targeted else torch.zeros_like(one.rows.y, dtype=torch.bool)
            held.append((self._adversarial(number), self.prepared.aims[index].cpu(), lost))
            if number + 1 < len(self.found) and sum(x.nbytes for x, _, _ in held) < AT_ONCE:
                continue
            x, aim, lost = (torch.cat(parts) for parts in zip(*held, strict=True))
            order = torch.randperm(len(aim), generator=generator(predictor.seed, "rebatch"))
            try:
                for rows in order.split(size):
                    reached = predictor.reached(predictor.answers(x[rows], aim[rows])[0].cpu(), aim[rows])
                    left += int((~reached & ~lost[rows]).sum())
            except torch.OutOfMemoryError:
                raise
            except (ValueError, RuntimeError) as error:  # such as a network that takes rows in pairs
                return None, str(error)
            held = []
        return left / sum(len(one.rows.y) for one in self.found), ""


def _so_far(found: Sequence[Outcome]) -> str:
    rows = sum(len(one.rows.y) for one in found)
    clean, worst = (sum(one.survivors[name] for one in found) for name in (CLEAN, WORST))
    return f"{rows} rows, clean {100 * clean / rows:.1f}%, worst case {100 * worst / rows:.1f}%"
