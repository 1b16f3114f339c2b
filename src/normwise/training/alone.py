"""A training in one process, which shares nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from ..types import Batch


class SingleProcess:
    """What `fit` asks of the processes that train together, answered by one; `distributed.ProcessGroup` answers for several."""

    first = True  # of the processes: it alone writes and reports

    def ready(self, model: nn.Module) -> nn.Module:
        """The network that is trained, made of the one that was prepared."""
        return model

    @contextmanager
    def share(self, batch: Batch, noise: int) -> Iterator[tuple[Batch, float]]:
        """The rows of a batch that are this process's, and their share of the loss; meanwhile noise is drawn from `noise`."""
        yield batch, 1.0

    def total(self, *numbers: float) -> tuple[float, ...]:
        """Sums over the rows of the batch that is shared."""
        return numbers

    def combine(self, model: nn.Module) -> None:
        """Make gradients those of the whole batch, and running statistics the same everywhere."""
