"""A mask over a threat model: only some pixels may move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from ..seeding import by_row
from ..types import Images, PerRow, Region, Rows
from ..utils import per_row as views
from .lp import Linf, check_eps

Mask = Bool[Tensor, "*mask"]  # which pixels may change; broadcast over images


class MaskedRegion:
    """What `inner` allows around x, where `mask` (true: may move; broadcast over x) says so."""

    def __init__(self, inner: Region, x: Images, mask: Mask, kind: str) -> None:
        self.inner, self.x, self.mask, self.kind = inner, x, mask.expand(x.shape), kind
        self.radius, self.victims, self.generator = inner.radius, inner.victims, inner.generator

    def start(self) -> Images:
        return self.project(self.inner.start())

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        return torch.where(self.mask, self.inner.ascend(x_adv, grad * self.mask, size), x_adv)

    def project(self, x_adv: Images) -> Images:
        return self.inner.project(torch.where(self.mask, x_adv, self.x))

    def distance(self, x_adv: Images) -> PerRow:
        return self.inner.distance(x_adv)

    def contains(self, x_adv: Images) -> Rows:
        return self.inner.contains(x_adv) & views.flat(self.mask | (x_adv == self.x)).all(1)

    def select(self, rows: Tensor) -> MaskedRegion:
        return MaskedRegion(self.inner.select(rows), self.x[rows], self.mask[rows], self.kind)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A square anywhere on the picture may change: a sticker. In a clip it is at the same place in every frame.

    Options
        size    side in pixels; cut where the picture is smaller. In a row of numbers or a signal, the length of a segment
        eps     largest change of a pixel inside the square, in pixels of [0, 1]; 1: any

    Each region draws a place per row, from its generator, and each restart of PGD and APGD another; an image is allowed if a
    square of this size, anywhere, covers all that changed. Raises ValueError unless size >= 1 and 0 <= eps <= 1.
    Source: Brown et al. 2017, arXiv:1712.09665, in the image-specific white-box form of Wu et al. 2020, arXiv:1909.09552.
    """

    name: ClassVar[str] = "patch"

    size: int = 5
    eps: float = 1.0

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")
        check_sizes(self.name, size=self.size)

    def around(self, x: Images, *, generator: Generator) -> Region:
        return in_a_patch(Linf(eps=self.eps).around(x, generator=generator), x, self.size, generator)


class PatchRegion(MaskedRegion):
    """A patch at one place per row; any other place is as good.

    `corner` (b, axes) is where the square begins on the axes of the picture. Places are numbered row by row, from 0 to
    `places` - 1.
    """

    def __init__(self, inner: Region, x: Images, corner: Tensor, size: int) -> None:
        super().__init__(inner, x, squares(x, corner, size), Patch.name)
        self.corner, self.size = corner, size
        self.steps = [max(x.shape[axis] - size, 0) + 1 for axis in plane(x)]  # places along each axis

    @property
    def places(self) -> int:
        """How many places there are."""
        return math.prod(self.steps)

    @property
    def place(self) -> Tensor:
        """The number of each row's place."""
        return self._numbers(self.corner)

    def elsewhere(self) -> Region:
        """The same, at places drawn anew."""
        return PatchRegion(self.inner, self.x, _draw(self.x, self.size, self.generator), self.size)

    def placed(self, rows: Tensor, places: Tensor) -> PatchRegion:
        """The same around these rows (indices, which may repeat), each with its patch at the place of this number."""
        corner = (
            places[:, None] if len(self.steps) == 1 else torch.stack([places // self.steps[1], places % self.steps[1]], 1)
        )
        return PatchRegion(self.inner.select(rows), self.x[rows], corner, self.size)

    def moved(self, by: Tensor) -> Tensor:
        """The numbers of the places that lie so many pixels (b, axes) from the present ones, or at the border before them."""
        most = torch.tensor(self.steps, device=self.corner.device) - 1
        return self._numbers((self.corner + by).clamp_min(0).minimum(most))

    def sums(self, values: Images) -> Tensor:
        """Sum values of pixels, channels and frames together, over the square at each place: (b, places)."""
        others = [axis for axis in range(1, values.ndim) if axis not in plane(values)]
        sums = values.sum(others) if others else values
        for axis in range(1, sums.ndim):
            sums = sums.unfold(axis, min(self.size, sums.shape[axis]), 1).sum(-1)
        return sums.flatten(1)

    def cut(self, x_adv: Images) -> Tensor:
        """What lies under each row's square: (b, c, ..., side, side)."""
        lengths = [min(self.size, x_adv.shape[axis]) for axis in plane(x_adv)]
        others = [n for axis, n in enumerate(x_adv.shape) if axis not in plane(x_adv)]
        return x_adv[self.mask].view(*others, *lengths)

    def pasted(self, patch: Tensor) -> Images:
        """The images with this under the square, as near as is allowed, and clean elsewhere."""
        return self.project(self.x.masked_scatter(self.mask, patch.to(self.x)))

    def contains(self, x_adv: Images) -> Rows:
        inside = self.inner.contains(x_adv)
        for axis in plane(self.x):
            size = _extent(self.mask, axis)
            inside &= _extent(x_adv != self.x, axis) <= size
        return inside

    def select(self, rows: Tensor) -> PatchRegion:
        return PatchRegion(self.inner.select(rows), self.x[rows], self.corner[rows], self.size)

    def _numbers(self, corner: Tensor) -> Tensor:
        return corner[:, 0] if len(self.steps) == 1 else corner[:, 0] * self.steps[1] + corner[:, 1]


def in_a_patch(inner: Region, x: Images, size: int, generator: Generator) -> Region:
    """What `inner` allows in a square of this side, anywhere."""
    return PatchRegion(inner, x, _draw(x, size, generator), size)


def _draw(x: Images, size: int, generator: Generator) -> Tensor:
    """Per row, where a square of this side begins: a random place (b, axes)."""
    places = [max(x.shape[axis] - size, 0) + 1 for axis in plane(x)]
    draws = [by_row(lambda n: torch.rand(n, generator=generator, dtype=torch.float32), len(x)) for _ in places]
    return torch.stack([(draw * n).long() for draw, n in zip(draws, places, strict=True)], 1).to(x.device)


def squares(x: Images, corner: Tensor, size: int) -> Mask:
    """Per row, the pixels of a square of this side that begins at this corner."""
    mask = torch.ones_like(x, dtype=torch.bool)
    for axis, first in zip(plane(x), corner.unbind(1), strict=True):
        length = x.shape[axis]
        at = torch.arange(length, device=x.device)
        inside = (at >= first[:, None]) & (at < first[:, None] + size)
        mask &= inside.view(len(x), *(length if other == axis else 1 for other in range(1, x.ndim)))
    return mask


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The border of the picture may change: the image in a frame. In a clip, of every frame.

    Options
        width   pixels of the border, on every side. In a row of numbers or a signal, at both ends
        eps     largest change of a pixel of the border, in pixels of [0, 1]; 1: any

    Raises ValueError unless width >= 1 and 0 <= eps <= 1.
    Source: Zajac et al. 2019, arXiv:1812.04599. Differs: the border covers pixels of the image instead of being added.
    """

    name: ClassVar[str] = "frame"

    width: int = 2
    eps: float = 1.0

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")
        check_sizes(self.name, width=self.width)

    def around(self, x: Images, *, generator: Generator) -> Region:
        return in_a_frame(Linf(eps=self.eps).around(x, generator=generator), x, self.width)


def in_a_frame(inner: Region, x: Images, width: int) -> Region:
    """What `inner` allows in a border of this width."""
    mask = torch.zeros(x.shape[1:], dtype=torch.bool, device=x.device)
    for axis in plane(x):
        at = torch.arange(x.shape[axis], device=x.device)
        outer = (at < width) | (at >= x.shape[axis] - width)
        mask |= outer.view(*(x.shape[axis] if other == axis else 1 for other in range(1, x.ndim)))
    return MaskedRegion(inner, x, mask, Frame.name)


def check_sizes(threat: str, **sizes: int) -> None:
    """Refuse numbers of pixels or frames below 1. Raises ValueError."""
    for option, value in sizes.items():
        if value < 1:
            raise ValueError(f"{option} of {threat} is a count; got {value}; give a whole number >= 1")


def plane(x: Images) -> tuple[int, ...]:
    """The axes of a picture: the last two of images and clips, the last of a signal or a row of numbers."""
    return (x.ndim - 2, x.ndim - 1) if x.ndim > 3 else (x.ndim - 1,)


def _extent(changed: Tensor, axis: int) -> Tensor:
    """Per row, how long a segment of this axis covers all that changed."""
    others = [other for other in range(1, changed.ndim) if other != axis]
    along = (changed.amax(others) if others else changed).long()  # (b, length)
    length = along.shape[1]
    first, last = along.argmax(1), length - 1 - along.flip(1).argmax(1)
    return torch.where(along.any(1), last - first + 1, 0)
