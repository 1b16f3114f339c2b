"""Further attackers beside a network's own threat model: columns of a table, their mean and their union."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ..attacks import APGD, PGD, PatchAttack, SigmaZero, SparseRS
from ..attacks.base import at_least
from ..evaluation import batch_attacks, sanity_checks
from ..evaluation.evaluator import evaluate
from ..evaluation.groups import groups_of
from ..evaluation.plan import AttackPlan
from ..evaluation.several import mean_and_union
from ..evaluation.store import Shard
from ..evaluation.verdict import Verdict
from ..norms import on_route
from ..norms.multibn import detected
from ..records import Check, Evaluation, Score, Several, provenance
from ..threats.scaled import scaled
from ..types import Attack, Batch, Report, ThreatModel, silent


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Further attackers, scaled to the images and to the radius of the threat model, which must be in linf (see `threats.scaled`).

    Options
        kinds       some of l2, multav, roa, af, spa; []: none
        steps       steps of PGD, the protocol of each
        search      steps of the stronger searches on what the protocol leaves; 0: no stronger searches
        repeats     places and restarts of searches for patches
        queries     queries of searches without gradients
        alone       if images are coupled: in every column, attack 32 of them alone among clean neighbours too, which takes long
        oracle      of MultiBN: also let somebody who knows the attack choose the route; no defence that can be used

    Raises ValueError for counts below these.
    """

    kinds: tuple[Literal["l2", "multav", "roa", "af", "spa"], ...] = ()
    steps: int = 5
    search: int = 50
    repeats: int = 10
    queries: int = 1000
    alone: bool = True
    oracle: bool = False

    def __post_init__(self) -> None:
        at_least("columns", 1, steps=self.steps, repeats=self.repeats, queries=self.queries)
        at_least("columns", 0, search=self.search)
        others = {
            one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.default != getattr(self, one.name)
        }
        if others and not self.kinds:
            name, value = next(iter(others.items()))
            raise ValueError(f"columns has {name} {value}, and no kinds, so that no column is made; give kinds, such as roa")
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds of columns are {', '.join(self.kinds)}; give each once")

    def plans(self, plan: AttackPlan, shape: Sequence[int]) -> dict[str, AttackPlan]:
        """How the network is attacked in each column, beside its own plan. Raises ValueError as `scaled` does."""
        own = {kind: scaled(kind, plan.threat, shape) for kind in self.kinds}
        protocol = (PGD(steps=self.steps, keep="last"),)
        return {
            kind: dataclasses.replace(plan, threat=threat, attacks=protocol, strongest=self._strongest(kind))
            for kind, threat in own.items()
        }

    def _strongest(self, kind: str) -> tuple[Attack, ...]:
        if not self.search:
            return ()
        if kind in ("roa", "af"):
            return (PatchAttack(steps=self.search, repeats=self.repeats, queries=self.queries),)
        if kind == "spa":
            return SigmaZero(steps=self.search), SparseRS(steps=self.queries)
        return APGD(steps=self.search), APGD(steps=self.search, targets=3)


def check_columns(columns: Columns, threat: ThreatModel) -> None:
    """Refuse columns beside a threat model that they cannot be scaled to. Raises ValueError."""
    if columns.kinds and threat.name != "linf":
        raise ValueError(
            f"columns are scaled beside a radius in linf, and threat is {threat.name}; give linf, or no columns: --columns.kinds '[]'"
        )


def evaluate_columns(
    columns: Columns,
    verdict: Verdict,
    model: nn.Module,
    plan: AttackPlan,
    craft_on: nn.Module | None = None,
    folder: Path | Shard | None = None,
    report: Report = silent,
) -> Several | None:
    """Evaluate a network in every column, on the batches of its own verdict; nothing where there are no columns.

    Finished batches are kept in folders below `folder`, and shared with other workers there, as `evaluate` does.
    """
    if not columns.kinds:
        return None
    batches, found = verdict.batches, {"linf": verdict}
    plans = columns.plans(plan, batches[0].x.shape[1:])
    for kind, its in plans.items():
        there = _below(folder, kind)
        one = evaluate(model, batches, its, craft_on=craft_on, folder=there, report=_named(report, kind))
        one = one.named(verdict.evaluation.model, verdict.evaluation.data)
        if columns.alone:
            whole = batch_attacks.with_single(one.evaluation, model, batches, its.threat, craft_on, report)
            one = dataclasses.replace(one, evaluation=whole)
        found[kind] = one if verdict.groups is None else one.by_group(verdict.groups.tolist())
    return dataclasses.replace(
        mean_and_union(found), oracle=_oracle(model, batches, {"linf": plan, **plans}) if columns.oracle else {}
    )


def share(columns: Columns, model: nn.Module, batches: Sequence[Batch], plan: AttackPlan, craft_on: Any, of: Shard) -> None:
    """Let a worker do its share of every column."""
    for kind, its in columns.plans(plan, batches[0].x.shape[1:]).items():
        evaluate(model, batches, its, craft_on=craft_on, folder=_below(of, kind))


def _below(folder: Path | Shard | None, kind: str) -> Path | Shard | None:
    if isinstance(folder, Shard):
        return dataclasses.replace(folder, folder=folder.folder and folder.folder / kind)
    return folder and folder / kind


def completed(
    found: Evaluation,
    model: nn.Module,
    batches: Sequence[Batch],
    threat: ThreatModel,
    craft_on: nn.Module | None = None,
    report: Report = silent,
    neighbours: Check | None = None,
) -> Evaluation:
    """Attach to a verdict what is left of single rows, where rows are coupled, what malicious neighbours do, and what ran.

    `neighbours`: what they do, where it has been asked already (`sanity_checks.beside_malicious`).
    """
    found = batch_attacks.with_single(found, model, batches, threat, craft_on, report)
    more = neighbours or sanity_checks.beside_malicious(model, batches, found.seed)
    return dataclasses.replace(found, checks=(*found.checks, more), provenance=provenance())


def by_group(verdict: Verdict, data: Any) -> Verdict:
    """The same with intervals by group, where the data know groups of their rows, such as patients."""
    groups = groups_of(data, verdict.evaluation.n)
    return verdict.by_group(groups) if groups else verdict


def _oracle(model: nn.Module, batches: Sequence[Batch], plans: dict[str, AttackPlan]) -> dict[str, Score]:
    """What MultiBN keeps if the route is chosen by who knows the attack; nothing for other networks."""
    layers = detected(model)
    if not layers:
        return {}
    clean = dataclasses.replace(plans["linf"], attacks=(), strongest=())
    found = {"clean": evaluate(on_route(model, 0), batches, clean).clean_accuracy}
    for route, kind in enumerate(layers[0].kinds, 1):
        if kind in plans:
            found[kind] = evaluate(on_route(model, route), batches, plans[kind]).robust_accuracy
    return found


def _named(report: Report, kind: str) -> Report:
    return lambda text, done, total: report(f"{kind}: {text}", done, total)
