"""MNIST and Fashion-MNIST in their idx files, plain or gzipped."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from .array_checks import Arrays
from .files import StoredData, reading

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _urls(base: str, *checksums: str) -> Mapping[str, str]:
    return {f"{base}/{file}.gz": f"md5:{checksum}" for file, checksum in zip(FILES, checksums, strict=True)}


def read_idx(file: Path, shape: tuple[int, ...] = ()) -> Tensor:
    """Read an idx file of unsigned bytes whose rows have this shape. Raises ValueError where it is something else.

    The format: 0, 0, 8 for unsigned byte, the rank; each length as a big-endian 32-bit number; the bytes.
    """
    with reading(file, f"an idx file of bytes in rows of shape {shape}") as content:
        rank = len(shape) + 1
        head = 4 + 4 * rank
        magic, n, *found = struct.unpack(f">{rank + 1}I", content[:head].ljust(head, b"\0"))
        if magic != 0x800 + rank or tuple(found) != shape or len(content) - head != n * math.prod(shape):
            begin = f"{content[:4].hex(' ')}, for {n} rows of {tuple(found)}"
            raise ValueError(f"{len(content)} bytes that begin with {begin}")
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=head).reshape(n, *shape).copy())


@dataclass(frozen=True, kw_only=True)
class Mnist(StoredData):
    """MNIST: 60,000 + 10,000 grey images of handwritten digits, 28 x 28.

    Reads the four idx files in `mnist` or `MNIST/raw`. Options as in `TensorData` and `StoredData`.
    Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition".
    """

    name: ClassVar[str] = "mnist"
    labels: ClassVar[tuple[str, ...]] = tuple("0123456789")
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {"mnist": FILES, "MNIST/raw": FILES}
    urls: ClassVar[Mapping[str, str]] = _urls(
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )

    validation_size: int = 5000

    def arrays(self) -> Arrays:
        """Read the files: (n, 1, 28, 28) uint8."""
        train_x, train_y = self._read(*FILES[:2])
        return self._tested._replace(train_x=train_x, train_y=train_y)

    def test_arrays(self) -> Arrays:
        """Read the files of the test images: (n, 1, 28, 28) uint8, without training images."""
        x, y = self._read(*FILES[2:])
        return Arrays(x[:0], y[:0], x, y, self.labels)

    def _read(self, images: str, labels: str) -> tuple[Tensor, Tensor]:
        return read_idx(self.folder / images, (28, 28))[:, None], read_idx(self.folder / labels)

    @classmethod
    def recognised(cls, folder: Path) -> bool:
        """Say whether the folder holds this data set; where the files alone do not tell, a path with "fashion" does."""
        inside = any(cls.layout(folder / name) for name in cls.layouts)
        return inside or (
            bool(cls.layout(folder)) and ("fashion" in str(folder.resolve()).lower()) == ("fashion" in cls.name)
        )


@dataclass(frozen=True, kw_only=True)
class FashionMnist(Mnist):
    """Fashion-MNIST: 60,000 + 10,000 grey images of clothes, 28 x 28.

    Reads the four idx files in `fashion-mnist` or `FashionMNIST/raw`. Options as in `TensorData` and `StoredData`.
    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747.
    """

    name: ClassVar[str] = "fashion-mnist"
    labels: ClassVar[tuple[str, ...]] = (
        "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {"fashion-mnist": FILES, "FashionMNIST/raw": FILES}
    urls: ClassVar[Mapping[str, str]] = _urls(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )
