"""What searches without gradients find beyond those by gradient: much of it is a sign that gradients are masked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import Attack, Proposal
from .naming import named_parts


def beyond_gradients(attacks: Sequence[Attack], found: Sequence[Proposal], fell: Tensor, coupled: bool) -> dict[str, int]:
    """How many rows of a batch each search without gradients broke that none by gradient did; nothing unless both kinds search.

    `found` is what each attack proposed, `fell` (attacks, b) whom it broke. An attack made of parts is looked at part by
    part. Of coupled rows whole batches are compared: how many more rows fell in its best batch than in the best one by
    gradient.
    """
    searches = [[(name, bool(getattr(part, "black_box", False))) for name, part in parts] for parts in named_parts(attacks)]
    kinds = {blind for parts in searches for _, blind in parts}
    if len(kinds) < 2:
        return {}
    if coupled:
        return _of_batch(searches, found, fell)
    blind = [torch.tensor([blind for _, blind in parts], device=fell.device) for parts in searches]
    unseen = torch.stack([kind[one.part] for kind, one in zip(blind, found, strict=True)])
    left = ~(fell & ~unseen).any(0)  # whom no search by gradient broke
    return {
        name: int((broke & left & (one.part == number)).sum())
        for parts, one, broke in zip(searches, found, fell, strict=True)
        for number, (name, blind) in enumerate(parts)
        if blind
    }


def _of_batch(searches: Sequence[Sequence[tuple[str, bool]]], found: Sequence[Proposal], fell: Tensor) -> dict[str, int]:
    """The same of coupled rows: by how many fell in the best batch of so many parts."""
    by_gradient, without = 0, dict[str, int]()
    for parts, one, broke in zip(searches, found, fell, strict=True):
        best, seeing = 0, 0  # of coupled rows a rise is a batch of the part's own
        totals = [int(broke.sum())] if one.fallen is None else one.fallen.tolist()
        for (name, blind), total in zip(parts, totals, strict=False):
            if blind:
                without[name] = total
            elif total > best:
                seeing = total
            best = total
        by_gradient = max(by_gradient, seeing)
    return {name: max(0, total - by_gradient) for name, total in without.items()}
