"""How an arm chooses its learning rate: short trainings, judged on validation rows, extended while the edge is chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..records import to_json, write


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How the learning rate of every arm that trains is searched for, on the first seed.

    Options
        part    of the schedule's epochs that a try trains
        factor  between neighbouring rates beyond the list
        most    rates tried beyond the list, at most
        rows    validation rows that judge a try, at least
        chance  of rates that lie within a standard error of the difference to the best, on so many rows, take that of least training loss
    """

    part: float = 1 / 3
    factor: float = 3.0
    most: int = 3
    rows: int = 1000
    chance: bool = False

    def epochs(self, whole: int) -> int:
        """Epochs of a try: at least the part of the whole, rounded up."""
        return max(1, math.ceil(self.part * whole))


@dataclass(frozen=True)
class Try:
    """What a short training at one rate reached, and what it cost.

    accuracy    on validation rows: under attack where the recipe trains against one, else clean; 0 if it diverged
    loss        of training; None if it diverged
    """

    rate: float
    accuracy: float
    loss: float | None
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: accuracy, then less loss."""
        return self.accuracy, -math.inf if self.loss is None else -self.loss


@dataclass(frozen=True)
class Search:
    """A finished search: its tries by growing rate, the rate chosen, and whether that still lies at the edge."""

    tries: tuple[Try, ...]
    rate: float
    edge: bool

    def to_record(self) -> dict[str, Any]:
        """What a record says of it: every try, and the cost of all."""
        cost = {key: sum(getattr(one, key) for one in self.tries) for key in ("forwards", "backwards", "seconds")}
        return {"rate": self.rate, "edge": self.edge, "tries": [asdict(one) for one in self.tries], **cost}


def search(rates: Sequence[float], attempt: Callable[[float], Try], file: Path, tuning: Tuning) -> Search:
    """Try every rate, and more beyond the edge while the best one lies there.

    Finished tries are kept in `file`, so that a search that was stopped goes on after the last of them. A list of one rate
    is no choice: with `most` 0 its edge is not held against it.
    """
    done = {one.rate: one for one in _kept(file)}
    wanted, beyond = sorted(rates), 0
    while True:
        for rate in wanted:
            if rate not in done:
                done[rate] = attempt(rate)
                write(file, to_json([asdict(one) for one in done.values()]))
        best = _best([done[rate] for rate in wanted], tuning).rate
        at_edge = best in (wanted[0], wanted[-1])
        if not at_edge or beyond >= tuning.most:
            break
        further = best * tuning.factor if best == wanted[-1] else best / tuning.factor
        wanted, beyond = sorted([*wanted, float(f"{further:.3g}")]), beyond + 1
    return Search(tuple(done[rate] for rate in wanted), best, at_edge and bool(tuning.most))


def _best(tries: Sequence[Try], tuning: Tuning) -> Try:
    top = max(tries, key=lambda one: one.rank)
    if not tuning.chance:
        return top
    least = top.accuracy - math.sqrt(2 * top.accuracy * (1 - top.accuracy) / tuning.rows)
    return min((one for one in tries if one.accuracy >= least), key=lambda one: math.inf if one.loss is None else one.loss)


def _kept(file: Path) -> list[Try]:
    return [Try(**one) for one in json.loads(file.read_text())] if file.exists() else []
