"""What claims compare: paired differences [seeds, rows] of two cells under a protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .decide import VISIBLE, Records


def _bits(record: Mapping[str, Any], protocol: str, radius: str) -> NDArray[np.float64]:
    return np.array([float(bit) for bit in record["figures"]["rows"][protocol][radius]])


def more_robust(cell: str, baseline: str, at: Callable[[float], str] = lambda radius: f"{255 * radius:.3g}/255") -> Any:
    """Robust accuracy of `cell` less that of `baseline`, row by row, where the baseline has 20 to 80% left."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str] | None:
        return _less(records, cell, lambda one, radius: _bits(one[baseline], protocol, radius), protocol, baseline, at)

    return measure


def more_robust_at_equal_clean(cell: str, ladder: Sequence[str]) -> Any:
    """Robust accuracy of `cell` less that of a baseline whose clean accuracy is the same, where that has 20 to 80% left.

    `ladder` holds networks of growing clean accuracy. The baseline answers each row by one of the two networks between which
    the clean accuracy of `cell` lies, drawn with the probability that makes clean accuracies equal, seed by seed; what is
    compared is its expectation, against an attacker who knows the draw.
    """

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str] | None:
        def mixed(one: Records, radius: str) -> NDArray[np.float64]:
            low, high, share = _between(one, cell, ladder)
            return (1 - share) * _bits(one[low], protocol, radius) + share * _bits(one[high], protocol, radius)

        if unmatched(cell, ladder)(records):
            return None
        return _less(records, cell, mixed, protocol, f"{ladder[-1]} trained until as accurate")

    return measure


def unmatched(cell: str, ladder: Sequence[str]) -> Callable[[Sequence[Records]], str]:
    """A guard: the clean accuracy of `cell` must lie between two of the ladder's."""

    def guard(records: Sequence[Records]) -> str:
        clean = [[one[name]["figures"]["clean"] for name in (cell, *ladder)] for one in records]
        outside = sum(not min(others) <= own <= max(others) for own, *others in clean)
        return f"in {outside} seeds no {ladder[-1]} network is as accurate as {cell}" if outside else ""

    return guard


def _between(one: Records, cell: str, ladder: Sequence[str]) -> tuple[str, str, float]:
    """The two networks around the clean accuracy of `cell`, and the share of the more accurate one."""
    own, clean = one[cell]["figures"]["clean"], {name: one[name]["figures"]["clean"] for name in ladder}
    low = max((name for name in ladder if clean[name] <= own), key=lambda name: clean[name])
    high = min((name for name in ladder if clean[name] >= own), key=lambda name: clean[name])
    return low, high, 0.0 if clean[high] == clean[low] else (own - clean[low]) / (clean[high] - clean[low])


def _less(
    records: Sequence[Records],
    cell: str,
    baseline: Callable[[Records, str], NDArray[np.float64]],
    protocol: str,
    name: str,
    at: Callable[[float], str] = lambda radius: f"{255 * radius:.3g}/255",
) -> tuple[NDArray[np.float64], str] | None:
    """Differences at the largest radius at which the baseline's mean accuracy is neither near all nor near nothing."""
    radii = [radius for radius in records[0][cell]["figures"][protocol] if radius != "0"]
    for radius in sorted(radii, key=float, reverse=True):
        theirs = np.stack([baseline(one, radius) for one in records])
        if VISIBLE[0] <= theirs.mean() <= VISIBLE[1]:
            ours = np.stack([_bits(one[cell], protocol, radius) for one in records])
            return ours - theirs, f"robust accuracy at {at(float(radius))}, {cell} less {name}"
    return None


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


def falls_less(cell: str, before: str, baseline: str, its: str) -> Any:
    """What `cell` keeps of the clean accuracy of `before`, less what `baseline` keeps of that of `its`, row by row."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        sides = [[_bits(one[name], protocol, "0") for name in (cell, before, baseline, its)] for one in records]
        rows = [(own - own_before) - (their - their_before) for own, own_before, their, their_before in sides]
        return np.stack(rows), f"fall of clean accuracy, {its} to {baseline} less {before} to {cell}"

    return measure


def steadier(cell: str, baseline: str) -> Any:
    """Mean accuracy of `cell` over all corruptions and severities less that of `baseline`, row by row."""

    def kept(record: Mapping[str, Any]) -> NDArray[np.float64]:
        kinds = record["figures"]["rows"]["corruptions"].values()
        mean: NDArray[np.float64] = np.mean(
            [[float(bit) for bit in bits] for kind in kinds for bits in kind.values()], axis=0
        )
        return mean

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        rows = [kept(one[cell]) - kept(one[baseline]) for one in records]
        return np.stack(rows), f"mean accuracy over 15 corruptions, {cell} less {baseline}"

    return measure


def figure(what: str, of: Callable[[Records], float]) -> Any:
    """One number per seed that no attack's strength enters."""

    def measure(records: Sequence[Records], protocol: str) -> tuple[NDArray[np.float64], str]:
        return np.array([[of(one)] for one in records]), what

    return measure


def fragile_start(records: Sequence[Records]) -> str:
    """A guard: what is fine-tuned must have had no robustness of its own."""
    left = max(min(one["bn-standard"]["figures"]["strongest"].values()) for one in records)
    return "" if left <= 0.01 else f"the start is not fragile: {left:.1%} left under the strongest attack"


def ratio(a: Mapping[str, Any], b: Mapping[str, Any], *keys: str) -> float:
    """The logarithm of the ratio of one figure of two records."""
    for key in keys:
        a, b = a[key], b[key]
    return math.log(float(a) / float(b))  # type: ignore[arg-type]
