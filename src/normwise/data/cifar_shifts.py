"""CIFAR-10 under natural shift, as others published it: CIFAR-10-C and CIFAR-10.1, test images alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..registry import unknown
from ..types import Batch
from ..utils.errors import one_line
from .array_checks import Arrays, need
from .corruptions import CORRUPTIONS
from .corruptions.kind import SEVERITIES, check_severity
from .files import StoredData

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VERSIONS = ("v6", "v4")


@contextmanager
def mapped(file: Path, kind: str) -> Iterator[NDArray[Any]]:
    """Give the array of an .npy file without reading it into memory; nothing in it is run.

    Turns whatever goes wrong inside into a ValueError of one line: the file, what it should be, what it is, what to do.
    """
    try:
        yield np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise ValueError(
            f"{file} must be {kind}; got {one_line(error)}; fetch it again, or point at another place"
        ) from None


@dataclass(frozen=True, kw_only=True)
class _Published(StoredData):
    origin: ClassVar[str]  # where users fetch it themselves
    urls: ClassVar[Mapping[str, str]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        need(not self.download, f"{self.name} is fetched by hand", "download", f"get {self.origin} and set root")

    @property
    def present(self) -> bool:
        """Whether the files are there."""
        return any(self.layout(folder) for folder in self._candidates())

    def _missing(self, target: Path) -> str:
        files = next(iter(self.layouts.values()))
        looked = ", ".join(str(folder) for folder in self._candidates())
        return (
            f"{self.name} needs {files[0]}, {files[1]}{' and the like' if len(files) > 2 else ''}; looked in {looked}; "
            f"put {self.origin} into {target}, or set root or $NORMWISE_DATA"
        )

    def _rows(self, pixels: Path, labels: Path, severity: int = 0) -> Arrays:
        """Read the rows of one severity (0: of a file without severities), labels as they stand there."""
        with mapped(labels, f"the labels of {self.name}, integers 0 to 9 of shape (n,)") as y:
            if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y) or y.min() < 0 or y.max() > 9:
                raise ValueError(f"{y.dtype} of shape {y.shape}" + (f", {y.min()} to {y.max()}" if y.size else ""))
            if severity and (len(y) % 5 or (y.reshape(5, -1) != y[: len(y) // 5]).any()):
                raise ValueError(f"{len(y)} labels that do not repeat for each of 5 severities")
            targets = np.array(y, np.int64)
        with mapped(pixels, f"images of {self.name}, uint8 of shape ({len(targets)}, 32, 32, 3)") as x:
            if x.shape != (len(targets), 32, 32, 3) or x.dtype != np.uint8:
                raise ValueError(f"{x.dtype} of shape {x.shape}")
            part = slice(None)
            if severity:
                part = slice((severity - 1) * len(x) // 5, severity * len(x) // 5)
            images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x[part], -1, 1)))
        y_test = torch.from_numpy(targets[part])
        return Arrays(images[:0], y_test[:0], images, y_test, NAMES)


@dataclass(frozen=True, kw_only=True)
class Cifar10C(_Published):
    """CIFAR-10-C: the 10,000 test images of CIFAR-10 in their order, under one corruption, as its authors stored them.

    Reads `CIFAR-10-C/KIND.npy` (five severities one after the other) and `labels.npy`, memory-mapped.

    Options (others as in `TensorData` and `StoredData`)
        kind        which of the 15 corruptions
        severity    1 to 5

    Source: Hendrycks and Dietterich 2019, arXiv:1903.12261; CIFAR-10-C.tar of zenodo.org/records/2535967.
    """

    name: ClassVar[str] = "cifar10c"
    origin: ClassVar[str] = "the files in CIFAR-10-C.tar of https://zenodo.org/records/2535967"
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "CIFAR-10-C": ("labels.npy", *(f"{kind}.npy" for kind in CORRUPTIONS))
    }

    kind: str = "gaussian_noise"
    severity: int = SEVERITIES[0]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind not in CORRUPTIONS:
            raise unknown("corruption", self.kind, CORRUPTIONS)
        check_severity(self.severity)

    def of(self, batch: Batch) -> Batch:
        """The same rows of CIFAR-10's test split, as they are here. Raises ValueError where labels differ."""
        (whole,) = self.test(batch_size=len(self._arrays.test_y))
        same = int(batch.ids.max()) < len(whole.y) and torch.equal(whole.y[batch.ids], batch.y)
        need(same, f"{self.source} must hold CIFAR-10's test images", "images with other labels", "download the files again")
        return batch._replace(x=whole.x[batch.ids])

    def arrays(self) -> Arrays:
        """Read the files: (n, 3, 32, 32) uint8."""
        folder = self.folder
        return self._rows(folder / f"{self.kind}.npy", folder / "labels.npy", self.severity)


def _files(version: str) -> tuple[str, str]:
    return f"cifar10.1_{version}_data.npy", f"cifar10.1_{version}_labels.npy"


@dataclass(frozen=True, kw_only=True)
class Cifar101(_Published):
    """CIFAR-10.1: new test images for CIFAR-10, gathered as the old ones were; 2,000 (v6) or 2,021 (v4).

    Reads `cifar10.1_v6_data.npy` and `cifar10.1_v6_labels.npy`, memory-mapped.

    Options (others as in `TensorData` and `StoredData`)
        version     v6 (classes in equal shares) or v4

    Source: Recht et al. 2018, arXiv:1806.00451; github.com/modestyachts/CIFAR-10.1, folder `datasets`.
    """

    name: ClassVar[str] = "cifar10.1"
    origin: ClassVar[str] = "the .npy files of https://github.com/modestyachts/CIFAR-10.1/tree/master/datasets"
    layouts: ClassVar[Mapping[str, tuple[str, ...]]] = {"CIFAR-10.1": ("cifar10.1_v6_data.npy", "cifar10.1_v6_labels.npy")}

    version: str = "v6"

    def __post_init__(self) -> None:
        super().__post_init__()
        need(
            self.version in VERSIONS,
            f"cifar10.1 has the versions {' and '.join(VERSIONS)}",
            self.version,
            "give one of them",
        )

    @classmethod
    def layout(cls, folder: Path) -> str | None:
        """Name the layout, where the files of either version are in the folder."""
        return "CIFAR-10.1" if any(all((folder / file).is_file() for file in _files(one)) for one in VERSIONS) else None

    def arrays(self) -> Arrays:
        """Read the files: (n, 3, 32, 32) uint8."""
        pixels, labels = (self.folder / file for file in _files(self.version))
        return self._rows(pixels, labels)
