"""Statistics of a batch whose rows are spread over processes; every process gets the same bits, and gradients reach all rows.

Each measures its own rows, and what it found is put together: means and variances by their numbers of values (Chan et al.
1979, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances), ranges by their ends; of medians all values
are gathered. The parts may be of different sizes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..utils.processes import gather, size
from .moments import JAMES_STEIN, MEDIAN, RANGE, Measure, Read, mean_and_variance, shrunk


def statistics(measure: Measure, x: Tensor) -> Read:
    """Centre and spread by channel of the x (b, c, ...) of all processes together."""
    n = x.numel() // x.shape[1]
    if size() == 1:
        return Read(*measure.of(x), n)
    if measure.spread == MEDIAN.spread:
        flat = _all_values(x.transpose(0, 1).flatten(1))
        return Read(*measure.of(flat.t()), flat.shape[1])
    if measure.spread == RANGE.spread:
        flat = x.movedim(1, -1).flatten(0, -2)
        counts, parts = _gathered(n, flat.mean(0), flat.max(0).values, flat.min(0).values)
        mean, high, low = parts.unbind(1)
        return Read(_mean(counts, mean), high.max(0).values - low.min(0).values, int(counts.sum()))
    found = pooled(n, *mean_and_variance(x))
    if measure.spread == JAMES_STEIN.spread:
        return found._replace(centre=shrunk(found.centre), spread=shrunk(found.spread))
    return found


def pooled(n: int, mean: Tensor, variance: Tensor) -> Read:
    """Mean, biased variance and number of values of all processes together, from those of each process's n values."""
    if size() == 1:
        return Read(mean, variance, n)
    counts, parts = _gathered(n, mean, variance)
    means, variances = parts.unbind(1)
    whole = _mean(counts, means)
    return Read(whole, _mean(counts, variances + (means - whole).square()), int(counts.sum()))


def averaged(n: int, *values: Tensor) -> tuple[Tensor, ...]:
    """The means of values, all of one shape, over all processes, each counting n times."""
    if size() == 1:
        return values
    counts, parts = _gathered(n, *values)
    return tuple(_mean(counts, part) for part in parts.unbind(1))


def _gathered(n: int, *values: Tensor) -> tuple[Tensor, Tensor]:
    """How often each process's values count, (processes,), and the values, (processes, values, ...)."""
    parts = gather(torch.stack([torch.full_like(values[0], n), *values]))
    return parts[:, 0].flatten(1)[:, 0].detach(), parts[:, 1:]


def _mean(counts: Tensor, parts: Tensor) -> Tensor:
    """Their weighted mean, measured from the first, so that the mean of equal values is that value."""
    shares = (counts / counts.sum()).view(-1, *[1] * (parts.ndim - 1))
    return parts[0] + (shares * (parts - parts[0])).sum(0)


def _all_values(flat: Tensor) -> Tensor:
    """The values (c, n) of all processes side by side."""
    counts = gather(torch.tensor(flat.shape[1], device=flat.device)).tolist()
    parts = gather(F.pad(flat, (0, max(counts) - flat.shape[1])))
    return torch.cat([part[:, :n] for part, n in zip(parts, counts, strict=True)], 1)
