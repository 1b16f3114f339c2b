"""The papers' claims, each with its metric, comparison and smallest effect fixed beforehand, and how they are decided."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Records = Mapping[str, Mapping[str, Any]]  # the records of one seed, by cell
HOLDS, ONLY, NOT, OPEN = "holds", "holds only under the paper's protocol", "does not hold", "not decided at this size"
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}  # Student's 97.5% quantiles
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
        return entry | {"why": "what it needs is not built yet"}
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
    elif None in sides.values():
        why = f"at no radius has the baseline {VISIBLE[0]:.0%} to {VISIBLE[1]:.0%} left"
    if not why:
        entry["verdict"] = {
            (HOLDS, HOLDS): HOLDS,
            (HOLDS, NOT): ONLY,
            (NOT, NOT): NOT,
        }.get((words["paper"], words["strongest"]), OPEN)
        if entry["verdict"] == OPEN:
            told = {HOLDS: "holds", NOT: "does not hold"}
            each = [
                f"{told.get(words[protocol], 'open')} under {name}"
                for protocol, name in (("paper", "the paper's protocol"), ("strongest", "the strongest attack"))
            ]
            why = f"an interval contains the smallest effect: {', '.join(each)}"
    return entry | {"why": why}


def paired(differences: NDArray[np.float64], what: str) -> Difference:
    """The mean of [seeds, rows] with its 95% interval.

    Two things vary: seeds (Student's t over the seeds' means) and test rows, which all seeds share (normal, over the rows'
    means); the squares of both half-widths add up.
    """
    seeds, rows = differences.shape
    half = 0.0
    if seeds > 1:
        half += (T.get(seeds - 1, 2.0) * differences.mean(1).std(ddof=1)) ** 2 / seeds
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


def _bits(record: Mapping[str, Any], protocol: str, radius: str) -> NDArray[np.float64]:
    return np.array([float(bit) for bit in record["figures"]["rows"][protocol][radius]])


def _visible(records: Sequence[Records], baseline: str, protocol: str) -> str | None:
    """The largest radius at which the baseline's mean accuracy is neither near all nor near nothing."""
    radii = [radius for radius in records[0][baseline]["figures"][protocol] if radius != "0"]
    for radius in sorted(radii, key=float, reverse=True):
        mean = np.mean([one[baseline]["figures"][protocol][radius] for one in records])
        if VISIBLE[0] <= mean <= VISIBLE[1]:
            return radius
    return None


def more_robust(cell: str, baseline: str, at: Callable[[float], str] = lambda radius: f"{255 * radius:.3g}/255") -> Any:
    """Robust accuracy of `cell` less that of `baseline`, row by row, where the baseline has 20 to 80% left."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str] | None:
        radius = _visible(records, baseline, protocol)
        if radius is None:
            return None
        rows = [_bits(one[cell], protocol, radius) - _bits(one[baseline], protocol, radius) for one in records]
        return np.stack(rows), f"robust accuracy at {at(float(radius))}, {cell} less {baseline}"

    return measure


def robust_at_training_radius(cell: str, less: str = "", level: float = 0.0, sign: int = 1) -> Any:
    """Robust accuracy at the radius of training, less another cell's or a level."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        radius = max(records[0][cell]["figures"][protocol], key=float)
        rows = [
            sign * (_bits(one[cell], protocol, radius) - (_bits(one[less], protocol, radius) if less else level))
            for one in records
        ]
        than = f"less {less}" if less else f"against {level:.0%}"
        return np.stack(rows), f"robust accuracy at {255 * float(radius):.3g}/255, {cell} {than}"

    return measure


def cleaner(cell: str, baseline: str) -> Any:
    """Clean accuracy of `cell` less that of `baseline`, row by row."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        rows = [_bits(one[cell], protocol, "0") - _bits(one[baseline], protocol, "0") for one in records]
        return np.stack(rows), f"clean accuracy, {cell} less {baseline}"

    return measure


def figure(what: str, of: Callable[[Records], float]) -> Any:
    """One number per seed that no attack's strength enters."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        return np.array([[of(one)] for one in records]), what

    return measure


def _equal_clean(cell: str, baseline: str) -> Callable[[Sequence[Records]], str]:
    def guard(records: Sequence[Records]) -> str:
        gap = np.mean([one[cell]["figures"]["clean"] - one[baseline]["figures"]["clean"] for one in records])
        return "" if abs(gap) <= 0.01 else f"clean accuracies differ by {100 * gap:+.1f} points, equal means within 1"

    return guard


def _fragile_start(records: Sequence[Records]) -> str:
    left = max(min(one["bn-standard"]["figures"]["strongest"].values()) for one in records)
    return "" if left <= 0.01 else f"the start is not fragile: {left:.1%} left under the strongest attack"


def _mean_shift(record: Mapping[str, Any]) -> float:
    return float(np.mean(list(record["figures"]["shifts"].values())))


def _ratio(a: Mapping[str, Any], b: Mapping[str, Any], *keys: str) -> float:
    for key in keys:
        a, b = a[key], b[key]
    return math.log(float(a) / float(b))  # type: ignore[arg-type]


CLAIMS = (
    Claim(
        number="1",
        system="robustnorm",
        claim="Adversarial images shift the inputs of BatchNorm more than noise of equal norm does",
        paper="claimed without a figure",
        cells=("bn-standard",),
        measure=figure(
            "standardized shift of site means, adversarial less noise, bn-standard",
            lambda one: (
                one["bn-standard"]["figures"]["drift"]["adversarial"]["shift"]
                - one["bn-standard"]["figures"]["drift"]["noise"]["shift"]
            ),
        ),
        effect=0.02,
    ),
    Claim(
        number="2",
        system="robustnorm",
        claim="Reading the batch's statistics at inference removes BatchNorm's vulnerability",
        paper="claimed without a figure",
        cells=("bn-standard", "bnwot"),
        measure=more_robust("bnwot", "bn-standard"),
        effect=0.1,
    ),
    Claim(
        number="3a",
        system="robustnorm",
        claim="RobustNorm (tracked) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=("bn-standard", "rnt-standard"),
        measure=more_robust("rnt-standard", "bn-standard"),
        effect=0.02,
        guard=_equal_clean("rnt-standard", "bn-standard"),
    ),
    Claim(
        number="3b",
        system="robustnorm",
        claim="RobustNorm (reading the batch) is more robust than BatchNorm at equal clean accuracy",
        paper="tables not available",
        cells=("bn-standard", "rn"),
        measure=more_robust("rn", "bn-standard"),
        effect=0.02,
        guard=_equal_clean("rn", "bn-standard"),
    ),
    Claim(
        number="4",
        system="nofrost",
        claim="Without norms, clean accuracy falls far less than with BatchNorm in training on clean and adversarial images",
        paper="ImageNet, ResNet-50: 74.06% against 59.28%",
        cells=("nofrost", "bn-mixed"),
        measure=cleaner("nofrost", "bn-mixed"),
        effect=0.05,
    ),
    Claim(
        number="5",
        system="nofrost",
        claim="Without norms, robustness is higher than with BatchNorm in training on clean and adversarial images",
        paper="ImageNet, ResNet-50, PGD at 8/255: 22.45% (README) or 23.56% (abstract) against 13.57%; AutoAttack 1.28%",
        cells=("nofrost", "bn-mixed"),
        measure=more_robust("nofrost", "bn-mixed"),
        effect=0.02,
    ),
    Claim(
        number="6a",
        system="nofrost",
        claim="The network without norms is smoother",
        paper="claimed; metric not known",
        cells=("nofrost", "bn-mixed"),
        measure=figure(
            "log of the ratio of local Lipschitz estimates, bn-mixed over nofrost",
            lambda one: _ratio(one["bn-mixed"], one["nofrost"], "figures", "smoothness", "lipschitz"),
        ),
        effect=0.1,
    ),
    Claim(
        number="6b",
        system="nofrost",
        claim="The network without norms has larger margins",
        paper="claimed; metric not known",
        cells=("nofrost", "bn-mixed"),
        measure=figure(
            "log of the ratio of median l2 margins, nofrost over bn-mixed",
            lambda one: _ratio(one["nofrost"], one["bn-mixed"], "figures", "smoothness", "margin"),
        ),
        effect=0.1,
    ),
    Claim(
        number="7",
        system="nofrost",
        claim="With augmentation the network without norms is robust to several natural shifts",
        paper="tables not available",
        cells=("nofrost-star", "bn-standard"),
        measure=figure(
            "mean accuracy under five shifts, nofrost-star less bn-standard",
            lambda one: _mean_shift(one["nofrost-star"]) - _mean_shift(one["bn-standard"]),
        ),
        effect=0.02,
    ),
    Claim(
        number="8",
        system="fragile-features",
        claim="Adversarially fine-tuning BatchNorm's parameters alone gives non-trivial robustness",
        paper="claimed without a figure",
        cells=("affine-fragile", "bn-standard"),
        measure=robust_at_training_radius("affine-fragile", less="bn-standard"),
        effect=0.1,
        guard=_fragile_start,
    ),
    Claim(
        number="9",
        system="fragile-features",
        claim="Adversarially training BatchNorm's parameters alone from scratch gives no meaningful robustness",
        paper="claimed without a figure",
        cells=("affine-random", "bn-standard"),
        measure=robust_at_training_radius("affine-random", level=0.15, sign=-1),
        effect=0.0,
        guard=_fragile_start,
    ),
    Claim(
        number="10",
        system="abnn",
        claim="ABNN is more robust than the undefended network to digital attacks",
        paper="14% to 24% against an adversarially trained network; data and attack not stated",
        cells=("abnn", "bn-standard"),
        measure=more_robust("abnn", "bn-standard"),
        effect=0.05,
    ),
    Claim(
        number="11",
        system="abnn",
        claim="ABNN is more robust than the undefended network to physically realizable attacks",
        paper="tables not available",
        cells=("abnn-patch", "bn-standard-patch"),
        measure=more_robust("abnn-patch", "bn-standard-patch", lambda size: f"a patch of {size:g} pixels a side"),
        effect=0.05,
    ),
    Claim(
        number="12",
        system="abnn",
        claim="ABNN is more robust than the undefended network on video",
        paper="tables not available",
        cells=(),
        measure=None,
        effect=0.05,
    ),
    Claim(
        number="13",
        system="abnn",
        claim="ABNN has a higher clean accuracy than adversarial training",
        paper="68% against 62%",
        cells=("abnn", "bn-at"),
        measure=cleaner("abnn", "bn-at"),
        effect=0.02,
    ),
    Claim(
        number="14",
        system="abnn",
        claim="ABNN trains in far less time than adversarial training",
        paper="8 times",
        cells=("abnn", "bn-at"),
        measure=figure(
            "log of the ratio of seconds of training per epoch, bn-at over abnn",
            lambda one: (
                _ratio(one["bn-at"], one["abnn"], "training", "seconds")
                - _ratio(one["bn-at"], one["abnn"], "training", "epochs")
            ),
        ),
        effect=math.log(3),
    ),
)
