"""What is asked of a trained network: its figures, by what its cell says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ...attacks import PGD, AutoAttack
from ...evaluation.coupling import Coupling
from ...evaluation.curves import survivors
from ...evaluation.plan import AttackPlan
from ...models.abnn import detached, fixed_at
from ...threats import Linf, Normalized, Patch
from ...types import Attack, Batch, ThreatModel
from ...utils.model_state import copied, running
from . import figures
from .attackers import through
from .cell import Cell
from .scale import EIGHTH, WHOLE, Scale
from .several import before_several

LEGACY = (0.004, 0.008, 0.02, 0.03)  # eps in the units of RobustNorm's code
SIZES = (2, 3, 5, 7)  # of patches, in pixels
DECIDING = (3,)  # of seeds that decide: the size at which a claim is decided
PATCHED = 200  # rows, the first ones, in whole batches: a search for patches takes minutes for a hundred coupled rows
CLAIMED = ("drift", "smoothness")  # figures beyond accuracy that claims read
STICKER = tuple(PGD(steps=20 + place, relative_step=0.1) for place in range(8))  # each at places of its own


def measured(
    cell: Cell, model: nn.Module, scale: Scale, seed: int, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All figures of a trained network. `before` is the record of the network whose rows AutoAttack is asked about."""
    batches = scale.data.test(batch_size=scale.batch_size)
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if cell.under == "corruptions":
        return found | figures.corrupted(model, batches, seed)
    if cell.under == "attackers":
        return found | through(model, batches, scale, scale.eps * cell.at, seed)
    if cell.under == "columns":
        return found | before_several(model, batches, scale, scale.eps * cell.at, seed)
    if cell.under == "autoattack":
        assert before is not None  # its network was found
        attack = AutoAttack() if scale.evidence else AutoAttack(steps=5, queries=50)
        left = before["figures"]["rows"]["strongest"]
        return found | figures.last(model, batches, scale.eps * cell.at, attack, left, seed)
    judged = (
        _under_patches(model, batches, scale, seed) if cell.under == "patch" else _under_linf(model, batches, scale, seed)
    )
    paper, strongest = judged.paper, judged.strongest
    found |= {
        "clean": figures.share(paper["0"]),
        "coupled": judged.coupling.coupled,
        "paper": {radius: figures.share(bits) for radius, bits in paper.items()},
        "strongest": {radius: figures.share(bits) for radius, bits in strongest.items()},
        "rows": {"paper": paper, "strongest": strongest},
        **figures.answers(model, judged.batches, scale.data.classes),
    }
    return found | _beyond(cell, model, scale, seed, batches, judged.coupling)


def _beyond(
    cell: Cell, model: nn.Module, scale: Scale, seed: int, batches: Sequence[Batch], coupling: Coupling
) -> dict[str, Any]:
    """Figures beyond accuracy: those that claims read, and with all rows at all radii the others too."""
    found, read = dict[str, Any](), set(cell.extras) & ({*CLAIMED} if scale.curve else {*cell.extras})
    with running(copied(model), "eval") as still:
        still.requires_grad_(False)
        if "drift" in read:
            found["drift"] = figures.drift(still, batches, scale.eps, seed)
        if "smoothness" in read:
            found["smoothness"] = figures.smoothness(still, batches, scale.eps, seed)
        for name in ("detached", "fixed"):
            if name in read:
                view = detached(still) if name == "detached" else fixed_at(still, torch.cat([b.x for b in batches]))
                balls = {f"{radius:.6g}": Linf(eps=radius) for radius in scale.radii}
                found[name] = figures.kept(still, batches, balls, scale.paper, seed, coupling, craft_on=view)
        if "legacy" in read:  # eps in normalized units, as in the code of RobustNorm
            units = {f"{eps:g}": Normalized(eps=eps, mean=scale.data.mean, std=scale.data.std) for eps in LEGACY}
            found["legacy"] = figures.kept(still, batches, units, scale.paper, seed, coupling)
    return found


_Attacks = tuple[Sequence[Attack], Sequence[Attack]]  # of the paper's protocol, and of the strongest


class _Judged(NamedTuple):
    """Who stands at each radius under the paper's protocol, and under the strongest attack too."""

    paper: figures.Standing
    strongest: figures.Standing
    batches: Sequence[Batch]
    coupling: Coupling


def _judged(
    model: nn.Module, batches: Sequence[Batch], threats: Mapping[float, ThreatModel], attacks: _Attacks, seed: int
) -> _Judged:
    """The same rows under each threat model, the weakest first."""
    protocol, strongest = ([AttackPlan(one, each, seed=seed) for one in threats.values()] for each in attacks)
    first = survivors(model, batches, protocol)
    paper = figures.standing(first, [*threats])
    both = figures.standing(survivors(model, batches, strongest, earlier=first), [*threats])
    return _Judged(paper, both, first.batches, first.coupling)


def _under_patches(model: nn.Module, batches: Sequence[Batch], scale: Scale, seed: int) -> _Judged:
    rows = batches[: max(1, PATCHED // scale.batch_size)]
    threats: dict[float, ThreatModel] = {size: Patch(size=size) for size in (DECIDING if scale.curve else SIZES)}
    return _judged(model, rows, threats, (STICKER[:1], (*STICKER, scale.patches)), seed)


def _under_linf(model: nn.Module, batches: Sequence[Batch], scale: Scale, seed: int) -> _Judged:
    """All rows at the radii where claims are decided; at the others all, or the first `scale.curve`, which is all of coupled rows."""
    some = -(-scale.curve // scale.batch_size) if scale.curve else len(batches)
    attacks = (scale.paper,), scale.strongest

    def at(radii: Sequence[float], rows: Sequence[Batch]) -> _Judged:
        return _judged(model, rows, {radius: Linf(eps=radius) for radius in sorted(radii)}, attacks, seed)

    first = at(scale.radii, batches[:some])
    if first.coupling.coupled or not batches[some:]:
        return first
    rest = at([scale.eps * EIGHTH, scale.eps * WHOLE], batches[some:])
    paper, strongest = (
        {radius: bits + more.get(radius, "") for radius, bits in one.items()}
        for one, more in ((first.paper, rest.paper), (first.strongest, rest.strongest))
    )
    return _Judged(paper, strongest, [*first.batches, *rest.batches], first.coupling)
