"""SVHN's cropped digits in their .mat files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..limits import DATA
from .array_checks import Arrays
from .files import StoredData, reading
from .mat import matrices


def read_mat(file: Path) -> tuple[Tensor, Tensor]:
    """Read one file: X (32, 32, 3, n) becomes (n, 3, 32, 32) uint8, y (n, 1) becomes (n,), with label 10 for digit 0."""
    with reading(file, "a .mat file of SVHN with X of shape (32, 32, 3, n) and y of shape (n, 1)") as content:
        held = {one.name: one for one in matrices(content)}
        n = held["X"].shape[-1]
        if held["X"].shape != (32, 32, 3, n) or held["y"].shape != (n, 1) or 3072 * n > DATA:
            raise ValueError(f"X of shape {held['X'].shape}, y of shape {held['y'].shape}")
        x, y = held["X"].array(), held["y"].array().ravel().astype(np.int64)
        if x.dtype != np.uint8:
            raise ValueError(f"X of {x.dtype}")
        if not ((y >= 1) & (y <= 10)).all():
            raise ValueError(f"labels from {y.min()} to {y.max()}, not from 1 to 10")
        return torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))), torch.from_numpy(y % 10)


@dataclass(frozen=True, kw_only=True)
class Svhn(StoredData):
    """SVHN, cropped: 73,257 + 26,032 colour images of house numbers' digits, 32 x 32 (the `extra` images are not read).

    Reads `train_32x32.mat` and `test_32x32.mat`. Options as in `TensorData` and `StoredData`.
    Source: Netzer et al. 2011, "Reading digits in natural images with unsupervised feature learning".
    """

    name: ClassVar[str] = "svhn"
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {"svhn": ("train_32x32.mat", "test_32x32.mat")}
    urls: ClassVar[Mapping[str, str]] = {
        "http://ufldl.stanford.edu/housenumbers/train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        "http://ufldl.stanford.edu/housenumbers/test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
    }

    validation_size: int = 5000

    def arrays(self) -> Arrays:
        """Read the files: (n, 3, 32, 32) uint8."""
        train_x, train_y = self._read("train")
        return self._tested._replace(train_x=train_x, train_y=train_y)

    def test_arrays(self) -> Arrays:
        """Read the file of the test images: (n, 3, 32, 32) uint8, without training images."""
        x, y = self._read("test")
        return Arrays(x[:0], y[:0], x, y, tuple("0123456789"))

    def _read(self, split: str) -> tuple[Tensor, Tensor]:
        return read_mat(self.folder / f"{split}_32x32.mat")
