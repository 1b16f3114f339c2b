"""Training images from a DataLoader, batches or tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator

from ..types import Batch, Data
from ..utils.batches import Rows, amiss, as_batches


@dataclass(frozen=True)
class Loader:
    """A DataLoader, or another sized iterable of (images, labels), as the training images of `fit`.

    Its batches are as large as it makes them, in its own order (shuffled by torch's random state, which `fit` seeds in every
    epoch). There are no validation images: the last epoch is kept.
    """

    name: ClassVar[str] = "loader"

    rows: Any

    def train_batches(self, batch_size: int) -> int:
        """Count the batches of one epoch."""
        return len(self.rows)

    def train(self, *, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Go once through the images. Raises ValueError for labels and pixels that cannot be, and for what is no pair of tensors."""
        for pair in self.rows:
            (batch,) = as_batches([pair])
            if told := amiss(batch):
                raise ValueError(f"cannot train: got {told}")
            yield batch

    def validation(self, *, batch_size: int) -> Sequence[Batch]:
        """No rows."""
        return []


def as_data(rows: Data | Rows) -> Any:
    """A data set as it is; a DataLoader, a list of batches or two tensors as one. Raises ValueError for anything else."""
    if hasattr(rows, "train_batches"):
        return rows
    if not isinstance(rows, tuple | list) and isinstance(rows, Iterable) and hasattr(rows, "__len__"):
        return Loader(rows)
    return Loader(as_batches(rows))
