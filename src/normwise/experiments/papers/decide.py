"""How a claim is decided: the paired difference over seeds and rows against the smallest effect, fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Records = Mapping[str, Mapping[str, Any]]  # the records of one seed, by cell
HOLDS, ONLY, NOT, OPEN = "holds", "holds only under the paper's protocol", "does not hold", "not decided at this size"
NEVER = "not attempted"
# By what the paper's protocol and the strongest attack say: the second decides, since it is nearer to the truth.
VERDICTS = {(HOLDS, HOLDS): HOLDS, (OPEN, HOLDS): HOLDS, (HOLDS, NOT): ONLY, (OPEN, NOT): NOT, (NOT, NOT): NOT}
VISIBLE = (0.2, 0.8)  # sides are compared where the baseline has this share left


class Difference(NamedTuple):
    """A mean over seeds and rows with its 95% interval (None: one number has none), and what it is of."""

    value: float
    low: float | None
    high: float | None
    what: str
    n: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that can be wrong.

    Options
        number      its number
        system      the paper
        claim       the sentence
        paper       the paper's own figure, where known
        cells       the cells it needs
        measure     the paired differences [seeds, rows] under a protocol ("paper" or "strongest"), and what they are of
        effect      the smallest difference that counts: beyond it the claim holds
        guard       says why the claim cannot be decided whatever the difference, or nothing
    """

    number: str
    system: str
    claim: str
    paper: str
    cells: tuple[str, ...]
    measure: Callable[[Sequence[Records], str], tuple[NDArray[np.float64], str] | None] | None
    effect: float
    guard: Callable[[Sequence[Records]], str] = lambda records: ""


def decide(claim: Claim, records: Sequence[Records], evidence: bool) -> dict[str, Any]:
    """Decide one claim from the records of all seeds that have every cell it needs."""
    full = [one for one in records if all(cell in one for cell in claim.cells)]
    entry: dict[str, Any] = {
        "claim": claim.claim,
        "system": claim.system,
        "number": claim.number,
        "paper": claim.paper,
        "effect": claim.effect,
        "protocol": None,
        "strongest": None,
        "verdict": OPEN,
        "n": 0,
        "seeds": len(full),
        "why": "",
    }
    if claim.measure is None:
        return entry | {"verdict": NEVER, "why": "no network of ours reads a clip yet"}
    if not full:
        return entry | {"why": f"no seed has all of its cells: {', '.join(claim.cells)}"}
    sides = {}
    for protocol in ("paper", "strongest"):
        measured = claim.measure(full, protocol)
        sides[protocol] = None if measured is None else paired(*measured)
    shown = {key: None if side is None else dict(side._asdict()) for key, side in sides.items()}
    entry |= {"protocol": shown["paper"], "strongest": shown["strongest"]}
    entry["n"] = next((side.n for side in sides.values() if side), 0)
    words = {protocol: _word(side, claim.effect) for protocol, side in sides.items()}
    why = claim.guard(full)
    if not evidence:
        why = "this size is never evidence"
    elif len(full) < 3:
        why = f"{len(full)} of 3 seeds"
    elif not why and None in sides.values():
        why = f"at no radius has the baseline {VISIBLE[0]:.0%} to {VISIBLE[1]:.0%} left"
    if not why:
        entry["verdict"] = VERDICTS.get((words["paper"], words["strongest"]), OPEN)
        if OPEN in words.values() or entry["verdict"] == OPEN:
            told = {HOLDS: "holds", NOT: "does not hold", OPEN: "open"}
            why = f"{told[words['paper']]} under the paper's protocol, {told[words['strongest']]} under the strongest attack"
    return entry | {"why": why}


def paired(differences: NDArray[np.float64], what: str) -> Difference:
    """The mean of [seeds, rows] with its 95% interval.

    Two things vary: seeds (Student's t over the seeds' means, its quantile to three decimals as in printed tables) and test
    rows, which all seeds share (normal, over the rows' means); the squares of both half-widths add up.
    """
    from scipy.special import stdtrit

    seeds, rows = differences.shape
    half = 0.0
    if seeds > 1:
        half += (round(stdtrit(seeds - 1, 0.975), 3) * differences.mean(1).std(ddof=1)) ** 2 / seeds
    if rows > 1:
        half += 1.96**2 * differences.mean(0).var(ddof=1) / rows
    mean, half = float(differences.mean()), math.sqrt(half)
    if differences.size == 1:
        return Difference(mean, None, None, what, rows)
    return Difference(mean, mean - half, mean + half, what, rows)


def _word(side: Difference | None, effect: float) -> str:
    if side is None or side.low is None or side.high is None:
        return OPEN
    return HOLDS if side.low > effect else NOT if side.high < effect else OPEN
