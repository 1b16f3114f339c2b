"""How far an attacker reaches into a coupled batch: one row among clean neighbours, or neighbours against untouched rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..attacks import PGD
from ..records import Check, Evaluation
from ..seeding import generator
from ..threats import Linf
from ..threats.masked import MaskedRegion
from ..types import Attack, Batch, Images, Region, Report, ThreatModel, silent
from ..utils import intervals
from ..utils.batches import Chosen, sizes_of
from ..utils.forward import logits_of
from ..utils.model_state import running
from .coupling import Coupling
from .plan import AttackPlan
from .predictor import Predictor

VICTIMS, ONE_ROW = 32, PGD(steps=20)  # whom an evaluation attacks one by one, and how


class Reached(NamedTuple):
    """Of so many victims, how many were right untouched, and how many are right after the attack.

    `fell` names those that were right and are not: id, label, and what the model says now.
    """

    victims: int
    clean: int
    standing: int
    fell: tuple[tuple[int, int, int], ...] = ()


def with_single(
    e: Evaluation,
    model: nn.Module,
    batches: Sequence[Batch],
    threat: ThreatModel,
    craft_on: nn.Module | None = None,
    report: Report = silent,
) -> Evaluation:
    """Return the evaluation with what `single` leaves (PGD-20, the first 32 rows of whole batches), if its rows are coupled.

    An attack that cannot search here (no gradient to follow, for one) leaves the evaluation without, and a check says why.
    """
    if not e.coupled or e.goal != "misclassified":
        return e
    whole = Chosen(batches, [number for number, size in enumerate(sizes_of(batches)) if size == e.batch_size])
    plan, coupling = AttackPlan(threat, (ONE_ROW,), seed=e.seed), Coupling(**e.coupling)
    try:
        found = single(model, whole, plan, craft_on=craft_on, coupling=coupling, report=report)
    except ValueError as error:
        why = "an attacker who sends one image meets clean neighbours: the figures of whole batches may be too high for it"
        missing = Check(name="one row among clean ones", status="warn", measured=f"not measured: {error}", why=why)
        return dataclasses.replace(e, checks=(*e.checks, missing))
    return dataclasses.replace(e, single=intervals.of_rows(found.standing, found.victims))


def single(
    model: nn.Module,
    batches: Sequence[Batch],
    plan: AttackPlan,
    *,
    victims: int = VICTIMS,
    craft_on: nn.Module | None = None,
    coupling: Coupling | None = None,
    report: Report = silent,
) -> Reached:
    """The attacker owns one row of a batch and leaves its neighbours clean; each of the first `victims` rows in turn.

    White-box through the statistics of the whole batch. A row counts as standing if the model, asked about the batch with
    the attacker's image in place, still gives its label; one that the measured `coupling` says has noise of its own is asked
    11 times. `craft_on` is searched instead. Where what the search finds need not mislead the model itself, there is no
    early stopping.
    """
    predictor, clean, standing, tried = Predictor(model, plan.seed), 0, 0, 0
    if coupling:
        predictor.adjust(coupling)
    (attack,), search = plan.attacks, plan.search(True, craft_on is None and predictor.draws == 1)
    with running(model, "eval"), running(craft_on or model, "eval"):
        for batch in batches:
            x, y = batch.x.to(predictor.device), batch.y.to(predictor.device)
            right = predictor.answers(x, y)[0] == y
            for row in range(min(len(y), victims - tried)):
                tried += 1
                report("one row among clean neighbours", tried, victims)
                if not right[row]:
                    continue
                clean += 1
                beside, one = _Beside(craft_on or model, x, row), slice(row, row + 1)
                rng = generator(plan.seed, "single", tried)
                x_adv = attack(beside, x[one], y[one], plan.threat, generator=rng, search=search).x_adv
                standing += int(predictor.answers(beside.batch(x_adv), y)[0][row] == y[row])
            if tried == victims:
                break
    return Reached(tried, clean, standing)


def peers(
    model: nn.Module,
    batches: Sequence[Batch],
    attack: Attack,
    *,
    share: float = 0.5,
    eps: float = 1.0,
    victims: int = 0,
    seed: int = 0,
) -> Reached:
    """The attacker owns a share of each batch's rows and wants the others, which nobody touches, misclassified.

    `victims`: begin no batch after so many of these; 0: all batches.

    Malicious rows may be any image (eps 1). For a model with independent rows nothing can change.
    Source: Wu et al. 2023, arXiv:2301.12576 (distribution invading attack). Differs: all victims of a batch at once.
    """
    predictor, clean, standing, rows, fell = Predictor(model, seed), 0, 0, 0, list[tuple[int, int, int]]()
    with running(model, "eval"):
        for number, batch in enumerate(batches):
            if victims and rows >= victims:
                break
            x, y = batch.x.to(predictor.device), batch.y.to(predictor.device)
            threat = _Malicious(share=share, eps=eps)
            still = ~threat.movable(len(x)).to(x.device)
            before = (predictor.logits(x).argmax(1) == y) & still
            x_adv = attack(model, x, y, threat, generator=generator(seed, "peers", number)).x_adv
            said = predictor.logits(x_adv).argmax(1)
            after = (said == y) & still
            clean, standing, rows = clean + int(before.sum()), standing + int(after.sum()), rows + int(still.sum())
            lost = (before & ~after).cpu()
            fell += zip(batch.ids[lost].tolist(), batch.y[lost].tolist(), said.cpu()[lost].tolist(), strict=True)
    return Reached(rows, clean, standing, tuple(fell))


class _Beside(nn.Module):
    """The model as one row sees it: the other rows of the batch stay what they are."""

    def __init__(self, model: nn.Module, x: Images, row: int) -> None:
        super().__init__()
        self.model, self.row = model, row
        self.before, self.after = x[:row], x[row + 1 :]

    def batch(self, one: Tensor) -> Tensor:
        return torch.cat([self.before, one, self.after])

    def forward(self, one: Tensor) -> Tensor:
        return logits_of(self.model, self.batch(one))[self.row : self.row + 1]


@dataclass(frozen=True, kw_only=True)
class _Malicious:
    """The last rows of a batch may change, to hurt the others."""

    name: ClassVar[str] = "peers"

    share: float
    eps: float

    def movable(self, rows: int) -> Tensor:
        return torch.arange(rows) >= round((1 - self.share) * rows)

    def around(self, x: Images, *, generator: Generator) -> Region:
        mask = self.movable(len(x)).to(x.device).view(-1, *[1] * (x.ndim - 1))
        region = MaskedRegion(Linf(eps=self.eps).around(x, generator=generator), x, mask, "linf")
        region.victims = ~mask.flatten()
        return region
