"""95% intervals of accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .record import Score


def of_rows(successes: int, n: int) -> Score:
    """Share of independent rows with its Wilson interval. Source: Wilson 1927. Raises ValueError for no rows."""
    from scipy.stats import binomtest

    if n < 1:
        raise ValueError("an accuracy needs at least one row; got none")
    low, high = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    return Score(value=successes / n, low=float(low), high=float(high), n=n, unit="rows", rows=n)


def of_batches(successes: Sequence[int], size: int) -> Score:
    """Share of rows in whole batches of one size, where rows of a batch are not independent.

    The interval is a percentile bootstrap over batches (10,000 draws from a fixed seed), widened where it is narrower than
    Wilson's for as many independent rows: batches that all agree would else seem to be certain.
    """
    rows = of_rows(sum(successes), len(successes) * size)
    draws = np.random.default_rng(0).choice(np.asarray(successes, dtype=float), (10_000, len(successes))).mean(1) / size
    low, high = np.quantile(draws, (0.025, 0.975))
    return Score(
        value=rows.value,
        low=min(float(low), rows.low),
        high=max(float(high), rows.high),
        n=len(successes),
        unit="batches",
        rows=rows.n,
    )
