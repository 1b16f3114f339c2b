"""A folder of images by class."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..seeding import generator
from ..utils.run_folder import IMAGES
from .array_checks import Arrays, need
from .files import reading
from .tensors import TensorData, stratified

UNREAD = (
    ".tif",
    ".tiff",
    ".gif",
    ".avif",
    ".heic",
    ".jp2",
    ".pgm",
    ".jfif",
)  # images too, which would be missing without a word
TRAIN, TEST, VAL = ("train", "training"), ("test", "testing"), ("val", "valid", "validation")  # in any case
LEFT = ("__pycache__", "__macosx", "lost+found", "@eadir")  # folders that programs leave behind
Labelled = tuple[Path, int]


@dataclass(frozen=True, kw_only=True)
class ImageFolder(TensorData):
    """Images in root/train/CLASS and root/test/CLASS (or root/val/CLASS); or in root/CLASS, with test images cut from them.

    Splits may be written training, testing, valid and validation too, in any case. Hidden folders and folders of programs
    (`__pycache__`, `__MACOSX`) are ignored, and so are files beside the class folders; a class without images is refused.
    Reads png, jpg, jpeg, bmp, webp and ppm of 8 bits, at any depth below CLASS, links followed; classes in the order of
    their names, which are those of the training split. A class may be without a folder in the test split.
    The cut is always the same, whatever `split_seed`, so that no run tests on images that another trained on.
    The test images come in a fixed shuffled order, because sorted by class they would make batches of one class; `ids` are
    indexes into the sorted file names.

    Options (others as in `TensorData`)
        root            the folder
        size            resize to size x size pixels; 0: keep them, all must have one size
        channels        3 for colour, 1 for grey; images are converted
        test_fraction   share of the images used for testing; only allowed if there is no test folder
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
        train = _split(root, TRAIN)
        names = _classes(train or root)
        need(len(names) > 1, asked, f"{', '.join(names) or 'no folder'} in {train or root}", "pass another folder")
        if train is None:
            halves = ", ".join(name for name in names if name.lower() in (*TEST, *VAL))
            need(not halves, asked, f"{halves} in {root}, and no train", "add root/train/CLASS, or rename the class")
            files, tests = self._cut(_images(root, names))
        else:
            test = _test_folder(root, names)
            default = type(self).test_fraction
            need(
                self.test_fraction == default,
                f"test_fraction is for folders without a test folder, and {test} is one",
                f"test_fraction {self.test_fraction}",
                f"leave it out, or give {default}",
            )
            files, tests = _images(train, names), _images(test, names, missing=True)
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


def _folders(folder: Path) -> list[str]:
    """The folders in a folder, in the order of their names, without those that are hidden or that programs leave."""
    inside = folder.iterdir() if folder.is_dir() else ()
    return sorted(one.name for one in inside if one.is_dir() and one.name[0] != "." and one.name.lower() not in LEFT)


def _split(root: Path, spellings: tuple[str, ...]) -> Path | None:
    """Return the folder of a split, if there is one. Raises ValueError for two of them."""
    found = [name for name in _folders(root) if name.lower() in spellings]
    need(len(found) < 2, f"{root} needs one folder per split", " and ".join(found), "join them, or move one away")
    return root / found[0] if found else None


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the class folders. Raises ValueError for one that holds splits of its own."""
    names = _folders(folder)
    for name in names:
        halves = [inner for inner in _folders(folder / name) if inner.lower() in (*TRAIN, *TEST, *VAL)]
        told = f"{', '.join(halves)} in {folder / name}"
        need(not halves, f"{folder} needs splits above its classes", told, "give ROOT/train/CLASS and ROOT/test/CLASS")
    return tuple(names)


def _test_folder(root: Path, names: tuple[str, ...]) -> Path:
    """Return the folder of the test split, else of validation: the first that has a class of the training split."""
    for folder in filter(None, (_split(root, TEST), _split(root, VAL))):
        found = set(_folders(folder))
        if found & set(names):
            strange = ", ".join(sorted(found - set(names)))
            need(not strange, f"{folder} needs classes that train has", strange, "remove them, or train on them")
            return folder
    raise ValueError(f"{root} needs test/CLASS or val/CLASS beside train; neither holds a class of train; add one")


def _images(folder: Path, names: tuple[str, ...], missing: bool = False) -> list[Labelled]:
    """List the images of the classes, class by class, in the order of their names.

    Raises ValueError for a class without images (of the test split its folder may be `missing`), and for images that are not read.
    """
    files: list[Labelled] = []
    for label, name in enumerate(names):
        if missing and not (folder / name).exists():
            continue
        inside = _files(folder / name)
        unread = next((path for path in inside if path.suffix.lower() in UNREAD), None)
        kinds = ", ".join(IMAGES)
        need(unread is None, f"{folder / name} needs images of {kinds}", f"{unread}", "convert them, or move them away")
        found = [(path, label) for path in inside if path.suffix.lower() in IMAGES]
        need(found, f"class {name} needs images ({kinds}) in {folder / name}", "none", "add some, or remove that folder")
        files += found
    need(len(files) > 1, f"{folder} needs images", len(files), "point at another folder")
    return files


def _files(folder: Path) -> list[Path]:
    """All files below a folder that are not hidden, sorted. Links are followed, each folder once."""
    files, seen = list[Path](), set[Path]()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        files += [here / name for name in names if name[0] != "."]
    return sorted(files)
