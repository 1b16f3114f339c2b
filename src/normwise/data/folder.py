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
from .array_checks import Arrays, need
from .cache import Listing, cache_folder, holds, keep, read
from .files import reading
from .listing import PICTURES, Labelled, labelled, test_folder, train_folder, validation_folder
from .tensors import TensorData, stratified

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")  # no other reader of pillow is run; that of EPS starts a program
PIXELS = 2**26  # of an image, at most


@dataclass(frozen=True, kw_only=True)
class ImageFolder(TensorData):
    """Images in root/train/CLASS and root/test/CLASS (or root/val/CLASS); or in root/CLASS, with test images cut from them.

    With all three, those of val are validation images; without, `validation_size` takes some from another split. Splits may
    be written training, testing, valid and validation too, in any case. Hidden folders and folders of programs
    (`__pycache__`, `__MACOSX`) are ignored, and so are files beside the class folders; a class without images is refused.
    Reads png, jpg, jpeg, bmp, webp and ppm of 8 bits, at any depth below CLASS, links followed; classes in the order of
    their names, which are those of the training split. A class may be without a folder in the test split. The cut is always
    the same, whatever `split_seed`, so that no run tests on images that another trained on. The test images come in a fixed
    shuffled order, because sorted by class they would make batches of one class; `ids` are indexes into the sorted file
    names.

    Options (others as in `TensorData`)
        root            the folder
        size            resize to size x size pixels; 0: keep them, all must have one size
        channels        3 for colour, 1 for grey; images are converted
        test_fraction   share of the images used for testing; only allowed if there is no test folder
        cache           where decoded images are kept, as a checksummed file from which only the rows in use are read into memory: for more
                        images than memory holds. Empty: all are held in memory
    """

    name: ClassVar[str] = "folder"

    root: str = ""
    size: int = 0
    channels: int = 3
    test_fraction: float = 0.2
    cache: str = ""

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
        root, train, names = train_folder(self.root, "folder", PICTURES)
        held: list[Labelled] = []
        if train is None:
            files, tests = self._cut(labelled(root, names, PICTURES))
        else:
            test = test_folder(root, names)
            default = type(self).test_fraction
            need(
                self.test_fraction == default,
                f"test_fraction is for folders without a test folder, and {test} is one",
                f"test_fraction {self.test_fraction}",
                f"leave it out, or give {default}",
            )
            files, tests = labelled(train, names, PICTURES), labelled(test, names, PICTURES, missing=True)
            if (val := validation_folder(root, test, names)) is not None:
                held = labelled(val, names, PICTURES, missing=True)
        halves = {"train": files, "test": tests} | ({"val": held} if held else {})
        parts = self._mapped(root, halves, names) if self.cache else [self._read(half) for half in halves.values()]
        train_part, test_part, *own = parts
        return Arrays(*train_part, *test_part, names, *(own[0] if own else ()))

    def _mapped(self, root: Path, halves: dict[str, list[Labelled]], names: tuple[str, ...]) -> list[tuple[Tensor, Tensor]]:
        """Pixels and labels of each split, mapped from the file of decoded images."""
        files = [file for half in halves.values() for file in half]
        paths = {path.relative_to(root).as_posix(): path for path, _ in files}
        y = torch.tensor([label for _, label in files])
        sides, first = [side for side, half in halves.items() for _ in half], self._image(files[0][0])
        listing = Listing(files=[*paths], labels=y.tolist(), sides=sides, names=names)
        where = cache_folder("images", Path(self.cache).expanduser(), root, listing, f"{self.size} {self.channels}")
        if not holds("images", where):
            keep("images", where, listing, first.shape, lambda file: self._alike(paths[file], first, files[0][0]))
        sizes = [len(half) for half in halves.values()]
        return list(zip(read("images", where)[1].split(sizes), y.split(sizes), strict=True))

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
            x[row] = self._alike(file, first, files[0][0])
        return torch.from_numpy(x), torch.tensor([label for _, label in files])

    def _alike(self, file: Path, first: NDArray[np.uint8], its: Path) -> NDArray[np.uint8]:
        """An image, of the size of the first."""
        image = self._image(file)
        got = f"{image.shape[1:]} in {file} and {first.shape[1:]} in {its}"
        need(image.shape == first.shape, "folder needs images of one size", got, "pass size to resize them")
        return image

    def _image(self, file: Path) -> NDArray[np.uint8]:
        from PIL import Image, UnidentifiedImageError

        with reading(file, "an image of 8 bits per channel") as content:
            try:
                opened = Image.open(io.BytesIO(content), formats=FORMATS)
            except UnidentifiedImageError:
                raise ValueError("a format that pillow does not know") from None
            if opened.width * opened.height > PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels, more than {PIXELS:,}")
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"pixels of mode {opened.mode}")
            image = opened.convert("RGB" if self.channels == 3 else "L")
            if self.size:
                image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
            return np.asarray(image).reshape(image.height, image.width, self.channels).transpose(2, 0, 1)
