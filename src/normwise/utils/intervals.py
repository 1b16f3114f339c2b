"""95% intervals of accuracies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from ..records import Score

LEVEL = 0.05  # of a test
DRAWS, CHUNK = 2000, 100  # of several figures at once: how many, and how many of them at a time


def of_rows(successes: float, n: int) -> Score:
    """Share of independent rows with its Wilson interval. Raises ValueError for no rows."""
    if n < 1:
        raise ValueError("an accuracy needs at least one row; got none")
    low, high = wilson(successes / n, n)
    return Score(value=successes / n, low=low, high=high, n=n, unit="rows", rows=n)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The ends of the Wilson interval of a share p of n independent rows.

        (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   z the 97.5% quantile of the normal law

    By formula: importing scipy.stats takes longer than many an evaluation. Source: Wilson 1927.
    """
    z = NormalDist().inv_cdf(0.975)
    centre, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + side * half) / (1 + z * z / n) for side in (-1, 1))
    return max(low, 0.0), min(high, 1.0)


def above(one: Score, other: Score, tests: int = 1) -> bool:
    """Whether a share is larger than another by more than chance: the 95% interval of their difference is above 0.

        p1 - p2 > c sqrt((p1 - low1)^2 + (high2 - p2)^2),   c = z(1 - 0.025 / tests) / z(0.975), z quantiles of the normal law

    For shares of different rows. Of the same rows it is stricter, where networks that are right on one row tend to be so
    together.
    Source: Newcombe 1998, method 10.
    """
    wide, narrow = (NormalDist().inv_cdf(1 - LEVEL / 2 / count) for count in (tests, 1))
    return one.value - other.value > wide / narrow * sqrt((one.value - one.low) ** 2 + (other.high - other.value) ** 2)


def flipped(one: str, other: str) -> tuple[int, int, float]:
    """How many rows only the first has right, how many only the second, and how likely chance alone makes as large a difference.

    One character per row: 1 is right, 0 is not. The p-value is that of the exact two-sided sign test.
    Source: McNemar 1947, Psychometrika 12(2). Raises ValueError for different numbers of rows.

    >>> flipped("11110", "10000")
    (3, 0, 0.25)
    """
    pairs = list(zip(one, other, strict=True))
    gained, lost = pairs.count(("1", "0")), pairs.count(("0", "1"))
    tails = sum(comb(gained + lost, k) for k in range(min(gained, lost) + 1))
    return gained, lost, min(1.0, tails / 2 ** (gained + lost - 1)) if gained + lost else 1.0


def leads(one: Score, other: Score, rows: tuple[str, str] = ("", ""), tests: int = 1) -> bool:
    """Whether a share is larger than another by more than chance: row by row (`flipped`), corrected for so many tests (Bonferroni).

    `rows` say what became of the same rows, one character each; where one does not know, or they are not as many, `above`
    decides.
    """
    if not rows[0] or len(rows[0]) != len(rows[1]):
        return above(one, other, tests)
    return one.value > other.value and flipped(*rows)[2] * tests < LEVEL


def of_batches(successes: Sequence[float], size: int) -> Score:
    """Share of rows in whole batches of one size, where rows of a batch are not independent.

    The interval is a percentile bootstrap over batches (10,000 draws from a fixed seed), widened where it is narrower than
    Wilson's for as many independent rows: batches that all agree would else seem to be certain.
    """
    rows = of_rows(sum(successes), len(successes) * size)
    values = np.asarray(successes, dtype=float)
    draws = np.concatenate([counts @ values for counts in resamples(len(values), 10_000)])
    low, high = middle(draws / (len(values) * size))
    return Score(
        value=rows.value,
        low=min(low, rows.low),
        high=max(high, rows.high),
        n=len(successes),
        unit="batches",
        rows=rows.n,
    )


def resamples(units: int, draws: int) -> Iterator[NDArray[np.float64]]:
    """How often each of the units is in each bootstrap sample, some samples at a time: (samples, units), the same ones each time."""
    rng, chances = np.random.default_rng(0), np.full(units, 1 / units)
    for begun in range(0, draws, CHUNK):
        yield rng.multinomial(units, chances, min(CHUNK, draws - begun)).astype(np.float64)


def redrawn(columns: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Means of each column (rows, columns) over as many units of `size` rows as there are, drawn anew with replacement.

    One row per draw, 2,000 from a fixed seed: a bootstrap of several figures of the same rows at once.
    """
    units = len(columns) // size
    by_unit = columns.reshape(units, size, -1).mean(1)
    drawn = [counts.astype(np.float32) @ by_unit for counts in resamples(units, DRAWS)]
    return np.concatenate(drawn).astype(np.float64) / units


def middle(draws: NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the middle 95% of the draws; those that are no number are left out."""
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return float(low), float(high)
