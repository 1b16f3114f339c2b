"""What a shift of the images costs a network: accuracies, mean error, corruption errors, with intervals over rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...records import Score
from ...utils import intervals

Rights = Mapping[str, Mapping[int, NDArray[np.bool_]]]  # kind -> severity -> whether each row is right
Table = NDArray[np.float64]  # (..., kinds, severities)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure made of several accuracies, with its 95% interval: a percentile bootstrap over rows."""

    value: float
    low: float
    high: float

    def percent(self, sign: str = "") -> str:
        """Write it in percent, or a difference in points (`sign="+"`)."""
        value, low, high = (f"{100 * part:{sign}.1f}" for part in (self.value, self.low, self.high))
        return f"{value} points [{low}, {high}]" if sign else f"{value}% [{low}, {high}]"


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Errors beside a baseline's. `mean` and `relative` are means over kinds; None where the baseline makes no such errors.

        CE = sum over severities of the error / the same of the baseline
        relative CE = sum over severities of (error - clean error) / the same of the baseline

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261, sec. 4.1; their baseline is AlexNet, their kinds all 15.
    """

    kinds: dict[str, float | None]
    mean: Estimate | None
    relative: Estimate | None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One network at one alpha, on clean and on corrupted images.

    alpha       the share that its norms read from the batch; None where it has no running statistics, or several shares
    own         the network as it was given
    coupled     measured: a row's answer depends on the rows beside it
    clean       accuracy on the rows as they are
    cells       accuracy by kind and severity
    kinds       mean accuracy over severities, by kind
    severities  mean accuracy over kinds, by severity
    mean        mean accuracy over kinds and severities; the mean error is 1 less this
    gain        of `mean` over the network as it was given, the same rows compared; None for that itself
    others      accuracy on other test rows, such as CIFAR-10.1
    errors      beside a baseline, where one was given
    """

    network: str
    alpha: float | None
    own: bool
    coupled: bool
    clean: Score
    cells: dict[str, dict[str, Score]]
    kinds: dict[str, Estimate]
    severities: dict[str, Estimate]
    mean: Estimate
    gain: Estimate | None = None
    others: dict[str, Score] = field(default_factory=dict)
    errors: Errors | None = None


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Whether each row was right: untouched, by kind and severity, and on other test rows. `size` is the batches' size."""

    coupled: bool
    size: int
    clean: NDArray[np.bool_]
    cells: Rights
    others: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def columns(self) -> NDArray[np.float32]:
        """Clean first, then kind by kind its severities: (rows, 1 + kinds * severities)."""
        each = [one for severities in self.cells.values() for one in severities.values()]
        return np.stack([self.clean, *each], 1).astype(np.float32)


def score(right: NDArray[np.bool_], size: int, coupled: bool) -> Score:
    """A share of rows: Wilson's interval where rows are independent, else a bootstrap over whole batches."""
    if not coupled:
        return intervals.of_rows(int(right.sum()), len(right))
    return intervals.of_batches([int(part.sum()) for part in right.reshape(-1, size)], size)


def damage(network: str, alpha: float | None, found: Answers, own: Answers | None, baseline: Answers | None) -> Damage:
    """Sum up the answers of one network at one alpha. `own`: its answers as it was given; None if these are they."""
    kinds, severities = list(found.cells), list(next(iter(found.cells.values())))
    alone = Resampled([found])

    def mean(part: Any, axes: int | tuple[int, int] = -1) -> Estimate:
        return alone.estimate(lambda clean, table: table[part].mean(axes))

    def gained(clean: Table, table: Table, clean2: Table, table2: Table) -> Table:
        return np.asarray(table.mean((-2, -1)) - table2.mean((-2, -1)))

    return Damage(
        network=network,
        alpha=alpha,
        own=own is None,
        coupled=found.coupled,
        clean=score(found.clean, found.size, found.coupled),
        cells={
            kind: {str(severity): score(right, found.size, found.coupled) for severity, right in each.items()}
            for kind, each in found.cells.items()
        },
        kinds={kind: mean(np.s_[..., i, :]) for i, kind in enumerate(kinds)},
        severities={str(severity): mean(np.s_[..., i]) for i, severity in enumerate(severities)},
        mean=mean(np.s_[...], (-2, -1)),
        gain=Resampled([found, own]).estimate(gained) if own else None,
        others={name: score(right, found.size, found.coupled) for name, right in found.others.items()},
        errors=errors(found, baseline) if baseline else None,
    )


def errors(found: Answers, baseline: Answers) -> Errors:
    """Corruption errors of a network beside a baseline's on the same rows."""
    both = Resampled([found, baseline])

    def ratio(over: Table, under: Table) -> Table:
        return np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0)

    def plain(clean: Table, table: Table, clean2: Table, table2: Table) -> Table:
        return ratio((1 - table).sum(-1), (1 - table2).sum(-1))

    def relative(clean: Table, table: Table, clean2: Table, table2: Table) -> Table:
        return ratio((clean[..., None, None] - table).sum(-1), (clean2[..., None, None] - table2).sum(-1))

    def mean(of: Callable[..., Table]) -> Estimate | None:
        made = both.estimate(lambda *tables: np.asarray(of(*tables).mean(-1)))
        return None if math.isnan(made.value) else made

    each = plain(*both.tables(both.point)).tolist()
    return Errors(
        kinds={kind: None if math.isnan(one) else one for kind, one in zip(found.cells, each, strict=True)},
        mean=mean(plain),
        relative=mean(relative),
    )


class Resampled:
    """Accuracies of some answers to the same rows: as they are, and for rows drawn anew, the same for all of them.

    Where any of them has coupled rows, whole batches are drawn too, and the wider end of an interval counts: few batches
    that agree would else seem to be certain.
    """

    def __init__(self, found: Sequence[Answers]) -> None:
        columns = np.concatenate([one.columns for one in found], 1)
        self.count, self.kinds = len(found), len(found[0].cells)
        self.point = columns.mean(0, dtype=np.float64)
        self.draws = [intervals.redrawn(columns, size) for size in sorted({1} | {one.size for one in found if one.coupled})]

    def tables(self, columns: Table) -> list[Table]:
        """For each of the answers the clean accuracy (...) and the table (..., kinds, severities)."""
        parts = np.split(columns, self.count, -1)
        return [made for part in parts for made in (part[..., 0], part[..., 1:].reshape(*part.shape[:-1], self.kinds, -1))]

    def estimate(self, statistic: Callable[..., Table]) -> Estimate:
        """A statistic of `tables`, with its interval. Draws in which it is undefined (NaN) are left out."""
        value = float(statistic(*self.tables(self.point)))
        low, high = value, value
        for drawn in self.draws:
            ends = statistic(*self.tables(drawn))
            if np.isfinite(ends).any():
                least, most = intervals.middle(ends)
                low, high = min(low, least), max(high, most)
        return Estimate(value=value, low=low, high=high)
