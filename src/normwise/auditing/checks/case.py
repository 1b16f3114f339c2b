"""What is known so far of the network that is audited."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from ...attacks import PGD
from ...attacks.strongest import pixels_of
from ...evaluation.coupling import Coupling
from ...evaluation.evaluator import evaluate
from ...evaluation.groups import effective_rows, numbered, with_intervals
from ...evaluation.naming import label
from ...evaluation.plan import AttackPlan, Stateful
from ...evaluation.store import Shard
from ...evaluation.verdict import Verdict
from ...records import Evaluation, Score
from ...registry import as_json
from ...types import Attack, Batch, ThreatModel
from ...utils.hashing import mark_of
from ...utils.model_state import device_of, identity
from ..options import AuditOptions
from .example import Example, example_of
from .ledger import CLEAN, Clean, Ledger, clean_of
from .levels import levels_of
from .pairing import for_any_size
from .rechecks import Recheck, copy_of

T = TypeVar("T")
PGD20 = PGD(steps=20)  # what it leaves is the claim where none is made
GAP = 0.05  # a claim that exceeds the truth by more is doubtful
SHOWN = 6  # adversarial images kept for the page


class Found(NamedTuple):
    """What a question found: pass, warn or fail, in words, on how many rows (None: on none), and as a series where it is one."""

    status: str
    measured: str
    n: int | None
    series: dict[str, Any] | None = None


def found(
    measured: str, n: int | None, *, fail: bool = False, warn: bool = False, series: dict[str, Any] | None = None
) -> Found:
    """Put together what was found, on `n` rows (None: no row entered)."""
    return Found("fail" if fail else "warn" if warn else "pass", measured, n, series)


@dataclass(frozen=True)
class Question:
    """One check of the audit: its name, why it matters and what to do, and how it is asked.

    `attacker` says who controls the batch, its order, its size and the running statistics, where that is not as for the
    claim.
    """

    name: str
    why: str
    ask: Callable[[Case], Found]
    attacker: str = ""


def question(name: str, why: str, attacker: str = "") -> Callable[[Callable[[Case], Found]], Question]:
    """Make a function of the case a check."""
    return lambda ask: Question(name, why, ask, attacker)


class Case:
    """What is known so far of one network; checks read it and add to it.

    model, batches, threat      who is audited, on what, against whom
    network                     the model as it was given; `model` asks it about two rows at least, where it cannot answer one
    claim                       the claimed robust accuracy; None until PGD-20 gave one, on these rows
    options                     what the claim admits, and what the audit may use
    coupling                    what repeating passes and changing neighbours does, once measured
    again                       second looks at what searches find
    ledger                      what fell, to whom
    check                       the check that is asking
    through                     what is left where the layers that cut pass gradients straight through, once searched
    violations                     violations that make any claim doubtful
    unvouched                   why nothing could support any claim
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        threat: ThreatModel,
        *,
        claim: float | None = None,
        seed: int = 0,
        options: AuditOptions = AuditOptions(),
    ) -> None:
        if not batches:
            raise ValueError("there are no batches to audit on; give at least one batch of images and labels")
        ids = torch.cat([batch.ids for batch in batches])
        if again := len(ids) - len(ids.unique()):
            raise ValueError(f"{again} of {len(ids)} images have the id of another; give each image its own id")
        self.again = Recheck(copy_of(model), levels_of(batches), seed)
        self.model, self.batches, self.threat = for_any_size(model, batches[0]), list(batches), threat
        self.network, self.paired = model, claim is None
        self.claim, self.seed, self.options = claim, seed, options
        self.coupling: Coupling | None = None
        self.violations: list[str] = []
        self.unvouched: list[str] = []
        self.reach: dict[str, float] = {}
        self.examples: list[Example] = []
        self.ledger = Ledger(self.rows)
        self.check = ""
        self.clean: Clean | None = None
        self.through: Score | None = None
        self._groups = numbered(options.groups, len(ids)) if len(options.groups) else None
        self._asked: dict[str, tuple[Evaluation, nn.Module | None]] = {}

    @property
    def coupled(self) -> bool:
        """Whether rows depend on their neighbours."""
        return bool(self.coupling and self.coupling.coupled)

    @property
    def random(self) -> bool:
        """Whether the model's own draws matter."""
        return bool(self.coupling and self.coupling.random)

    def merge(self) -> None:
        """Ask about many rows at a time, now that they are known to be independent: it takes less time."""
        self.batches = self.split(self.options.at_once)

    def split(self, rows: int) -> list[Batch]:
        """The rows in batches of another size."""
        whole = Batch(*(torch.cat(parts) for parts in zip(*self.batches, strict=True)))
        return [Batch(*parts) for parts in zip(*(part.split(rows) for part in whole), strict=True)]

    @property
    def rows(self) -> int:
        """Test rows."""
        return sum(len(batch.y) for batch in self.batches)

    @property
    def scored(self) -> int:
        """Test rows that a search is checked on: of coupled rows those of whole batches."""
        size = len(self.batches[0].y)
        return sum(len(batch.y) for batch in self.batches if len(batch.y) == size or not self.coupled)

    @property
    def tolerance(self) -> float:
        """What two searches may differ by without meaning anything: two points, or two rows."""
        return max(0.02, 2 / self.rows)

    def first(self, rows: int = 64) -> Batch:
        """Rows of the first batch, on the model's device."""
        device = device_of(self.model)
        x, y, ids = self.batches[0]
        return Batch(x[:rows].to(device), y[:rows].to(device), ids[:rows])

    def evaluate(
        self,
        *attacks: Attack,
        threat: ThreatModel | None = None,
        craft_on: nn.Module | None = None,
        batches: Sequence[Batch] | None = None,
        stateful: Stateful = "restore",
        called: str = "",
        inside: bool | None = None,
    ) -> Evaluation:
        """Evaluate. What falls inside the audited threat model lowers the upper bound. The same question is asked once.

        Another `threat` may lie `inside` the audited one, and other `batches` outside: who chooses a row's neighbours has
        more power than the claim gives. None: what is under the audited threat is inside.
        """
        rows = None if batches is None else [batch.ids.tolist() for batch in batches]
        asked = repr((attacks, threat, id(craft_on), rows, stateful))
        if asked not in self._asked:
            given = self.batches if batches is None else batches
            plan = AttackPlan(threat or self.threat, attacks, seed=self.seed, stateful=stateful)
            verdict = evaluate(self.model, given, plan, craft_on=craft_on, folder=self._kept(plan, given, craft_on))
            self._asked[asked] = verdict.evaluation, craft_on
            if self.clean is None and batches is None:
                self.clean = clean_of(verdict)
            if inside or (inside is None and threat is None):
                called = called or " and ".join(map(label, attacks)) or "no attack"
                self._learn(verdict, called)
                if stateful == "restore":
                    self._recheck(verdict, called)
        return self._asked[asked][0]

    def turned(self, parts: list[T]) -> list[T]:
        """Parts of the rows in the order in which this process asks about them: of several, each begins at another one."""
        return self.options.share.turned(parts) if self.options.share else parts

    def _kept(self, plan: AttackPlan, batches: Sequence[Batch], craft_on: nn.Module | None) -> Shard | None:
        """Where the finished batches of a question are kept, by a digest of all that it asks; None: nowhere."""
        share = self.options.share
        if share is None or plan.stateful == "sequence":
            return None
        networks = [str(identity(one)) for one in (self.model, craft_on) if one is not None]
        asked = json.dumps([as_json({"plan": plan}), networks, [mark_of(batch) for batch in batches]])
        return replace(share, folder=share.folder and share.folder / hashlib.sha256(asked.encode()).hexdigest()[:16])

    def accuracy(self, *attacks: Attack, **options: Any) -> float:
        """The robust accuracy that `evaluate` finds."""
        return self.evaluate(*attacks, **options).robust_accuracy.value

    @property
    def pixels(self) -> str:
        """Which pixels the threat model changes, as attacks know it."""
        return pixels_of(self.threat)

    def pgd20(self) -> float:
        """What PGD-20 leaves; where it cannot run (no gradient to follow, say), all that the network gets right."""
        try:
            return self.accuracy(PGD20)
        except Exception:
            return self.evaluate().clean_accuracy.value

    def exceeds(self, score: Score) -> bool:
        """Whether the claim exceeds this by more than 5 points and more than the interval of their difference.

        It is paired where the claim is what PGD-20 left of the same rows; of any other claim no rows are known.
        """
        excess = (self.claim or 0.0) - score.value
        half = score.high - score.value
        if self.paired and score.unit != "batches" and score.rows == self.rows:
            paired = 1.96 * math.sqrt(max(0.0, excess * (1 - excess)) / self.rows)
            half = paired if score.unit == "rows" else max(half, paired)  # rows of one group are alike
        return excess > max(GAP, half)

    def violated(self, name: str, text: str) -> None:
        """Learn that answers are random, stateful or coupled; any claim that does not declare it is doubtful."""
        if name not in self.options.declares:
            self.violations.append(text)

    def standing(self) -> list[Batch]:
        """The rows that no attack has broken yet; whole batches where rows are coupled."""
        if self.coupled:
            return self.batches
        kept = list[Batch]()
        for batch in self.batches:
            left = torch.tensor([one not in self.ledger.first for one in batch.ids.tolist()])
            if left.any():
                kept.append(Batch(*(part[left] for part in batch)))
        return kept

    def lower(self, score: Score, called: str) -> None:
        """Learn of an accuracy inside the threat model that was not measured by `evaluate`."""
        self.ledger.lower(score, called, self.check)

    def bound(self) -> tuple[Score, dict[str, int]] | None:
        """The upper bound of robust accuracy known so far, and the rows each attack was the first to break."""
        known = self.ledger.bound(self.coupled)
        if known is None or self._groups is None or self.coupled:
            return known
        ids = torch.cat([batch.ids for batch in self.batches]).tolist()
        stands = np.array([float(one not in self.ledger.first) for one in ids])
        return with_intervals(known[0], effective_rows([stands], self._groups), int(self._groups.max()) + 1), known[1]

    def _learn(self, verdict: Verdict, called: str) -> None:
        rows, score = verdict.rows, verdict.evaluation.robust_accuracy
        if self.coupled or (
            self.ledger.lowest is None and score.rows == self.rows
        ):  # of independent rows: where nothing falls
            self.lower(score, called)
        ids, untouched = rows.ids.tolist(), rows.clean_predictions != rows.y
        for number in (rows.predictions != rows.y).nonzero().flatten().tolist():
            if ids[number] not in self.ledger.first and not untouched[number] and len(self.examples) < SHOWN:
                self.examples.append(example_of(verdict, number, called))
            self.ledger.fell([ids[number]], CLEAN if untouched[number] else called, self.check)

    def _recheck(self, verdict: Verdict, called: str) -> None:
        for result in self.again.recheck(verdict, self.model, self.threat, called):
            if self.coupled:
                self.lower(result.score, result.called)
            for ids in result.wrong:
                self.ledger.fell(ids, result.called, self.check)
