"""Sparse frames: a few frames of a clip may change."""

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
class SparseFrames:
    """A few frames of a clip, which the attacker chooses, may change; the others stay as they are.

    Options
        frames  how many frames
        eps     largest change of a pixel of such a frame, in pixels of [0, 1]; 1: any

    Raises ValueError unless frames >= 1 and 0 <= eps <= 1, and for what is no clip (b, c, t, h, w).
    Source: Wei et al. 2019, arXiv:1803.02536 (sparse adversarial perturbations for videos). Differs: a bound on the number
    of frames and on pixels instead of a penalty.
    """

    name: ClassVar[str] = "sparse_frames"

    frames: int = 1
    eps: float = 8 / 255

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")
        check_sizes(self.name, frames=self.frames)

    def around(self, x: Images, *, generator: Generator) -> Region:
        clip_or_refuse(x, self.name)
        inner = Linf(eps=self.eps).around(x, generator=generator)
        return SparseRegion(inner, x, self.frames, self.name, shared=(1, 3, 4))
