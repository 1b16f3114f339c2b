"""A data set in memory: split by seed, given in fixed batches of pixels in [0, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from ..registry import check_words
from ..seeding import generator as seeded
from ..types import Batch, Labels
from ..utils.batches import Made
from .array_checks import Arrays, check_arrays, need


class Split(NamedTuple):
    """Some rows of a stored split."""

    x: Tensor
    y: Tensor
    rows: Tensor


class Batches(Made):
    """The rows of a split in fixed batches, made when asked for: float32 pixels in [0, 1]; ids are indexes as stored."""

    def __init__(self, split: Split, batch_size: int) -> None:
        need(batch_size > 0, "a batch needs at least 1 image", f"batch_size {batch_size}", "pass a positive number")
        self._x, self._y, rows = split
        self._rows = rows.split(batch_size) if len(rows) else ()

    def __len__(self) -> int:
        return len(self._rows)

    def made(self, number: int) -> Batch:
        rows = self._rows[number]
        x = self._x[rows]
        return Batch(x.float().div_(255) if x.dtype == torch.uint8 else x, self._y[rows], rows.clone())

    def labels(self, number: int) -> Labels:
        return self._y[self._rows[number]]


@dataclass(frozen=True, kw_only=True)
class TensorData(ABC):
    """A data set whose `arrays()` fit in memory; they are read and checked once, at first use, and training images when asked for.

    Options
        validation_size   images held back to choose checkpoints and settings, in proportion to the classes; for data without
                          validation images of its own
        validation_from   the split that they are taken from, and are then no part of: train or test. Test images are for a network that
                          was trained on all training images elsewhere: what it has seen chooses wrongly
        split_seed        seed that chooses these images
        train_limit       train on at most this many of the remaining images, in proportion to the classes
        test_limit        test on this many images, the first in test order
        test_from         leave out this many images before, in test order
    """

    name: ClassVar[str]
    mirrors: ClassVar[bool] = True  # a row that is mirrored left to right keeps its class

    validation_size: int = 0
    validation_from: Literal["train", "test"] = "train"
    split_seed: int = 0
    train_limit: int | None = None
    test_limit: int | None = None
    test_from: int = 0

    def __post_init__(self) -> None:
        check_words(self)
        for option, least in (("validation_size", 0), ("train_limit", 1), ("test_limit", 1), ("test_from", 0)):
            value = getattr(self, option)
            need(
                value is None or value >= least,
                f"{self.name} needs {option} >= {least}",
                value,
                "pass more, or leave it out",
            )

    @abstractmethod
    def arrays(self) -> Arrays:
        """Read the data. Raises ValueError that names the file and what is wrong with it."""

    def test_arrays(self) -> Arrays:
        """Read the data, if that is quicker without its training images. Raises as `arrays` does."""
        return self._arrays

    @property
    def source(self) -> str:
        """What error messages call this data."""
        return self.name

    def test_order(self, y: Tensor) -> Tensor:
        """Return the test images in their order, given the labels of all: as stored."""
        return torch.arange(len(y))

    def train_order(self, y: Tensor) -> Tensor:
        """Return the training images in their order, given the labels of all: as stored."""
        return torch.arange(len(y))

    def validation_order(self, y: Tensor) -> Tensor:
        """Return the validation images of the data set's own in their order, given the labels of all: as stored."""
        return torch.arange(len(y))

    def held(self, y: Tensor, rows: Tensor) -> Tensor:
        """Choose those of the rows of a split that are held back for validation, given the labels of all."""
        return rows[stratified(y[rows], self.validation_size, seeded(self.split_seed, "validation"))]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, by label."""
        return self._tested.names

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one row: (c, h, w) or (c, t, h, w)."""
        return tuple(self._tested.test_x.shape[1:])

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean pixel of each channel over the rows that train."""
        return self._moments[0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the pixels of each channel over the rows that train; 1 where below 0.001."""
        return self._moments[1]

    def train(self, *, batch_size: int, generator: Generator) -> Iterator[Batch]:
        """Go once over the training images, shuffled. A last batch of one row is left out: batch statistics need two."""
        count = self.train_batches(batch_size)
        x, y, rows = self._training
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        return islice(Batches(Split(x, y, shuffled), batch_size), count)

    def train_batches(self, batch_size: int) -> int:
        """Count the batches of one epoch."""
        rows = len(self._training.rows)
        got = f"{rows} images in batches of {batch_size}"
        need(
            batch_size > 1 and rows > 1,
            f"training on {self.source} needs batches of 2 images or more",
            got,
            "use larger batches or more images",
        )
        full, rest = divmod(rows, batch_size)
        return full + (rest > 1)

    def validation(self, *, batch_size: int) -> Sequence[Batch]:
        """Return the validation images of the data set's own, or those held back, in fixed batches."""
        held = self._testing if self.validation_from == "test" else self._splits
        return Batches(self._own or held[1], batch_size)

    def test(self, *, batch_size: int) -> Sequence[Batch]:
        """Return the test images in fixed batches: same order and composition every time."""
        return Batches(self._testing[0], batch_size)

    @cached_property
    def _arrays(self) -> Arrays:
        return check_arrays(self.arrays(), self.source)

    @cached_property
    def _tested(self) -> Arrays:
        """The arrays, of which only the test images count."""
        return self._arrays if "_arrays" in vars(self) else check_arrays(self.test_arrays(), self.source)

    @cached_property
    def _splits(self) -> tuple[Split, Split]:
        """Training images, and those of their split that are held back for validation."""
        x, y = self._arrays.train_x, self._arrays.train_y
        kept, held = self._parted(y, self.train_order(y), "train")
        if self.train_limit is not None:
            kept = kept[stratified(y[kept], self.train_limit, seeded(self.split_seed, "train_limit"))]
        return Split(x, y, kept), Split(x, y, held)

    @cached_property
    def _testing(self) -> tuple[Split, Split]:
        """Test images, and those of their split that are held back for validation."""
        x, y = self._tested.test_x, self._tested.test_y
        kept, held = self._parted(y, self.test_order(y), "test")
        asked = f"test_from {self.test_from} must leave test images of {self.source}"
        need(self.test_from < max(len(kept), 1), asked, f"{len(kept)} in all", "pass a smaller test_from")
        return Split(x, y, kept[self.test_from :][: self.test_limit]), Split(x, y, held)

    @property
    def _own(self) -> Split | None:
        """The validation images of the data set's own."""
        x, y = self._tested.val_x, self._tested.val_y
        if x is None or y is None:
            return None
        got = f"validation_size {self.validation_size}"
        need(not self.validation_size, f"{self.source} has validation images of its own", got, "leave that out")
        return Split(x, y, self.validation_order(y))

    def _parted(self, y: Tensor, rows: Tensor, split: str) -> tuple[Tensor, Tensor]:
        """The rows of a split without those held back for validation, in the same order, and these."""
        if self._own or self.validation_from != split:
            return rows, rows[:0]
        kind = {"train": "training", "test": "test"}[split]
        asked = f"validation_size {self.validation_size} must leave {kind} images of {self.source}"
        need(self.validation_size < max(len(rows), 1), asked, f"{len(rows)} rows in all", "pass a smaller validation_size")
        held = self.held(y, rows)
        return rows[~torch.isin(rows, held)], held

    @property
    def _training(self) -> Split:
        asked = f"{self.source} needs training images for this"
        need(
            len(self._arrays.train_y),
            asked,
            "only test images",
            "give data with a training split (x_train and y_train in a .npz file), or only evaluate",
        )
        return self._splits[0]

    @cached_property
    def _moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        first = second = torch.zeros(self.shape[0], dtype=torch.float64)
        for batch in Batches(self._training, 100):  # small enough for the cache: ten times faster than 1000
            x = batch.x.flatten(2)
            first = first + x.mean(2).double().sum(0)
            second = second + x.square().mean(2).double().sum(0)
        mean, square = first / len(self._training.rows), second / len(self._training.rows)
        std = (square - mean.square()).clamp(min=0).sqrt()
        return tuple(mean.tolist()), tuple(torch.where(std > 1e-3, std, 1.0).tolist())


def stratified(y: Tensor, size: int, generator: Generator) -> Tensor:
    """Choose `size` of the rows at random, or all, every class in its share to within a row; in random order.

    A row's place in its shuffled class, divided by the size of the class, is a quantile: the smallest quantiles win.
    """
    rows = torch.randperm(len(y), generator=generator)
    rows = rows[y[rows].argsort(stable=True)]
    labels, counts = y[rows], torch.bincount(y)
    place = torch.arange(len(y)) - (counts.cumsum(0) - counts)[labels]
    quantile = (place + torch.rand(len(counts), generator=generator, dtype=torch.float32)[labels]) / counts[labels]
    chosen = rows[quantile.argsort(stable=True)[:size]]
    return chosen[torch.randperm(len(chosen), generator=generator)]
