"""What fell, to whom, and how low that puts the upper bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ...evaluation.verdict import Verdict
from ...records import Score
from ...utils import intervals

CLEAN = "clean"


class Clean(NamedTuple):
    """Accuracy on untouched images, and what it would be by chance: if the same answers were dealt out to the same labels blindly."""

    score: Score
    chance: float

    @property
    def learned(self) -> bool:
        """Whether the lower end of the interval is above twice chance, or above chance by a twentieth of what chance leaves."""
        return self.score.low > min(2 * self.chance, self.chance + (1 - self.chance) / 20)


def clean_of(verdict: Verdict) -> Clean:
    """What a verdict knows of untouched images."""
    y, said = verdict.rows.y, verdict.rows.clean_predictions
    classes = int(max(y.max(), said.max())) + 1
    shares = [labels.bincount(minlength=classes).double() / len(y) for labels in (y, said)]
    return Clean(verdict.evaluation.clean_accuracy, float((shares[0] * shares[1]).sum()))


class Ledger:
    """What attacks inside the threat model have broken.

    first       independent rows that do not stand: what broke them first ("clean": nothing had to), in the order of the attacks
    lowest      the lowest accuracy that one attack left, and the attack; of coupled rows that is the bound
    checks      of each attack the check that asked for it
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.first: dict[int, str] = {}
        self.lowest: tuple[Score, str] | None = None
        self.checks: dict[str, str] = {}

    def lower(self, score: Score, called: str, check: str = "") -> None:
        """Learn of what one attack left."""
        if self.lowest is None or score.value < self.lowest[0].value:
            self.lowest = score, called
            self.checks.setdefault(called, check)

    def fell(self, ids: Iterable[int], called: str, check: str = "") -> None:
        """Learn of independent rows that an attack broke."""
        self.checks.setdefault(called, check)
        for one in ids:
            self.first.setdefault(one, called)

    def bound(self, coupled: bool) -> tuple[Score, dict[str, int]] | None:
        """The upper bound known so far, and the rows each attack was the first to break."""
        if self.first and not coupled:
            counts = Counter(self.first.values())
            return intervals.of_rows(self.rows - len(self.first), self.rows), dict(counts)
        if self.lowest is None:
            return None
        score, called = self.lowest
        return score, {called: score.rows - round(score.value * score.rows)}

    def sentence(self, coupled: bool, exceeds: Callable[[Score], bool]) -> str:
        """Which attack, asked by which check, was the first to contradict the claim, and which set the bound."""
        if coupled or not self.first:
            found = self.bound(coupled)
            return f"{self._named(next(iter(found[1])))} leaves {_percent(found[0])}" if found else ""
        left, steps, contradicts = self.rows, list[str](), False
        for called, count in Counter(self.first.values()).items():
            left -= count
            score = intervals.of_rows(left, self.rows)
            step = f"to {_percent(score)} with {self._named(called)}"
            steps = [*steps, step] if contradicts else [step]
            contradicts = contradicts or exceeds(score)
        return f"robust accuracy falls {', '.join(dict.fromkeys((steps[0], steps[-1])))}"

    def _named(self, called: str) -> str:
        if called == CLEAN:
            return "clean images"
        return f"{called} ({check})" if (check := self.checks.get(called)) else called


def _percent(score: Score) -> str:
    return f"{100 * score.value:.1f}%"
