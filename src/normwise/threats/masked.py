"""A mask over a threat model: only some pixels may move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from ..types import Images, PerRow, Region, Rows
from ..utils import per_row as views
from .lp import Linf, check_eps
from .pixels import OwnPixels

Mask = Bool[Tensor, "*mask"]  # which pixels may change; broadcast over images


class MaskedRegion(OwnPixels):
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

    def select(self, rows: Tensor) -> Region:
        return MaskedRegion(self.inner.select(rows), self.x[rows], self.mask[rows], self.kind)


@dataclass(frozen=True, kw_only=True)
class Patch:
    """A square anywhere on the picture may change: a sticker. In a clip it is at the same place in every frame.

    Options
        size    side in pixels; cut where the picture is smaller. In a row of numbers or a signal, the length of a segment
        eps     largest change of a pixel inside the square, in pixels of [0, 1]; 1: any

    Each region draws a place per row, from its generator, and each restart of PGD and APGD another; an image is allowed if a square of this size, anywhere, covers all
    that changed. Raises ValueError unless size >= 1 and 0 <= eps <= 1.
    Source: Brown et al. 2017, arXiv:1712.09665, in the image-specific white-box form of Wu et al. 2020, arXiv:1909.09552.
    """

    name: ClassVar[str] = "patch"

    size: int = 5
    eps: float = 1.0

    def __post_init__(self) -> None:
        _check(self.name, self.eps, size=self.size)

    def around(self, x: Images, *, generator: Generator) -> Region:
        mask = _squares(x, self.size, generator)
        return _PatchRegion(Linf(eps=self.eps).around(x, generator=generator), x, mask, self.size)


class _PatchRegion(MaskedRegion):
    """A patch at one place; any other place is as good."""

    def __init__(self, inner: Region, x: Images, mask: Mask, size: int) -> None:
        super().__init__(inner, x, mask, Patch.name)
        self.size = size

    def elsewhere(self) -> Region:
        """The same, at places drawn anew."""
        return _PatchRegion(self.inner, self.x, _squares(self.x, self.size, self.generator), self.size)

    def contains(self, x_adv: Images) -> Rows:
        inside = self.inner.contains(x_adv)
        for axis in _plane(self.x):
            size = _extent(self.mask, axis)
            inside &= _extent(x_adv != self.x, axis) <= size
        return inside

    def select(self, rows: Tensor) -> Region:
        return _PatchRegion(self.inner.select(rows), self.x[rows], self.mask[rows], self.size)


def _squares(x: Images, size: int, generator: Generator) -> Mask:
    """Per row, the pixels of a square of this side at a random place."""
    mask = torch.ones_like(x, dtype=torch.bool)
    for axis in _plane(x):
        length = x.shape[axis]
        places = max(length - size, 0) + 1
        first = (torch.rand(len(x), generator=generator) * places).long().to(x.device)
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
        _check(self.name, self.eps, width=self.width)

    def around(self, x: Images, *, generator: Generator) -> Region:
        mask = torch.zeros(x.shape[1:], dtype=torch.bool, device=x.device)
        for axis in _plane(x):
            at = torch.arange(x.shape[axis], device=x.device)
            outer = (at < self.width) | (at >= x.shape[axis] - self.width)
            mask |= outer.view(*(x.shape[axis] if other == axis else 1 for other in range(1, x.ndim)))
        return MaskedRegion(Linf(eps=self.eps).around(x, generator=generator), x, mask, self.name)


def _check(threat: str, eps: float, **sizes: int) -> None:
    check_eps(threat, eps, 1, "an image and any other lie within 1")
    for option, value in sizes.items():
        if value < 1:
            raise ValueError(f"{option} of {threat} is a number of pixels; got {value}; give a whole number >= 1")


def _plane(x: Images) -> tuple[int, ...]:
    """The axes of a picture: the last two of images and clips, the last of a signal or a row of numbers."""
    return (x.ndim - 2, x.ndim - 1) if x.ndim > 3 else (x.ndim - 1,)


def _extent(changed: Tensor, axis: int) -> Tensor:
    """Per row, how long a segment of this axis covers all that changed."""
    others = [other for other in range(1, changed.ndim) if other != axis]
    along = (changed.amax(others) if others else changed).long()  # (b, length)
    length = along.shape[1]
    first, last = along.argmax(1), length - 1 - along.flip(1).argmax(1)
    return torch.where(along.any(1), last - first + 1, 0)
