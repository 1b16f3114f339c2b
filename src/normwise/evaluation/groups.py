"""Intervals of rows that come in groups, such as several clips of one patient: rows of a group are alike."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields, is_dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..records import Evaluation, Score
from ..utils.intervals import wilson

Groups = NDArray[np.int64]  # (n,): the group of each row, numbered from 0


def groups_of(data: Any, rows: int) -> Sequence[Hashable]:
    """The groups of the first so many test rows; none where the data know of none, or each row is one of its own."""
    groups = data.test_groups(rows) if hasattr(data, "test_groups") else ()
    return groups if len(set(groups)) < len(groups) else ()


def numbered(groups: Sequence[Hashable], rows: int) -> Groups:
    """The groups of so many rows as numbers from 0. Raises ValueError where there is not one group for each row."""
    if len(groups) != rows:
        raise ValueError(f"got groups of {len(groups)} rows, and {rows} rows were evaluated; give one group per row")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups])


def effective_rows(shares: Sequence[NDArray[np.float64]], groups: Groups) -> float:
    """As how many independent rows these rows count, in the least favourable of several figures: each the mean of values (n,) from 0 to 1.

        n* = n (z / t)^2 / max(1, V n / (p (1 - p))),   V = G / (G - 1) sum_g (k_g - p m_g)^2 / n^2

    p is the mean, k_g the sum and m_g the number of values of group g, G the number of groups, z and t the 97.5% quantiles
    of the normal law and of Student's with G - 1 degrees of freedom. A figure of 0 or 1 does not tell how alike rows of a
    group are. Where all are so, rows count as if groups always fell or stood whole: (sum_g m_g)^2 / sum_g m_g^2.
    Source: Korn and Graubard 1998, Survey Methodology 24(2); the last: Kish 1965.
    """
    sizes = np.bincount(groups)
    n, count = len(groups), len(sizes)
    known = [(values, p) for values in shares if 0 < (p := values.mean()) < 1]
    if count == 1:
        return 1.0
    if not known:
        return float(n**2 / np.square(sizes).sum())
    from scipy.special import stdtrit

    narrower = (NormalDist().inv_cdf(0.975) / stdtrit(count - 1, 0.975)) ** 2
    between = [
        np.square(np.bincount(groups, values) - p * sizes).sum() * count / (count - 1) / (n * p * (1 - p))
        for values, p in known
    ]
    return max(1.0, float(narrower * n / max(1.0, *between)))


def with_intervals(record: Any, rows: float, groups: int) -> Any:
    """The same record, each share with the Wilson interval of so many independent rows, and the number of groups as its `n`.

    What became of single rows is left out of evaluations: tests that compare row by row take rows for independent.
    """
    if isinstance(record, Score):
        low, high = wilson(record.value, rows)
        return replace(record, low=low, high=high, n=groups, unit="groups")
    if isinstance(record, dict):
        return {key: with_intervals(value, rows, groups) for key, value in record.items()}
    if isinstance(record, tuple):
        return tuple(with_intervals(value, rows, groups) for value in record)
    if is_dataclass(record) and not isinstance(record, type):
        changed = {one.name: with_intervals(getattr(record, one.name), rows, groups) for one in fields(record)}
        return replace(record, **changed | ({"standing": ""} if isinstance(record, Evaluation) else {}))
    return record
