"""What a corruption is: a change of one image, five settings for small images and five for large ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from ...seeding import draw
from ...types import Images
from ...utils.batches import range_problem
from ..array_checks import need

Picture = NDArray[np.float64]  # one image (h, w, c), pixels in [0, 1]
SEVERITIES = (1, 2, 3, 4, 5)
SMALL, LARGE = 32, 224  # pixels a side, for which the two tables were published
LIMIT = 64  # up to this side the table for small images holds
LEAST = 4


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind of corruption, in five severities.

    Images are taken as files hold them: rounded to 1/255 before, cut down to whole 1/255 after, as the published code does.
    Images with a side of up to 64 pixels get the settings of CIFAR-10-C, whose lengths in pixels grow by side / 32 and never
    shrink (a blur of a quarter of a pixel would do nothing); larger ones those of ImageNet-C, with lengths times side / 224.
    The side of an image is its shorter one. Any number of channels.

    Options
        name        its name, as the files of CIFAR-10-C are called
        family      noise, blur, weather or digital
        about       what it does, in a few words
        small       the settings of CIFAR-10-C, by severity
        large       the settings of ImageNet-C
        change      makes one image: (picture, setting, scale of lengths, random numbers) -> picture, not yet cut to [0, 1]
        stand_in    what is used here in place of what the authors used; empty: nothing is replaced

    >>> from normwise.data.corruptions import CORRUPTIONS
    >>> CORRUPTIONS["contrast"](torch.zeros(2, 1, 8, 8), 3, generator=torch.Generator()).shape
    torch.Size([2, 1, 8, 8])
    """

    name: str
    family: str
    about: str
    small: tuple[Any, ...]
    large: tuple[Any, ...]
    change: Callable[[Picture, Any, float, np.random.Generator], Picture]
    stand_in: str = ""

    def __call__(self, x: Images, severity: int, *, generator: Generator) -> Images:
        """Corrupt a batch of images; x and the global random state stay as they are.

        Each image has random numbers of its own, from one draw of the generator. Raises ValueError for a severity that is
        not 1 to 5, for clips, and for images under 4 pixels a side.
        """
        check_severity(severity)
        shape = tuple(x.shape)
        need(x.ndim == 4, f"{self.name} corrupts images (b, c, h, w)", shape, "give single frames in place of clips")
        need(min(shape[2:]) >= LEAST, f"{self.name} needs images of {LEAST} pixels a side", shape, "give larger images")
        need(x.is_floating_point(), f"{self.name} corrupts floats in [0, 1]", x.dtype, "divide by 255")
        if problem := range_problem(x):
            raise ValueError(f"{self.name} corrupts pixels in [0, 1]; got {problem}")
        setting, scale = self.at(min(shape[2:]), severity)
        made = np.empty((len(x), *shape[2:], shape[1]))
        pictures = np.round(255 * x.detach().cpu().double().movedim(1, -1).numpy()) / 255
        for picture, place in zip(pictures, made, strict=True):
            place[:] = self.change(picture, setting, scale, np.random.default_rng(draw(generator)))
        cut = np.floor(255 * made.clip(0, 1) + 1e-6) / 255  # 77.0 that came out as 76.999... stays 77
        return torch.from_numpy(cut).movedim(-1, 1).float().contiguous().to(x.device)

    def at(self, side: int, severity: int) -> tuple[Any, float]:
        """The setting for images of this side, and by how much its lengths in pixels are multiplied."""
        if side <= LIMIT:
            return self.small[severity - 1], max(1.0, side / SMALL)
        return self.large[severity - 1], side / LARGE


def check_severity(severity: int) -> None:
    """Raise ValueError for a severity that is not 1 to 5."""
    need(severity in SEVERITIES, "a severity is a whole number from 1 to 5", severity, "give 1 (least) to 5")
