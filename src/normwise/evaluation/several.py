"""One network under several attackers: what is left on average, and what stands under all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..records import Score, Several
from ..utils import intervals
from ..utils.batches import sizes_of
from . import groups
from .verdict import Verdict


def mean_and_union(verdicts: Mapping[str, Verdict]) -> Several:
    """The mean and the union of evaluations of one network on the same batches, the first of them the network's own.

    Independent rows: a row counts in the union only if it stands under all. Coupled rows: the attacker has one batch and
    chooses one of the attackers for it, so of each batch the one with fewest survivors counts. Where one image among clean
    neighbours stands less often, that figure counts, as it does for each attacker. The mean's interval is that of one
    evaluation of so many rows: wider than need be. The union under the protocols alone is known of independent rows.
    """
    each = list(verdicts.values())
    first, coupled = each[0], any(one.evaluation.coupled for one in each)
    sizes = sizes_of(first.batches)
    left = torch.stack([one.correct for one in each])
    alone = any(one.evaluation.single for one in each)  # one image among clean neighbours was attacked too
    protocol = None if coupled else torch.stack([one.under_protocol for one in each])

    def score(rows: Tensor) -> Score:
        if not coupled:
            plain = intervals.of_rows(float(rows.sum()), len(rows))
            if first.groups is None:
                return plain
            worth = groups.effective_rows([rows.double().numpy()], first.groups)
            return groups.with_intervals(plain, worth, int(first.groups.max()) + 1)
        return intervals.of_batches([float(part.sum()) for part in rows.split(sizes)], sizes[0])

    fewest = left.all(0)
    if coupled:
        counts = torch.stack([torch.stack([part.sum() for part in one.split(sizes)]) for one in left])
        union = intervals.of_batches([float(count) for count in counts.amin(0)], sizes[0])
    else:
        union = score(fewest)
    return Several(
        evaluations={name: one.evaluation for name, one in list(verdicts.items())[1:]},
        mean=_middle([one.evaluation.headline for one in each]) if alone else score(left.double().mean(0)),
        union=min([union, *(one.evaluation.headline for one in each)], key=lambda one: one.value),
        protocol_mean=None if protocol is None else score(protocol.double().mean(0)),
        protocol_union=None if protocol is None else score(protocol.all(0)),
    )


def _middle(scores: Sequence[Score]) -> Score:
    """The mean of scores, and of the ends of their intervals."""
    value, low, high = (sum(getattr(one, end) for one in scores) / len(scores) for end in ("value", "low", "high"))
    return replace(scores[0], value=value, low=low, high=high)
