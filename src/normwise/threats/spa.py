"""Salt and pepper: a few pixels of a picture may take any colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator

from ..types import Images, Region
from .lp import Linf, check_eps
from .masked import check_sizes
from .pixels import clip_or_refuse
from .sparse import SparseRegion


@dataclass(frozen=True, kw_only=True)
class SPA:
    """A few pixels, which the attacker chooses, may change in all their channels.

    Options
        pixels      how many pixels of an image or clip. In a row of numbers, how many numbers
        per_frame   in a clip: so many pixels of each frame, and others in each
        eps         largest change of a channel of such a pixel, in pixels of [0, 1]; 1: any

    Raises ValueError unless pixels >= 1 and 0 <= eps <= 1, and where `per_frame` meets what is no clip.
    Source: Lo and Patel 2021, arXiv:2009.05244 (100 pixels of each frame of 112 x 112). Differs: pixels are chosen by the
    attack instead of at random.
    """

    name: ClassVar[str] = "spa"

    pixels: int = 10
    per_frame: bool = False
    eps: float = 1.0

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")
        check_sizes(self.name, pixels=self.pixels)

    def around(self, x: Images, *, generator: Generator) -> Region:
        if self.per_frame:
            clip_or_refuse(x, "spa with per_frame")
        inner, channels = Linf(eps=self.eps).around(x, generator=generator), (1,) if x.ndim > 2 else ()
        return SparseRegion(inner, x, self.pixels, self.name, shared=channels, per_frame=self.per_frame)
