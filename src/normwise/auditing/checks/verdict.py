"""The verdict that follows from what is known."""

from __future__ import annotations

from collections.abc import Sequence

from ...evaluation.artifacts import pictures
from ...records import Check, Score
from ...registry import plain
from .case import GAP, PGD20, Case
from .record import DOUBTFUL, NOT_ESTABLISHED, TRUSTWORTHY, Audited

SEES = ("gradients per layer", "loss surface")  # checks that say whether gradients arrive, and tell the way
UNSEEN = ("fail", "could not run")


def conclude(case: Case, checks: Sequence[Check]) -> Audited:
    """The verdict: "doubtful" if a check speaks against the claim, "not established" if none supports it."""
    score, found_by = case.bound() or (Score(value=1.0, low=0.0, high=1.0, n=0, unit="rows", rows=0), {})
    against, lacking = list(case.violations), _lacking(case, score, checks)
    if score.n and case.claim is not None and case.exceeds(score):
        against.insert(0, case.ledger.sentence(case.coupled, case.exceeds))
    return Audited(
        verdict=DOUBTFUL if against else NOT_ESTABLISHED if lacking else TRUSTWORTHY,
        claimed_accuracy=1.0 if case.claim is None else case.claim,
        upper_bound=score.value,
        interval=(score.low, score.high),
        n=score.rows,
        drawn=f"{score.n} {score.unit}",
        threat=plain(case.threat),
        coupled=case.coupled,
        found_by=found_by,
        reach=case.reach,
        claimed_under={"threat": plain(case.threat), "attacks": [plain(PGD20)]} if case.paired else {},
        reasons=(*against, *lacking),
        missing=tuple(check.name for check in checks if check.status == "could not run"),
        checks=tuple(checks),
        examples=tuple({**one.without_images, **pictures(one.x, one.x_adv)} for one in case.examples),
    )


def _lacking(case: Case, score: Score, checks: Sequence[Check]) -> list[str]:
    """Why no check supports the claim, if none does."""
    if not score.n:
        why = next((check.measured for check in checks if check.status == "could not run"), "no check ran")
        return [f"no attack could run: {why}"]
    reasons = list(case.unvouched)
    if case.claim is None:
        reasons.append("pgd-20 could not run, so there is no claim")
    if case.clean is not None and not case.clean.learned:
        reasons.append(
            f"{case.clean.score} of clean images are classified correctly, and by chance it would be "
            f"{100 * case.clean.chance:.1f}%: there is nothing to audit"
        )
    for last in checks[-1:]:  # the strongest search
        if last.status == "could not run":
            reasons.append(f"the {last.name} could not run ({last.measured}), and without it nothing supports the claim")
    blind = [f"{check.name}: {check.status}" for check in checks if check.name in SEES and check.status in UNSEEN]
    if blind and not (case.through and case.through.value <= score.value + GAP):
        reasons.append(f"only searches without gradients support the claim, and the bound is loose ({', '.join(blind)})")
    return reasons
