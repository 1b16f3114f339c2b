"""How claims are decided: all together, each by its interval and its smallest effect, which was fixed beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .evidence import evidence_of
from .inference import LEVEL, Estimate, estimate, holm, spent
from .measures import AtRadius, Measure, Records
from .premises import Premise, unfit

REPRODUCED, SMALLER, NONE = "reproduced", "right direction, smaller than claimed", "no effect of the size asked"
OPPOSITE, PREMISE, OPEN = "opposite direction", "premise not met at this size", "not decided"
NEVER = "not attempted"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence that can be wrong.

    Options
        number      its number
        system      the paper
        claim       the sentence
        paper       the paper's own figure, where known
        cells       the cells it needs
        measure     the values that are compared, under a protocol ("paper" or "strongest")
        effect      the smallest difference that counts, >= 0
        premises    what has to be true at a size, measured on the first seed, before the claim can be decided there
        guard       says why the claim cannot be decided whatever the difference, or nothing
    """

    number: str
    system: str
    claim: str
    paper: str
    cells: tuple[str, ...]
    measure: Measure | None
    effect: float
    premises: tuple[Premise, ...] = ()
    guard: Callable[[Sequence[Records]], str] = lambda records: ""


class Size(NamedTuple):
    """At which size, and by how many seeds, claims are decided.

    name        of the size, such as S
    looks       the numbers of seeds at which the table is read
    first       the first seed that decides; earlier ones are for tuning and premises
    evidence    whether claims may be decided at this size
    """

    name: str
    looks: tuple[int, ...] = (3,)
    first: int = 0
    evidence: bool = True


@dataclass
class _Case:
    """One claim while it is decided."""

    claim: Claim
    entry: dict[str, Any]
    deciding: Estimate | None = None
    share: float = 1.0  # of the level that this look may use

    def tests(self) -> list[float]:
        """p-values of two hypotheses: the difference is the smallest effect; there is none. Inflated by what looks may use."""
        if self.deciding is None:
            return [1.0, 1.0]
        return [min(1.0, self.deciding.p(x) / self.share) for x in (self.claim.effect, 0.0)]


def decide(claims: Sequence[Claim], records: Mapping[int, Records], size: Size) -> list[dict[str, Any]]:
    """Decide claims from the records of seeds. All of them are one family, those without records too.

    Every claim has two hypotheses: the difference is its smallest effect, which says whether the claim is decided, and there
    is no difference, which says its direction. Holm's method corrects each over all claims. The strongest attack decides.
    """
    cases = [_examined(claim, records, size) for claim in claims]
    tried = [case for case in cases if case.claim.measure]
    families = zip(*(case.tests() for case in tried), strict=True)
    for case, at_effect, at_zero in zip(tried, *map(holm, families), strict=True):
        _settle(case, at_effect, at_zero)
    return [case.entry for case in cases]


def word(value: float, effect: float, at_effect: float, at_zero: float) -> str:
    """The verdict from an estimate, and from how well "it is the effect" and "it is zero" are refuted (adjusted p-values)."""
    if at_effect >= LEVEL:
        return OPEN
    if value > effect:
        return REPRODUCED
    if at_zero >= LEVEL:
        return NONE
    return SMALLER if value > 0 else OPPOSITE


def _examined(claim: Claim, records: Mapping[int, Records], size: Size) -> _Case:
    """What the records say of one claim, and why it may not be decided, if so."""
    full = {seed: one for seed, one in sorted(records.items()) if all(cell in one for cell in claim.cells)}
    deciding = [one for seed, one in full.items() if seed >= size.first]
    look = max((look for look in size.looks if look <= len(deciding)), default=0)
    used = deciding[:look] or deciding
    entry: dict[str, Any] = {
        "claim": claim.claim,
        "system": claim.system,
        "number": claim.number,
        "paper": claim.paper,
        "evidence": evidence_of(claim.number),
        "effect": claim.effect,
        "size": size.name,
        "protocol": None,
        "strongest": None,
        "curve": [],
        "verdict": OPEN,
        "premises": [],
        "n": 0,
        "seeds": len(used),
        "read": _places(used, claim.cells),
        "losses": _losses(used, claim.cells),
        "why": "",
    }
    case = _Case(claim, entry)
    if claim.measure is None:
        entry |= {"verdict": NEVER, "seeds": 0, "why": "no network has been measured on clips yet"}
        return case
    failing, missing = _premises(claim, records, size, entry)
    if failing:
        entry |= {"verdict": PREMISE, "why": failing}
    if not used:
        entry["why"] = failing or missing or f"no seed has all of its cells: {', '.join(claim.cells)}"
        return case
    sides = {protocol: claim.measure(used, protocol) for protocol in ("paper", "strongest")}
    found = {protocol: side and estimate(side) for protocol, side in sides.items()}
    entry |= {key: _shown(found[side], sides[side]) for key, side in (("protocol", "paper"), ("strongest", "strongest"))}
    entry["n"] = next((one.rows for one in found.values() if one), 0)
    entry["curve"] = _curve(claim.measure, used)
    entry["why"] = failing or _reason(claim, used, look, size, found["strongest"]) or missing
    if not entry["why"]:
        case.deciding, case.share = found["strongest"], spent(size.looks, look) / LEVEL
    return case


def _reason(claim: Claim, used: Sequence[Records], look: int, size: Size, found: Estimate | None) -> str:
    """Why a claim may not be decided; nothing where it may."""
    if not size.evidence:
        return "this size is never evidence"
    if not look:
        return f"{len(used)} of {size.looks[0]} seeds"
    return (
        unfit(used, claim.cells) or claim.guard(used) or ("" if found else "nothing was measured at the claim's own radius")
    )


def _premises(claim: Claim, records: Mapping[int, Records], size: Size, entry: dict[str, Any]) -> tuple[str, str]:
    """Which premises do not hold, and which cannot be checked; nothing for each where all hold. Fills in what was measured.

    One that does not hold is enough, whatever else was not measured yet.
    """
    trial: Records = next((one for seed, one in sorted(records.items()) if seed < size.first), {})
    failing, missing = list[str](), list[str]()
    for premise in claim.premises:
        if absent := [cell for cell in premise.cells if cell not in trial]:
            missing.append(f"a premise was not measured: it needs {', '.join(absent)} of seed 0")
            continue
        shown = premise.of(trial)
        unknown = unfit([trial], premise.cells, premise.cells if premise.learning else ())
        holds = None if unknown else shown.holds
        entry["premises"].append({"what": shown.what, "holds": holds, "read": _places([trial], premise.cells)})
        if unknown:
            missing.append(f"a premise cannot be told: {unknown}")
        elif not shown.holds and size.evidence:
            failing.append(shown.what)
    return "; ".join(failing), "; ".join(missing)


def _settle(case: _Case, at_effect: float, at_zero: float) -> None:
    """Give a claim that may be decided its verdict."""
    if case.deciding is None:
        return
    case.entry |= {
        "verdict": word(case.deciding.value, case.claim.effect, at_effect, at_zero),
        "adjusted_p": _written(at_effect),
    }
    if case.entry["verdict"] == OPEN:
        case.entry["why"] = f"the smallest effect is not refuted (adjusted p {at_effect:.2g})"


def _shown(found: Estimate | None, sample: Any) -> dict[str, Any] | None:
    """An estimate as the record has it; None where nothing was measured."""
    if found is None:
        return None
    low, high = map(_written, found.interval() or (None, None))
    return {"value": _written(found.value), "low": low, "high": high, "what": sample.what, "n": found.rows}


def _written(value: float | None) -> float | None:
    """A figure without its last digits, which differ with the number of threads and the processor."""
    return None if value is None else float(f"{value:.9g}")


def _curve(measure: Measure, used: Sequence[Records]) -> list[dict[str, Any]]:
    """The same comparison at every radius, under the strongest attack. It decides nothing."""
    if not isinstance(measure, AtRadius):
        return []
    samples = {radius: measure.at(used, "strongest", radius) for radius in measure.radii(used, "strongest")}
    return [{"radius": float(radius), **(_shown(estimate(one), one) or {})} for radius, one in samples.items()]


def _places(used: Sequence[Records], cells: Sequence[str]) -> list[str]:
    """The folders of the records that were read."""
    return [one[cell]["place"] for one in used for cell in cells if "place" in one[cell]]


def _losses(used: Sequence[Records], cells: Sequence[str]) -> dict[str, float]:
    """The last training loss of every arm that trains and kept it, as means over seeds."""
    found: dict[str, list[float]] = {}
    for one in used:
        for cell in cells:
            if (loss := (one[cell].get("training") or {}).get("loss")) is not None:
                found.setdefault(cell, []).append(loss)
    return {cell: sum(losses) / len(losses) for cell, losses in found.items()}
