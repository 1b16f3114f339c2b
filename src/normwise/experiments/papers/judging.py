"""What is asked of a trained network: its figures, by what its cell says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...attacks import PGD, AutoAttack
from ...evaluation.curves import survivors
from ...evaluation.plan import AttackPlan
from ...models.abnn import detached, fixed_at
from ...threats import Linf, Patch
from ...types import Attack
from ...utils.model_state import copied, running
from . import figures
from .cell import Cell
from .scale import Scale

LEGACY = (0.004, 0.008, 0.02, 0.03)  # eps in the units of RobustNorm's code
SIZES = (2, 3, 5, 7)  # of patches, in pixels
STICKER = tuple(PGD(steps=20 + place, relative_step=0.1) for place in range(8))  # each at places of its own


def measured(
    cell: Cell, model: nn.Module, scale: Scale, seed: int, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """All figures of a trained network. `before` is the record of the network whose rows AutoAttack is asked about."""
    batches = scale.data.test(batch_size=scale.batch_size)
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
    if cell.under == "corruptions":
        return found | figures.corrupted(model, batches, seed)
    if cell.under == "autoattack":
        assert before is not None  # its network was found
        attack = AutoAttack() if scale.evidence else AutoAttack(steps=5, queries=50)
        left = before["figures"]["rows"]["strongest"]
        return found | figures.last(model, batches, scale.eps * cell.at, attack, left, seed)
    patches, attacks = cell.under == "patch", (STICKER[:1], STICKER)
    protocol, strongest_attacks = attacks if patches else ((scale.paper,), scale.strongest)
    radii = [float(one) for one in (SIZES if patches else scale.radii)]

    def plans(attacks: Sequence[Attack]) -> list[AttackPlan]:
        threats = [Patch(size=int(one)) if patches else Linf(eps=one) for one in sorted(radii)]
        return [AttackPlan(threat, attacks, seed=seed) for threat in threats]

    first = survivors(model, batches, plans(protocol))
    paper = figures.standing(first, radii)
    strongest = figures.standing(survivors(model, batches, plans(strongest_attacks), earlier=first), radii)
    coupling = first.coupling
    found |= {
        "clean": figures.share(paper["0"]),
        "coupled": coupling.coupled,
        "paper": {radius: figures.share(bits) for radius, bits in paper.items()},
        "strongest": {radius: figures.share(bits) for radius, bits in strongest.items()},
        "rows": {"paper": paper, "strongest": strongest},
        **figures.answers(model, first.batches, scale.data.classes),
    }
    with running(copied(model), "eval") as still:
        still.requires_grad_(False)
        if "drift" in cell.extras:
            found["drift"] = figures.drift(still, batches, scale.eps, seed)
        if "smoothness" in cell.extras:
            found["smoothness"] = figures.smoothness(still, batches, scale.eps, seed)
        for name in ("detached", "fixed"):
            if name in cell.extras:
                view = detached(still) if name == "detached" else fixed_at(still, torch.cat([b.x for b in batches]))
                found[name] = figures.weaker(still, view, batches, scale.radii, scale.paper, seed, coupling)
        if "legacy" in cell.extras:
            found["legacy"] = figures.legacy(still, batches, LEGACY, scale.data, scale.paper, seed, coupling)
    return found
