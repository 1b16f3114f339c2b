"""One kind of batch, of whatever people have: batches, a DataLoader, pairs of images and labels, or two tensors."""

from __future__ import annotations

import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..types import Batch, Images, Labels

Rows = Any  # Batch, (images, labels), or an iterable of these, such as a DataLoader; or a Dataset of single rows

ROWS = 100  # of a batch, where two tensors are split
HELD = 2**31  # bytes of a loader's images that are held in memory; further ones lie in a temporary file


def as_batches(rows: Rows) -> Sequence[Batch]:
    """The rows as batches of images (b, c, ...), labels (b,) and each row's number.

    `rows` is a list of batches; a DataLoader, or another iterable of pairs (images, labels), which is read once and held,
    what exceeds 2 GiB in a temporary file; or a pair of tensors or a Dataset, which is split into batches of 100. Raises
    ValueError for anything else.

    >>> [len(batch.y) for batch in as_batches((torch.rand(250, 3, 4, 4), torch.zeros(250, dtype=torch.long)))]
    [100, 100, 50]
    """
    if isinstance(rows, Made):
        return rows
    if isinstance(rows, Sequence) and all(isinstance(one, Batch) for one in rows) and not isinstance(rows, Batch):
        return rows
    if isinstance(rows, Batch):
        return [rows]
    if isinstance(rows, tuple | list) and len(rows) == 2 and all(isinstance(one, Tensor) for one in rows):
        images, labels = rows
        return (
            _numbered([*zip(images.split(ROWS), labels.split(ROWS), strict=False)])
            if len(images) == len(labels)
            else _one(rows)
        )
    if isinstance(rows, Dataset):
        return _numbered(DataLoader(rows, batch_size=ROWS))
    if isinstance(rows, Tensor) or not isinstance(rows, Iterable):
        raise ValueError(
            f"the data are a {type(rows).__name__}; give a DataLoader, a Dataset, (images, labels), or a list of such pairs"
        )
    return _numbered(rows)


class Made(Sequence[Batch]):
    """Batches that are made when asked for, one by one, by `made`."""

    @abstractmethod
    def made(self, number: int) -> Batch:
        """The batch with this number, 0 or more."""

    def labels(self, number: int) -> Labels:
        """The labels of the batch with this number."""
        return self.made(number).y

    @overload
    def __getitem__(self, index: int) -> Batch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Batch]: ...
    def __getitem__(self, index: int | slice) -> Batch | list[Batch]:
        numbers = range(len(self))[index]
        return self.made(numbers) if isinstance(numbers, int) else [self.made(number) for number in numbers]


class Chosen(Made):
    """Some of the batches."""

    def __init__(self, batches: Sequence[Batch], numbers: Sequence[int]) -> None:
        self._batches, self._numbers = batches, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def made(self, number: int) -> Batch:
        return self._batches[self._numbers[number]]

    def labels(self, number: int) -> Labels:
        return _labels(self._batches, self._numbers[number])


class Masked(Made):
    """Some rows of each of the batches, without batches that have none of them: `masks` say which, a mask (b,) for each."""

    def __init__(self, batches: Sequence[Batch], masks: Sequence[Tensor]) -> None:
        self._batches, self._masks = batches, masks
        self._numbers = [number for number, mask in enumerate(masks) if mask.any()]

    def __len__(self) -> int:
        return len(self._numbers)

    def made(self, number: int) -> Batch:
        batch, mask = self._batches[self._numbers[number]], self._masks[self._numbers[number]]
        return Batch(*(part[mask.to(part.device)] for part in batch))

    def labels(self, number: int) -> Labels:
        y = _labels(self._batches, self._numbers[number])
        return y[self._masks[self._numbers[number]].to(y.device)]


def labels_of(batches: Sequence[Batch]) -> list[Labels]:
    """The labels of each batch; images that are made when asked for are not made."""
    return [_labels(batches, number) for number in range(len(batches))]


def sizes_of(batches: Sequence[Batch]) -> list[int]:
    """How many rows each batch has."""
    return [len(y) for y in labels_of(batches)]


def _labels(batches: Sequence[Batch], number: int) -> Labels:
    return batches.labels(number) if isinstance(batches, Made) else batches[number].y


def images_of(rows: Rows) -> Iterable[Tensor]:
    """The images alone: of rows as `as_batches` takes them, or of an iterable of images."""
    if isinstance(rows, Dataset):
        rows = DataLoader(rows, batch_size=ROWS)
    if isinstance(rows, Tensor):
        return [rows]
    if (
        isinstance(rows, tuple | list)
        and len(rows) == 2
        and all(isinstance(one, Tensor) for one in rows)
        and rows[1].ndim == 1
    ):
        return [batch.x for batch in as_batches(rows)]
    return (one if isinstance(one, Tensor) else one[0] for one in rows)


def range_problem(x: Images) -> str:
    """What is wrong with pixels outside [0, 1], and how to mend it; empty where none is."""
    low, high = float(x.min()), float(x.max())
    if low >= 0 and high <= 1:
        return ""
    mend = "divide by 255, put mean and std inside the model"
    if low > -1e-3 and high < 1.001:
        return f"pixels from {low:.9g} to {high:.9g}; expected [0, 1]: clamp them, x.clamp(0, 1)"
    if low < 0 and high < 20:
        mend = (
            "they look normalized: take Normalize(mean, std) out of the data and put it into the model, "
            "nn.Sequential(nw.Standardize(mean, std), model)"
        )
    return f"pixels from {low:g} to {high:g}; expected [0, 1]: {mend}"


def batch_problem(batch: Batch) -> str:
    """What is wrong with images (b, c, ...) in [0, 1] and labels (b,), and how to mend it; empty if nothing is."""
    x, y, ids = batch
    if y.ndim != 1 or y.dtype not in (torch.int64, torch.int32):
        mend = "y.argmax(1)" if y.ndim == 2 and y.shape[1] > 1 else "y.flatten().long()"
        return f"labels of dtype {y.dtype} and shape {tuple(y.shape)}; expected a whole number per row: {mend}"
    if len(ids) != len(y):
        return f"{len(ids)} ids for {len(y)} labels; expected one per row"
    if x.ndim < 3 or len(x) != len(y) or len(y) == 0:
        return f"images of shape {tuple(x.shape)} with {len(y)} labels; expected (b, c, ...) with b > 0 labels"
    if not x.is_floating_point():
        return f"images of dtype {x.dtype}; expected floats in [0, 1]: divide by 255"
    if not torch.isfinite(x).all():
        return f"images with {int((~torch.isfinite(x)).sum())} values that are NaN or infinite; expected pixels in [0, 1]"
    return range_problem(x)


def input_mismatch(model: nn.Module, x: Images, error: Exception) -> str:
    """What a network said of images (b, c, ...) that it cannot take, and how to mend it."""
    own = next((one.dtype for one in model.parameters() if one.is_floating_point()), x.dtype)
    mend = "give it images of its own kind (on the command line: --data)"
    if own != x.dtype:
        mend = f"its weights are {own}: give images.float() and model.float()"
    elif "out of bounds" in str(error):
        mend = "labels count from 0 and stay below the number of the model's outputs"
    elif x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        mend = "channels come second: images.permute(0, 3, 1, 2)"
    first = f"{type(error).__name__}: {error}".split("\n")[0]
    return f"cannot take images of shape {tuple(x.shape)} and dtype {x.dtype}: {first}; {mend}"


def _one(rows: Any) -> Sequence[Batch]:
    return _numbered([rows])


class _Spill:
    """Images in a temporary file, mapped into memory: only those that are looked at are there. It goes when nothing holds them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115

    def __del__(self) -> None:
        self._file.close()  # what is mapped outlives it

    def put(self, x: Tensor) -> Tensor:
        """The same images there."""
        content = x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
        offset = -(-self._file.seek(0, os.SEEK_END) // 64) * 64  # where values of any type may begin
        self._file.seek(offset)
        self._file.write(content.tobytes())
        self._file.flush()
        mapped = np.memmap(self._file, np.uint8, "c", offset, content.shape)  # who writes to it gets a page of his own
        return torch.from_numpy(mapped).view(x.dtype).view(x.shape)


def _numbered(pairs: Iterable[Any]) -> list[Batch]:
    given = isinstance(pairs, Sequence)  # they are in memory as it is
    spill, held = None, 0
    found, first = list[Batch](), 0
    for pair in pairs:
        if isinstance(pair, Batch) and not first:
            found.append(pair)
            continue
        if not isinstance(pair, tuple | list) or len(pair) < 2 or not all(isinstance(one, Tensor) for one in pair[:2]):
            raise ValueError(
                f"a batch is a {type(pair).__name__}; expected (images, labels), two tensors: let the DataLoader give these"
            )
        if isinstance(pair, Batch) or (len(found) and not first):
            raise ValueError(
                "some of the batches have ids and some have none; give all as Batch, or all as (images, labels)"
            )
        x, y = pair[:2]
        held += 0 if given else x.nbytes
        if held > HELD:
            spill = spill or _Spill()
            x = spill.put(x)
        found.append(Batch(x, y, torch.arange(first, first + len(y))))
        first += len(y)
    return found
