"""Several attacks as one: each sees only the rows that the ones before it left standing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..registry import check_words
from ..types import Images, Labels, Region
from .apgd import APGD
from .base import BaseAttack, at_least
from .best_iterate import Best
from .fab import FAB
from .oracle import Oracle
from .square import Square


@dataclass(frozen=True, kw_only=True)
class Ensemble(BaseAttack):
    """What attacks made of parts share: the worst case over the parts.

    Of independent rows each part sees only what the parts before it left standing; of coupled rows each part sees every
    batch whole, and the batch with fewest survivors is kept.
    """

    @property
    @abstractmethod
    def parts(self) -> tuple[BaseAttack, ...]:
        """The attacks, in order."""

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best, fallen = Best(x, region.victims, oracle.how), []
        for number, part in enumerate(self.parts_in(region.kind)):
            left = best.standing
            if len(left) == 0:
                break
            found = part.search(oracle, region.select(left), x[left], y[left])
            best.take(oracle, left, y[left], found, getattr(part, "steps", 1), number)
            fallen.append(best.fallen)
        return best.x_adv, best.first_hit, best.part, torch.tensor(fallen, dtype=torch.long)


@dataclass(frozen=True, kw_only=True)
class WorstCase(Ensemble):
    """The worst case over attacks of your choice, made by `worst_case`."""

    name: ClassVar[str] = "worst"

    attacks: tuple[BaseAttack, ...]

    @property
    def label(self) -> str:
        return f"worst of {' + '.join(part.label for part in self.parts)}"

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        return tuple(part for attack in self.attacks for part in attack.parts)

    def parts_in(self, kind: str) -> tuple[BaseAttack, ...]:
        return tuple(part for attack in self.attacks for part in attack.parts_in(kind))


def worst_case(*attacks: BaseAttack | Sequence[BaseAttack]) -> WorstCase:
    """Several attacks as one, cheapest first: each sees the rows that the ones before it left standing.

    Takes the attacks one by one, or in a sequence. Raises ValueError for no attack, and for what is none.

    >>> worst_case(APGD(loss="dlr"), AutoAttack()).label
    'worst of apgd-dlr + apgd-ce + apgd-t + fab-t + square-5000'
    """
    each = tuple(attack for given in attacks for attack in (given if isinstance(given, Sequence) else (given,)))
    if not each:
        raise ValueError("worst_case needs at least one attack; got none")
    for attack in each:
        if not isinstance(attack, BaseAttack):
            raise ValueError(f"worst_case takes attacks such as PGD(); got {attack!r}")
    return WorstCase(attacks=each)


@dataclass(frozen=True, kw_only=True)
class AutoAttack(Ensemble):
    """The parameter-free ensemble, in its published order: the worst case over its parts.

    "standard": APGD-CE, APGD-T (9 targets), FAB-T (9 targets), Square (5,000 queries); 100 steps and one start each.
    "plus": APGD-CE, APGD-DLR and untargeted FAB with 5 starts each, Square, APGD-T, FAB-T.
    "rand", for models with noise of their own: APGD-CE and APGD-DLR, each gradient a mean over 20 draws.
    In l1 "standard" gives APGD-CE 5 starts and APGD-T 5 targets. Settings other than the published ones are in its label.

    Options
        version     "standard", "plus" or "rand"
        steps       of APGD and FAB
        queries     of Square
        draws       of "rand"

    Cost: on independent rows each part sees only what the parts before it left standing; of coupled rows each part sees
    every batch whole, and the batch with fewest survivors is kept. Parts leave rows that look hopeless before their end,
    which the published code does not: `Speed(give_up=False)` is as published.
    Source: Croce and Hein 2020, arXiv:2003.01690, sec. 5; l1: Croce and Hein 2021, arXiv:2103.01208; "rand": the authors'
    code.
    """

    name: ClassVar[str] = "autoattack"

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: int = 100
    queries: int = 5000
    draws: int = 20

    def __post_init__(self) -> None:
        check_words(self)
        at_least(self.name, 1, draws=self.draws)
        unused = "queries" if self.version == "rand" else "draws"
        if (value := getattr(self, unused)) != getattr(type(self), unused):
            raise ValueError(f"{unused} of {self.name} is {value}, and version {self.version} has none; leave {unused} out")
        _ = self.parts  # check their own options

    @property
    def label(self) -> str:
        published = {"steps": 100, "draws": 20} if self.version == "rand" else {"steps": 100, "queries": 5000}
        others = [f"-{name}{getattr(self, name)}" for name, value in published.items() if getattr(self, name) != value]
        return f"autoattack-{self.version}" + "".join(others)

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        return self.parts_in("linf")

    def parts_in(self, kind: str) -> tuple[BaseAttack, ...]:
        steps, square = self.steps, Square(steps=self.queries)
        targeted = APGD(steps=steps, targets=9), FAB(steps=steps)
        if self.version == "rand":
            return APGD(steps=steps, draws=self.draws), APGD(steps=steps, loss="dlr", draws=self.draws)
        if self.version == "standard" and kind == "l1":
            return APGD(steps=steps, restarts=5), APGD(steps=steps, targets=5), FAB(steps=steps), square
        if self.version == "standard":
            return APGD(steps=steps), *targeted, square
        untargeted = (
            APGD(steps=steps, restarts=5),
            APGD(steps=steps, loss="dlr", restarts=5),
            FAB(steps=steps, targets=0, restarts=5),
        )
        return *untargeted, square, *targeted
