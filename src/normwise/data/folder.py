"""A folder of images by class."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..seeding import generator
from .check import Arrays, need
from .files import reading
from .tensors import TensorData, stratified

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
Labelled = tuple[Path, int]


@dataclass(frozen=True, kw_only=True)
class ImageFolder(TensorData):
    """Images in root/train/CLASS and root/test/CLASS (or root/val/CLASS); or in root/CLASS, with test rows cut from them.

    Reads png, jpg, jpeg, bmp, webp and ppm of 8 bits, at any depth below CLASS; classes in the order of their names.
    The cut is always the same, whatever `split_seed`, so that no run tests on what another trained on.
    The test rows come in a fixed shuffled order, for sorted by class they would make batches of one class; `ids` are
    indexes into the sorted file names.

    Options (others as in `TensorData`)
        root            the folder
        size            resize to size x size pixels; 0: as they are, which must be all alike
        channels        3 for colour, 1 for grey; images are converted
        test_fraction   the share of the test rows where no test folder is given
    """

    name: ClassVar[str] = "folder"

    root: str = ""
    size: int = 0
    channels: int = 3
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self.channels in (1, 3), "folder needs channels of 1 or 3", self.channels, "pass one of them")
        need(self.size >= 0, "folder needs a size >= 0", self.size, "pass the pixels of a side, or 0")
        need(0 < self.test_fraction < 1, "folder needs a test_fraction in (0, 1)", self.test_fraction, "pass a share")

    @property
    def source(self) -> str:
        """What error messages call this data."""
        return self.root

    def test_order(self, y: Tensor) -> Tensor:
        """Return a shuffled order, always the same."""
        return torch.randperm(len(y), generator=generator(0, "test order"))

    def arrays(self) -> Arrays:
        """Read all images: (n, channels, h, w) uint8."""
        root, asked = Path(self.root).expanduser(), "folder needs images by class below its root"
        need(self.root and root.is_dir(), asked, f"{self.root!r}", "pass a folder")
        train = root / "train" if (root / "train").is_dir() else root
        names = _classes(train)
        halves = {"test", "val"} & set(names) if train == root else set()
        need(len(names) > 1 and not halves, asked, f"{', '.join(names) or 'no folder'} in {train}", "pass another folder")
        files = _images(train, names)
        if train == root:
            files, tests = self._cut(files)
        else:
            tests = _images(_test_folder(root, names), names)
        return Arrays(*self._read(files), *self._read(tests), names)

    def _cut(self, files: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
        labels = torch.tensor([label for _, label in files])
        size = min(max(round(self.test_fraction * len(files)), 1), len(files) - 1)
        chosen = set(stratified(labels, size, generator(0, "test rows")).tolist())
        split: tuple[list[Labelled], list[Labelled]] = ([], [])
        for index, file in enumerate(files):
            split[index in chosen].append(file)
        return split

    def _read(self, files: list[Labelled]) -> tuple[Tensor, Tensor]:
        first = self._image(files[0][0])
        x = np.empty((len(files), *first.shape), np.uint8)
        for row, (file, _) in enumerate(files):
            image = self._image(file)
            got = f"{image.shape[1:]} in {file} and {first.shape[1:]} in {files[0][0]}"
            need(image.shape == first.shape, "folder needs images of one size", got, "pass size to resize them")
            x[row] = image
        return torch.from_numpy(x), torch.tensor([label for _, label in files])

    def _image(self, file: Path) -> NDArray[np.uint8]:
        from PIL import Image, UnidentifiedImageError

        with reading(file, "an image of 8 bits per channel") as content:
            try:
                opened = Image.open(io.BytesIO(content))
            except UnidentifiedImageError:
                raise ValueError("a format that pillow does not know") from None
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of mode {opened.mode}")
            image = opened.convert("RGB" if self.channels == 3 else "L")
            if self.size:
                image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(image.height, image.width, self.channels).transpose(2, 0, 1)


def _classes(folder: Path) -> tuple[str, ...]:
    inside = folder.iterdir() if folder.is_dir() else ()
    return tuple(sorted(entry.name for entry in inside if entry.is_dir() and not entry.name.startswith(".")))


def _test_folder(root: Path, names: tuple[str, ...]) -> Path:
    """Return root/test or root/val, the first that has a class of the training split."""
    for folder in (root / "test", root / "val"):
        found = set(_classes(folder))
        if found & set(names):
            strange = ", ".join(sorted(found - set(names)))
            need(not strange, f"{folder} needs classes that train has", strange, "remove them, or train on them")
            return folder
    raise ValueError(f"{root} needs test/CLASS or val/CLASS beside train; neither holds a class of train; add one")


def _images(folder: Path, names: tuple[str, ...]) -> list[Labelled]:
    """List the images of the classes, class by class, in the order of their names."""
    files: list[Labelled] = []
    for label, name in enumerate(names):
        inside = sorted(path for path in (folder / name).rglob("[!.]*") if path.suffix.lower() in SUFFIXES)
        files += [(file, label) for file in inside]
    need(len(files) > 1, f"{folder} needs images ({', '.join(SUFFIXES)})", len(files), "point at another folder")
    return files
