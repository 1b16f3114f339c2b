"""What is searched beyond a protocol, if nothing else is said, and what a verdict is quoted from."""

from __future__ import annotations

from ..types import Attack, ThreatModel
from .apgd import APGD
from .ensemble import AutoAttack
from .patchattack import PatchAttack
from .pgd import PGD
from .sigma_zero import SigmaZero
from .sparse_rs import SparseRS

# Where there are fewer classes than targets, all of them are targets; with fewer than four the targeted loss is the difference of two
# logits (`losses.targeted_dlr`).
STRONGEST: tuple[Attack, ...] = APGD(steps=50), APGD(steps=30, targets=3)


def strongest_for(threat: ThreatModel) -> tuple[Attack, ...]:
    """What suits a threat model, with a short budget: PatchAttack in patches and frames, SigmaZero and SparseRS for few pixels, else `STRONGEST`."""
    within = pixels_of(threat)
    if within in PatchAttack.kinds:
        return (PatchAttack(steps=20, repeats=5, queries=1000),)
    return (SigmaZero(steps=100), SparseRS(steps=1000)) if within in SigmaZero.kinds else STRONGEST


def verdict_for(threat: ThreatModel) -> tuple[Attack, ...]:
    """The attacks whose worst case is a verdict to quote: AutoAttack in linf, l2 and l1, PatchAttack in patches and frames, and so on."""
    within = pixels_of(threat)
    if within in ("linf", "l2", "l1"):
        return (AutoAttack(),)
    if within in PatchAttack.kinds:
        return (PatchAttack(),)
    return (SigmaZero(), SparseRS()) if within in SigmaZero.kinds else (PGD(steps=100, restarts=5),)


def pixels_of(threat: ThreatModel) -> str:
    """Which pixels a threat model changes, as attacks know it (`kinds`): "patch" and "frame" where it is within one, else its name."""
    within = getattr(threat, "within", "all")
    return threat.name if within == "all" else str(within)
