"""Rows: norms over everything but the first axis, broadcasting back, and the first rows of a data set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..types import Batch, Images, PerRow


def flat(x: Tensor) -> Tensor:
    """View the batch as (b, d)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def linf(x: Images) -> PerRow:
    """Largest absolute entry of each row."""
    return flat(x).abs().amax(1)


def l1(x: Images) -> PerRow:
    """Sum of the absolute entries of each row."""
    return flat(x).abs().sum(1)


def l2(x: Images) -> PerRow:
    """Euclidean length of each row."""
    return torch.linalg.vector_norm(flat(x), dim=1)


DUAL = {"linf": l1, "l2": l2, "l1": linf}  # of each norm, by its name, the dual norm


def over(per_row: Tensor, x: Tensor) -> Tensor:
    """Shape one value per row so that it broadcasts over `x`."""
    return per_row.reshape(-1, *[1] * (x.ndim - 1))


def unit(x: Images) -> Images:
    """Scale each row to Euclidean length 1; a row of zeros stays zero."""
    return x / over(l2(x).clamp_min(torch.finfo(x.dtype).tiny), x)


def step_of(size: float | PerRow, x: Images) -> float | Tensor:
    """A step length: one for all rows as it is, one for each row in a shape that broadcasts over x."""
    return over(size, x) if isinstance(size, Tensor) else size


def spend(budget: PerRow, amounts: Tensor, worth: Tensor) -> Tensor:
    """Spend each row's budget on its (b, d) amounts, on the one of largest worth first: how much of each is taken."""
    order = worth.argsort(1, descending=True)
    ordered = amounts.gather(1, order)
    taken = torch.minimum((budget[:, None] - (ordered.cumsum(1) - ordered)).clamp_min(0), ordered)
    return torch.empty_like(taken).scatter_(1, order, taken)


def first_rows(batches: Sequence[Batch], rows: int) -> list[Batch]:
    """The first rows of a data set: whole batches, and a part of the last."""
    kept = []
    for batch in batches:
        if rows <= 0:
            break
        kept.append(Batch(*(part[:rows] for part in batch)))
        rows -= len(batch.y)
    return kept


def bits(rows: Tensor) -> str:
    """One character per row: 1 for what is true or not zero, 0 for the rest.

    >>> bits(torch.tensor([True, False]))
    '10'
    """
    return "".join("01"[one] for one in rows.bool().tolist())
