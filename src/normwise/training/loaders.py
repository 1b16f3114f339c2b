"""Training images from a DataLoader, batches or tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ..types import Batch, Data
from ..utils.batches import Rows, as_batches, batch_problem


@dataclass(frozen=True)
class Loader:
    """A DataLoader, or another sized iterable of (images, labels), as the training images of `fit`.

    Its batches are as large as it makes them, in its own order (shuffled by torch's random state, which `fit` seeds in every
    epoch). There are no validation images: the last epoch is kept.
    """

    name: ClassVar[str] = "loader"

    rows: Any

    def train_batches(self, batch_size: int) -> int:
        """Count the batches of one epoch. Raises ValueError where there is none."""
        if not len(self.rows):
            raise ValueError(
                "cannot train: got no images; an iterator that has been gone through gives none: give a list of its batches"
            )
        return len(self.rows)

    def train(self, *, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Go once through the images. Raises ValueError for labels and pixels that cannot be, and for what is no pair of tensors."""
        for pair in self.rows:
            (batch,) = as_batches([pair])
            if problem := batch_problem(batch):
                raise ValueError(f"cannot train: got {problem}")
            yield batch

    def validation(self, *, batch_size: int) -> Sequence[Batch]:
        """No rows."""
        return []


@dataclass(frozen=True)
class ShuffledDataset:
    """A Dataset of single rows as the training images of `fit`: shuffled, and read anew, in every epoch.

    Batches are of the schedule's size; a last one of one row is left out, since batch statistics need two.
    """

    name: ClassVar[str] = "dataset"

    rows: Any

    def train_batches(self, batch_size: int) -> int:
        """Count the batches of one epoch. Raises ValueError where there is none."""
        full, rest = divmod(len(self.rows), batch_size)
        if not full + (rest > 1):
            raise ValueError(f"cannot train: got {len(self.rows)} images; batch statistics need two")
        return full + (rest > 1)

    def train(self, *, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Go once through the images. Raises ValueError as `Loader.train`."""
        order = DataLoader(self.rows, batch_size=batch_size, shuffle=True, generator=generator)
        return islice(Loader(order).train(batch_size=batch_size, generator=generator), self.train_batches(batch_size))

    def validation(self, *, batch_size: int) -> Sequence[Batch]:
        """No rows."""
        return []


def as_data(rows: Data | Rows) -> Any:
    """A data set as it is; else training images alone: batches as they come, single rows as `ShuffledDataset`. Raises ValueError for anything else."""
    if hasattr(rows, "train_batches"):
        return rows
    if isinstance(rows, tuple | list) and len(rows) == 2 and all(isinstance(one, Tensor) for one in rows):
        if len(rows[0]) == len(rows[1]):
            return ShuffledDataset(TensorDataset(*rows))
    elif isinstance(rows, Dataset) and not isinstance(rows, IterableDataset) and hasattr(rows, "__len__"):
        return ShuffledDataset(rows)
    elif not isinstance(rows, tuple | list) and isinstance(rows, Iterable) and hasattr(rows, "__len__"):
        return Loader(rows)
    return Loader(as_batches(rows))
