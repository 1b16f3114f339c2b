"""Any pair of arrays from an .npz file."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..limits import check_zip, memory
from .array_checks import Arrays, need
from .files import reading
from .tensors import TensorData


@dataclass(frozen=True, kw_only=True)
class ArrayFile(TensorData):
    """An .npz file with x_train, y_train, x_test, y_test; or with x, y alone, which are then test images.

    Arrays x_val, y_val are validation images; without them, `validation_size` takes some from another split.
    Pixels (n, c, h, w) or (n, c, t, h, w), uint8 0..255 or floats in [0, 1]; labels (n,) integers from 0.
    An array `names` of text names the classes; without it they are 0 to the largest label.
    `path` is the file; other options as in `TensorData`.
    """

    name: ClassVar[str] = "npz"

    path: str = ""

    @property
    def source(self) -> str:
        """What error messages call this data."""
        return self.path

    def arrays(self) -> Arrays:
        """Read the file; nothing in it is run."""
        need(self.path, "npz needs a path", "none", "pass path=FILE.npz")
        path = Path(self.path).expanduser()
        with reading(path, "an .npz file with x_train, y_train, x_test, y_test, or with x, y", memory()) as content:
            if not content.startswith(b"PK"):
                raise ValueError("no zip archive")
            _check_archive(content)
            loaded = np.load(io.BytesIO(content), allow_pickle=False)
            held = {key: loaded[key] for key in loaded.files}
            if {"x", "y"} <= held.keys():
                test_x, test_y = _tensor(held, "x"), _tensor(held, "y")
                train_x, train_y = test_x[:0], test_y[:0]
            else:
                keys = ("x_train", "y_train", "x_test", "y_test")
                train_x, train_y, test_x, test_y = (_tensor(held, key) for key in keys)
            own = {"x_val", "y_val"} & held.keys()
            val_x, val_y = (_tensor(held, key) for key in ("x_val", "y_val")) if own else (None, None)
            last = max((int(y.max()) for y in (train_y, test_y, val_y) if y is not None and y.numel()), default=0)
            if last > 100_000 and "names" not in held:
                raise ValueError(f"labels up to {last}, where indexes of classes are needed")
            names = tuple(str(name) for name in held.get("names", range(last + 1)))
            return Arrays(train_x, train_y, test_x, test_y, names, val_x, val_y)


def _check_archive(content: bytes) -> None:
    """Refuse an archive that unpacks to more than half of the memory, or an array that is larger than its file. Raises ValueError."""
    check_zip(io.BytesIO(content), memory() // 2)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for one in archive.infolist():
            with archive.open(one) as file:
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read[np.lib.format.read_magic(file)](file)
                if math.prod(shape) * dtype.itemsize > one.file_size:
                    raise ValueError(f"{one.filename} of shape {shape} in {one.file_size:,} bytes")


def _tensor(held: dict[str, np.ndarray], key: str) -> Tensor:
    if key not in held:
        raise ValueError(f"no {key} (it has: {', '.join(held) or 'nothing'})")
    array = held[key]
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{key} of {array.dtype}, not of numbers")
    if key.startswith("y") and array.dtype.kind in "iu":
        array = array.astype(np.int64)  # torch computes little with the wider unsigned integers
    return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
