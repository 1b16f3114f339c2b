"""Checks of the arrays of a data set, and how an error is worded."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Arrays(NamedTuple):
    """What a reader returns. Pixels (n, c, h, w), clips (n, c, t, h, w): uint8 0..255, or floating point in [0, 1].

    Labels (n,) are indexes into `names`. A training split without images means that there is none. Validation images: where
    the data set has its own.
    """

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    names: tuple[str, ...]
    val_x: Tensor | None = None
    val_y: Tensor | None = None


def need(met: object, asked: str, got: object, advice: str) -> None:
    """Raise ValueError unless `met`: one line that says what is needed, what is there, what to do."""
    if not met:
        raise ValueError(f"{asked}; got {got}; {advice}")


def check_arrays(arrays: Arrays, source: str) -> Arrays:
    """Return the arrays with uint8 or float32 pixels and int64 labels; `source` is what messages call them.

    Raises ValueError for an empty test or validation split, a wrong rank, type or range of pixels, NaN, and labels outside
    the classes.
    """
    train_x, train_y, test_x, test_y, names, val_x, val_y = arrays
    test_x, test_y = _check_split(f"{source}: test", test_x, test_y, len(names))
    train_x, train_y = _check_split(f"{source}: training", train_x, train_y, len(names))
    need(len(test_y), f"{source} needs test images", "none", "give a data set that is not empty")
    if val_x is not None and val_y is not None:
        val_x, val_y = _check_split(f"{source}: validation", val_x, val_y, len(names))
        need(len(val_y), f"{source} needs images in its validation split", "none", "add some, or leave that split out")
    filled = [x for x in (train_x, test_x, val_x) if x is not None and len(x)]
    shapes = [tuple(x.shape[1:]) for x in filled]
    need(len(set(shapes)) == 1, f"{source} needs images of one shape", shapes, "resize them")
    return Arrays(train_x, train_y, test_x, test_y, names, val_x, val_y)


def _check_split(split: str, x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    pixels, labels, shape = f"{split} pixels must", f"{split} labels must", tuple(x.shape)
    ranks = f"{pixels} have the shape (n, c, h, w), or (n, c, t, h, w) for clips"
    need(x.ndim in (4, 5) and 0 not in shape[1:], ranks, shape, "reshape them, e.g. x[:, None]")
    need(shape[1] <= 4 or shape[-1] > 4, ranks, f"{shape}, channels last it seems", "move the channels to axis 1")
    floating, count = x.is_floating_point(), y.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    need(floating or x.dtype == torch.uint8, f"{pixels} be uint8 0..255 or floats in [0, 1]", x.dtype, "convert them")
    need(y.shape == (len(x),), f"{labels} have the shape ({len(x)},)", tuple(y.shape), "give one class index per image")
    need(count, f"{labels} be integers", y.dtype, "convert them")
    if len(y):
        low, high = (value.item() for value in x.aminmax())
        first, last = (value.item() for value in y.aminmax())
        need(low == low, f"{pixels} be numbers", "NaN", "leave those images out")
        between = f"{low:.4g}..{high:.4g}"
        need(
            not floating or 0 <= low <= high <= 1,
            f"{pixels} lie in [0, 1]",
            between,
            "divide by 255, or undo a scaling",
        )
        need(floating or high != 1, f"{pixels} use 0..255 as uint8", between, "store pixels in [0, 1] as float32")
        need(
            0 <= first <= last < classes,
            f"{labels} lie in 0..{classes - 1}",
            f"{first}..{last}",
            "map them to the classes",
        )
    return (x.float() if floating else x), y.long()
