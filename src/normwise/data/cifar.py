"""CIFAR-10 and CIFAR-100 in their python and binary layouts; a pickle is read without running anything in it."""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .array_checks import Arrays
from .files import StoredData, reading

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))


class _Stub:
    """Stands for every class that a pickled array names: keeps what it is given and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[np.uint8]:
        _, shape, dtype, fortran, content = self.state
        if dtype.arguments[0] not in ("u1", b"u1"):
            raise ValueError(f"an array of {dtype.arguments[0]!r}, not of 'u1'")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Unpickler(pickle.Unpickler):
    """Builds lists, dictionaries, numbers, text and `_Stub`s; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("numpy._core", "numpy.core"), name:
            case ("numpy.core.multiarray", "_reconstruct") | ("numpy", "ndarray" | "dtype"):
                return _Stub
            case "_codecs", "encode":  # Python 3 writes bytes like this in protocol 2,
                return lambda text, encoding: text.encode("latin1")
            case "__builtin__", "bytes":  # and no bytes like this
                return lambda: b""
        raise ValueError(f"a pickle that wants to run code ({module}.{name}), which was refused")


def _unpickle(content: bytes) -> dict[str, Any]:
    for number, (code, argument, _) in enumerate(pickletools.genops(content)):
        if "PUT" in code.name and isinstance(argument, int) and argument > number + 1:  # room for so many is made at once
            raise ValueError(f"a pickle that keeps {argument:,} objects after {number:,} steps")
    loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return {key.decode() if isinstance(key, bytes) else key: value for key, value in loaded.items()}


@dataclass(frozen=True, kw_only=True)
class _Cifar(StoredData):
    kinds: ClassVar[Mapping[str, int]]  # the labels of a row in the order of the binary layout -> their classes

    validation_size: int = 5000

    @property
    def _kind(self) -> str:
        return ""

    def arrays(self) -> Arrays:
        """Read the files: (n, 3, 32, 32) uint8."""
        train_x, train_y = self._split("data_batch", "train")
        return self._tested._replace(train_x=train_x, train_y=train_y)

    def test_arrays(self) -> Arrays:
        """Read the files of the test images and names: (n, 3, 32, 32) uint8, without training images."""
        x, y = self._split("test")
        metas = ("meta", "batches.meta", "batches.meta.txt", f"{self._kind}label_names.txt")
        (names,) = (file for file in self._files if file.name in metas)
        return Arrays(x[:0], y[:0], x, y, self._names(names))

    @property
    def _files(self) -> list[Path]:
        folder = self.folder
        return [folder / file for file in self.layouts[self.layout(folder) or ""]]

    def _split(self, *beginnings: str) -> tuple[Tensor, Tensor]:
        files = [file for file in self._files if file.name.startswith(beginnings)]
        read = self._binary if files[0].suffix else self._python
        x, y = zip(*(read(file) for file in files), strict=True)
        return torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y))

    def _python(self, file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        with reading(file, f"a python batch of {self.name}") as content:
            batch = _unpickle(content)
            x, y = batch["data"].array().reshape(-1, 3, 32, 32), batch[f"{self._kind}labels"]
            if not isinstance(y, list) or len(y) != len(x) or not all(isinstance(label, int) for label in y):
                raise ValueError(f"{len(x)} images, and labels that are no list of as many numbers")
            return x, np.array(y, np.int64)

    def _binary(self, file: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        with reading(file, f"a binary batch of {self.name}") as content:
            labels = len(self.kinds)
            if not content or len(content) % (labels + 3072):
                raise ValueError(f"{len(content)} bytes, which is no number of rows of {labels + 3072}")
            rows = np.frombuffer(content, np.uint8).reshape(-1, labels + 3072)
            return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, list(self.kinds).index(self._kind)].astype(np.int64)

    def _names(self, file: Path) -> tuple[str, ...]:
        with reading(file, f"the class names of {self.name}") as content:
            names = content.split() if file.suffix == ".txt" else _unpickle(content)[f"{self._kind}label_names"]
            if not isinstance(names, list) or len(names) != self.kinds[self._kind]:
                raise ValueError(f"{len(names)} names, not {self.kinds[self._kind]}")
            return tuple(name.decode() if isinstance(name, bytes) else name for name in names)


@dataclass(frozen=True, kw_only=True)
class Cifar10(_Cifar):
    """CIFAR-10: 50,000 + 10,000 colour images of 32 x 32, 10 classes.

    Reads `cifar-10-batches-py` and `cifar-10-batches-bin`. Options as in `TensorData` and `StoredData`.
    Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images"; www.cs.toronto.edu/~kriz/cifar.html.
    """

    name: ClassVar[str] = "cifar10"
    kinds: ClassVar[Mapping[str, int]] = {"": 10}
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cifar-10-batches-py": (*BATCHES, "test_batch", "batches.meta"),
        "cifar-10-batches-bin": (*(f"{file}.bin" for file in BATCHES), "test_batch.bin", "batches.meta.txt"),
    }
    urls: ClassVar[Mapping[str, str]] = {
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a"
    }


@dataclass(frozen=True, kw_only=True)
class Cifar100(_Cifar):
    """CIFAR-100: 50,000 + 10,000 colour images of 32 x 32, 100 classes, or their 20 groups with `coarse`.

    Reads `cifar-100-python` and `cifar-100-binary`. Other options as in `TensorData` and `StoredData`.
    Source: as CIFAR-10.
    """

    name: ClassVar[str] = "cifar100"
    kinds: ClassVar[Mapping[str, int]] = {"coarse_": 20, "fine_": 100}
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "cifar-100-python": ("train", "test", "meta"),
        "cifar-100-binary": ("train.bin", "test.bin", "coarse_label_names.txt", "fine_label_names.txt"),
    }
    urls: ClassVar[Mapping[str, str]] = {
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85"
    }

    coarse: bool = False

    @property
    def _kind(self) -> str:
        return "coarse_" if self.coarse else "fine_"
