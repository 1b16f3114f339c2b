"""Walks of random search in regions of few pixels: the present point of some rows, and one change of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from typing import Any

import torch
from torch import Tensor

from ..threats.masked import plane, squares
from ..types import Images, Region, Rows
from ..utils.per_row import over

# after so many of 10,000 queries a first share is divided by the next of its numbers
AFTER = 50, 200, 500, 1000, 2000, 4000, 6000, 8000
PIXELS, PIXELS_BY = 0.3, (2, 4, 5, 6, 8, 10, 12, 15, 20)  # first share of the pixels that are exchanged
AREA, AREA_BY = 0.4, (2, 4, 8, 16, 32, 64, 128, 256, 512)  # first share of the area that is coloured anew
MOVES, REACH = 4, 0.75  # one change in so many moves the patch, at first by up to this share of the picture's side
FRAME = 0.5  # first share of the frame's squared width that is the side of a square, in steps of 3 pixels


class SparseWalk(ABC):
    """The present images of some rows, with what else there is to know of them, and a change that may become the next."""

    region: Any  # of the walk's kind

    def __init__(self, region: Region, x: Images) -> None:
        self.region, self.x, self.generator = region, x, region.generator
        self.state = self.pending = self._first()

    @property
    def now(self) -> Images:
        """The present images."""
        return self.state[0]

    def propose(self, progress: float) -> Images:
        """Change each row at random; `progress` goes from 0 to 1, and changes become smaller."""
        self.pending = self._change(progress)
        return self.pending[0]

    def accept(self, rows: Rows) -> None:
        """Let these rows go on from what was proposed last."""
        pairs = zip(self.state, self.pending, strict=True)
        self.state = tuple(torch.where(over(rows, new), new, old) for old, new in pairs)

    def keep(self, rows: Rows) -> None:
        """Let the other rows go."""
        self.region, self.x = self.region.select(rows), self.x[rows]
        self.state = self.pending = tuple(part[rows] for part in self.state)

    @abstractmethod
    def _first(self) -> tuple[Tensor, ...]:
        """The first images, and what else changes with them."""

    @abstractmethod
    def _change(self, progress: float) -> tuple[Tensor, ...]:
        """The same, changed."""

    def _draw(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float32).to(self.x.device)


def share(first: float, by: tuple[int, ...], progress: float) -> float:
    """How large a change is, after this part of the queries.

    >>> share(PIXELS, PIXELS_BY, 0.0), share(PIXELS, PIXELS_BY, 1.0)
    (0.15, 0.015)
    """
    return first / by[bisect_left(AFTER, progress * 10_000)]


class PixelWalk(SparseWalk):
    """Some of the pixels that differ from the clean image are given back, and as many others change."""

    def _first(self) -> tuple[Tensor, ...]:
        chosen = self.region.largest(self._draw(*self.region.sums(self.x).shape))
        return self._coloured(self.x, chosen), chosen

    def _change(self, progress: float) -> tuple[Tensor, ...]:
        now, chosen = self.state
        units = chosen.shape[2]
        held = min(self.region.count, units)
        some = max(1, round(share(PIXELS, PIXELS_BY, progress) * held))
        draws = self._draw(*chosen.shape)
        given = self._mask(draws.masked_fill(~chosen, -1), some if held == units else min(some, units - held))
        taken = given if held == units else self._mask(draws.masked_fill(chosen, -1), min(some, units - held))
        clean = torch.where(self.region.spread(given), self.x, now)
        return self._coloured(clean, taken), chosen & ~given | taken

    def _mask(self, scores: Tensor, count: int) -> Tensor:
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(2, scores.topk(count, dim=2).indices, True)

    def _coloured(self, images: Images, chosen: Tensor) -> Images:
        """The images with these pixels in random colours."""
        colours = (self._draw(*self.x.shape) < 0.5).to(self.x)
        coloured: Images = self.region.inner.project(torch.where(self.region.spread(chosen), colours, images))
        return coloured


class FrameWalk(SparseWalk):
    """A square around a pixel that may change, as far as it may, takes another colour."""

    late = 0.75  # from here on one channel of a single pixel changes at a time

    def _first(self) -> tuple[Tensor, ...]:
        axes, shape = plane(self.x), list(self.x.shape)
        for axis in set(range(2, self.x.ndim)) - set(axes):
            shape[axis] = 1  # in a clip, the same in all frames
        colours = (self._draw(*shape) < 0.5).to(self.x)
        return (self.region.project(colours.expand_as(self.x)),)

    def _change(self, progress: float) -> tuple[Tensor, ...]:
        return (self._square(progress),)

    def _square(self, progress: float) -> Images:
        axes, mask = plane(self.x), self.region.mask
        others = [axis for axis in range(1, mask.ndim) if axis not in axes]
        open_ = mask.amax(others) if others else mask  # (b, h, w)
        side = max(1, self._side(open_[0], progress))
        centre = (self._draw(*open_.shape) * open_).flatten(1).argmax(1)
        width = open_.shape[-1]
        at = centre[:, None] if len(axes) == 1 else torch.stack([centre // width, centre % width], 1)
        colour = self._another(squares(self.x, at, 1), one_channel=side == 1 and progress > self.late)
        square = squares(self.x, at - (side - 1) // 2, side)
        coloured: Images = self.region.project(torch.where(square, colour, self.now))
        return coloured

    def _side(self, open_: Tensor, progress: float) -> int:
        """How long the side of a square is, which changes in these pixels (h, w)."""
        line = open_ if open_.ndim == 1 else open_[len(open_) // 2]  # it crosses the frame twice
        return 3 * math.ceil(FRAME * (0.5 - progress) * (int(line.sum()) // 2) ** 2)

    def _another(self, pixel: Tensor, *, one_channel: bool) -> Tensor:
        """One colour per row that this pixel does not have, in any of its channels or in one: (b, c, 1, ...)."""
        x, others = self.x, list(range(2, self.x.ndim))
        middle = (self.region.project(torch.ones_like(x)) + self.region.project(torch.zeros_like(x))) / 2
        bright = (pixel & (self.now > middle)).amax(others or 1, keepdim=True)
        flips = self._draw(*bright.shape) < (0 if one_channel else 0.5)
        one = torch.zeros_like(flips).scatter_(1, self._draw(*bright.shape).argmax(1, keepdim=True), True)
        return (bright ^ torch.where(flips.any(1, keepdim=True), flips, one)).to(x)


class PatchWalk(FrameWalk):
    """The same in a patch, which sometimes moves with what it shows."""

    late = 0.5

    def __init__(self, region: Region, x: Images) -> None:
        super().__init__(region, x)
        self.changes = 0

    def _first(self) -> tuple[Tensor, ...]:
        return *super()._first(), self.region.place

    def accept(self, rows: Rows) -> None:
        super().accept(rows)
        self.region = self._placed(self.state[1])

    def _change(self, progress: float) -> tuple[Tensor, ...]:
        self.changes += 1
        if self.changes % MOVES or self.region.places == 1:
            return self._square(progress), self.state[1]
        reach = [max(1.0, REACH * (1 - progress) * steps) for steps in self.region.steps]
        draws = 2 * self._draw(*self.region.corner.shape) - 1
        way = (draws * (draws.new_tensor(reach) + 0.5)).round().long()
        there = self._placed(self.region.moved(way))
        return there.pasted(self.region.cut(self.now)), there.place

    def _side(self, open_: Tensor, progress: float) -> int:
        return int((share(AREA, AREA_BY, progress) * float(open_.sum())) ** (1 / open_.ndim))

    def _placed(self, places: Tensor) -> Any:
        return self.region.placed(torch.arange(len(self.x), device=self.x.device), places)


WALKS: dict[str, type[SparseWalk]] = {"spa": PixelWalk, "patch": PatchWalk, "frame": FrameWalk}
