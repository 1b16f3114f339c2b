"""How far an estimate can be trusted: seeds and test rows both vary, claims are many, and seeds may be added after a look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...utils.intervals import resamples

Array = NDArray[np.float64]
LEVEL, POWER, DRAWS = 0.05, 0.8, 1000


def _first_less_second(means: Array) -> Array:
    difference: Array = means[0] - means[1]
    return difference


class Sample(NamedTuple):
    """What is compared: one value per arm, seed and test row.

    what        in words
    values      (arms, seeds, rows); seeds share their rows. One column where a seed gives one number
    of          from the arms' means (arms, seeds, ...) to one number for each seed (seeds, ...)
    paired      whether the arms share their rows
    """

    what: str
    values: Array
    of: Callable[[Array], Array] = _first_less_second
    paired: bool = True


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and what is known of its error.

    value   the mean over seeds
    seeds   their number
    rows    number of test rows
    spread  standard error of the mean that comes from seeds; 0 with one seed, and where all say the same but for rounding
    draws   the mean over seeds for each resample of the rows
    """

    value: float
    seeds: int
    rows: int
    spread: float
    draws: Array

    def below(self, x: float) -> float:
        """How sure it is that the truth lies below x, from 0 to 1."""
        from scipy.special import stdtr

        if not self.spread:
            return float((np.sign(x - self.draws) + 1).mean() / 2)
        return float(stdtr(self.seeds - 1, (x - self.draws) / self.spread).mean())

    def p(self, x: float) -> float:
        """The two-sided p-value of the hypothesis that the truth is x."""
        below = self.below(x)
        return 2 * min(below, 1 - below)

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The values that are not refuted at this level; None where one number is all there is."""
        from scipy.optimize import brentq
        from scipy.special import stdtrit

        if self.seeds * self.rows == 1:
            return None
        if not self.spread:
            low, high = np.quantile(self.draws, [level / 2, 1 - level / 2])
            return float(low), float(high)
        far = self.spread * stdtrit(self.seeds - 1, 1 - level / 8)
        ends = float(self.draws.min() - far), float(self.draws.max() + far)
        low, high = (brentq(lambda x, share=share: self.below(x) - share, *ends) for share in (level / 2, 1 - level / 2))
        return low, high


def estimate(sample: Sample) -> Estimate:
    """Estimate the mean over seeds by a two-way resampling of seeds and rows.

    Rows are resampled with replacement, the same rows for every seed and arm, because they share them (arms that do not are
    resampled apart); whatever `sample.of` does, such as a search for equal clean accuracy, is done again in each resample.
    Three to eight seeds are too few to be resampled: three have ten different resamples, and a percentile interval would
    cover 80%, not 95%. So the seeds' part is added by Student's t with the standard error of their mean. Noise of single
    answers counts in both parts: the interval is a little too wide, never too narrow (Owen 2007, doi:10.1214/07-AOAS122, of
    resampling both).

    scipy.stats.bootstrap resamples one index, not two that are crossed; a mixed model wants a linear figure.
    """
    values = sample.values
    _, seeds, rows = values.shape
    own = sample.of(values.mean(2))
    counts = _resampled(rows) if rows > 1 else np.ones((1, 1))
    means = values @ counts / rows  # sums of 0 and 1 are exact in any order, so that ties are the same on every processor
    if not sample.paired:
        means = np.stack([np.roll(one, arm, -1) for arm, one in enumerate(means)])  # draws of each arm beside others'
    draws = sample.of(means).mean(0)
    spread = (
        float(own.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 and not np.allclose(own, own[0], rtol=1e-9, atol=0) else 0.0
    )
    return Estimate(float(own.mean()), seeds, rows, spread, draws)


@lru_cache(maxsize=4)
def _resampled(rows: int) -> Array:
    """How often each row is in each resample, (rows, draws); the same ones each time."""
    return np.concatenate(list(resamples(rows, DRAWS))).T


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values of Holm's step-down method: below a level, one is refuted while all of the family stay at that level.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order, adjusted, so_far = np.argsort(ps, kind="stable"), [1.0] * len(ps), 0.0
    for rank, place in enumerate(order):
        so_far = max(so_far, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = so_far
    return adjusted


def spent(looks: Sequence[int], look: int, level: float = LEVEL) -> float:
    """The level that a look may use. `looks` are the numbers of seeds at which the table is read; `look` is one of them.

    The level is spent in proportion to the seeds that are new since the look before, so that all looks add up to `level`,
    whatever they have in common (a linear spending function; Lan and DeMets 1983, Biometrika 70(3)). One that keeps nearly
    all for the last look could find nothing at the first: three to five seeds have wide t quantiles. Raises ValueError for a
    look that was not planned.

    >>> round(spent((5, 8), 5), 5), round(spent((5, 8), 8), 5)
    (0.03125, 0.01875)
    """
    if look not in looks:
        raise ValueError(f"no look is planned at {look} seeds; planned: {', '.join(map(str, looks))}")
    before = max((one for one in looks if one < look), default=0)
    return level * (look - before) / max(looks)


def detectable(sd: tuple[float, float], seeds: int, rows: int, level: float, power: float = POWER) -> float:
    """The smallest distance from a hypothesis that is found with this power: what a look of this size can decide.

    `sd` holds the standard deviations of one seed's difference (over all its rows) and of one row's (mean over seeds).
    Raises ValueError below two seeds, which say nothing of how seeds vary.

    >>> round(detectable((0.01, 0.4), 5, 2000, 0.05), 3)
    0.03
    """
    from scipy.special import ndtri, stdtrit

    if seeds < 2:
        raise ValueError(f"{seeds} seeds say nothing of how seeds vary; give 2 or more")
    students = stdtrit(seeds - 1, 1 - level / 2) + stdtrit(seeds - 1, power)
    normal = ndtri(1 - level / 2) + ndtri(power)
    return float(np.hypot(students * sd[0] / np.sqrt(seeds), normal * sd[1] / np.sqrt(rows)))
