"""Where a claim's effect comes from, read from the records of its networks before attackers of growing strength."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...report.origins import Origin, Standing
from ...report.words import plural
from .attackers import ATTACKERS, ILLUSIONS, NOBODY
from .decide import Claim
from .inference import Sample, estimate
from .measures import AtRadius, Records
from .premises import not_converged


def origins(claims: Sequence[Claim], seeds: Mapping[int, Records]) -> Iterator[Origin]:
    """One for each claim about robustness at a radius whose networks were measured so, on the seeds that have both."""
    for claim in claims:
        if not isinstance(claim.measure, AtRadius):
            continue
        arms = list(dict.fromkeys((claim.measure.cells[0], claim.measure.cells[-1])))
        cells = [f"{arm}-attackers" for arm in arms]
        known = {seed: one for seed, one in sorted(seeds.items()) if all(cell in one for cell in cells)}
        keys = {key for one in known.values() for cell in cells for key in one[cell]["figures"]["strongest"]}
        if len(keys) == 1:  # none where nothing was measured, several where the networks were asked at radii of their own
            (key,) = keys
            rows = {len(one[cell]["figures"]["rows"]["clean"]) for one in known.values() for cell in cells}
            setting = f"{claim.measure.called(float(key))}, {plural(len(known), 'seed')} ({', '.join(map(str, known))}), {min(rows)} images each"
            for arm in arms:
                trained = {seed: one[arm] for seed, one in known.items() if arm in one}
                setting += f"; {arm}: {which}" if (which := not_converged(trained)) else ""
            standings = list(_standings([*known.values()], cells))
            yield Origin(claim.number, claim.claim, setting, arms[0], "".join(arms[1:]), standings)


def _standings(known: Sequence[Records], cells: Sequence[str]) -> Iterator[Standing]:
    """What each keeps, untouched and before each attacker that one of them met in all of the seeds."""
    for attacker in (NOBODY, *ATTACKERS):
        arms = [[_bits(one[cell]["figures"]["rows"], attacker) for one in known] for cell in cells]
        own, other, *_ = [*map(_values, arms), None]
        if own is not None or other is not None:
            yield Standing(attacker, attacker in ILLUSIONS, _mean(own), _mean(other), _difference(own, other, len(cells)))


def _values(arm: Sequence[str]) -> Any:
    """Who stands, (seeds, rows); None where a seed was not asked."""
    return np.array([[float(bit) for bit in bits] for bits in arm]) if all(arm) else None


def _mean(values: Any) -> float | None:
    return None if values is None else float(values.mean())


def _difference(own: Any, other: Any, arms: int) -> str:
    """The difference of two networks with its interval; what a network alone keeps."""
    if arms == 1:
        return f"{100 * own.mean():.1f}%"
    if own is None or other is None:
        return ""
    found = estimate(Sample("", np.stack([own, other])))
    low, high = (100 * end for end in found.interval() or (found.value, found.value))
    return f"{100 * found.value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _bits(rows: Mapping[str, Any], attacker: str) -> str:
    found: str = rows["clean"] if attacker == NOBODY else rows["attackers"].get(attacker, "")
    return found
