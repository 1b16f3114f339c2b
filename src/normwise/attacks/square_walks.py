"""Walks of Square: the present point of some rows, and the patches they may change."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..types import Images, Region, Rows
from .square_patches import bump, patch_sides, unit

LARGE = 9  # pixels of a patch; a useless one is drawn anew


class SquareWalk(ABC):
    """The present point of some rows, seen as (rows, channels, pixels), and the patches they may change."""

    least, odd = 1, False  # about a patch's sides

    def __init__(self, region: Region, x: Images) -> None:
        self.shape = x.shape[1:]
        channels = self.shape[0] if len(self.shape) > 1 else 1
        frame = self.shape[1:] if len(self.shape) > 1 else self.shape
        self.size: tuple[int, int, int] = (math.prod(frame[:-2]), *((1, 1, *frame)[-2:]))
        self.channels, self.radius, self.generator = channels, region.radius, region.generator
        self.x = self._flat(x)
        self.sides = (0, 0, 0)
        self.now = self.x

    @property
    def images(self) -> Images:
        """The present point, shaped as images."""
        return self.now.view(-1, *self.shape)

    def propose(self, share: float, *, whole: bool = False) -> tuple[Tensor, Images]:
        """Change a random patch of each row: the rows worth asking about, and their images (`whole`: all rows)."""
        sides = patch_sides(self.size, share, self.least, odd=self.odd)
        if sides != self.sides:
            self.sides = sides
            self._resize()
        asked, trial = self._change(whole)
        return asked, trial.view(-1, *self.shape)

    def move(self, rows: Tensor, images: Images) -> None:
        """Let these rows go on from these images."""
        self.now[rows] = self._flat(images)

    def keep(self, rows: Rows) -> None:
        """Let the other rows go."""
        self.x, self.now = self.x[rows], self.now[rows]

    def _flat(self, images: Images) -> Tensor:
        return images.reshape(len(images), self.channels, math.prod(self.size))

    def _draw(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float32).to(self.x.device)

    def _resize(self) -> None:
        """Make what depends on the patch's sides only."""
        t, h, w = (torch.arange(side, device=self.x.device) for side in self.sides)
        self.inside = torch.cartesian_prod(t, h, w)  # coordinates of the patch's pixels, from its corner
        self.strides = torch.tensor([self.size[1] * self.size[2], self.size[2], 1], device=self.x.device)
        self.offsets = (self.inside * self.strides).sum(1)
        self.corners = torch.tensor([size - side + 1 for size, side in zip(self.size, self.sides, strict=True)])
        self.corners = self.corners.to(self.x.device)

    def _corner(self, draws: Tensor) -> Tensor:
        """The places at both ends, where a patch touches the border, are drawn half as often as the others."""
        return (draws * (self.corners - 1)).round().long()

    def _pixels(self, corner: Tensor) -> Tensor:
        """Indices of the patch's pixels in each row, for `gather` and `scatter`."""
        return ((corner * self.strides).sum(1, keepdim=True) + self.offsets)[:, None].expand(-1, self.channels, -1)

    @abstractmethod
    def _change(self, whole: bool) -> tuple[Tensor, Tensor]:
        """Return the rows to ask about, and their images with a new patch each."""


class LinfWalk(SquareWalk):
    """Every pixel is as low or as high as it may be."""

    def __init__(self, region: Region, x: Images) -> None:
        super().__init__(region, x)
        self.low = self._flat(region.project(x - self.radius))
        self.high = self._flat(region.project(x + self.radius))
        stripes = self._draw(len(x), self.channels, 1, self.size[2]) < 0.5
        shape = len(x), self.channels, self.size[0] * self.size[1], self.size[2]
        self.now = torch.where(stripes.expand(shape).reshape(self.x.shape), self.high, self.low)

    def move(self, rows: Tensor, images: Images) -> None:
        super().move(rows, images)
        if self.known is not None:
            self.known[rows] = False

    def keep(self, rows: Rows) -> None:
        super().keep(rows)
        self.low, self.high = self.low[rows], self.high[rows]
        if self.known is not None:
            self.known = self.known[rows]

    known: Tensor | None = None  # per row, the patches known not to help from the present point

    def _resize(self) -> None:
        super()._resize()
        patches = int(self.corners.prod()) << self.channels
        self.known = None
        if self.channels <= 4 and patches <= 1 << 16:
            self.known = torch.zeros(len(self.x), patches, dtype=torch.bool, device=self.x.device)

    def _change(self, whole: bool) -> tuple[Tensor, Tensor]:
        every = torch.arange(len(self.x), device=self.x.device)
        pixels, new, asks = self._patch(every)
        if whole:
            return every, self.now.scatter(2, pixels, new)
        if len(self.offsets) >= LARGE:
            again = (~asks).nonzero().squeeze(1)
            pixels[again], new[again], asks[again] = self._patch(again)
        asked = asks.nonzero().squeeze(1)
        return asked, self.now.index_select(0, asked).scatter_(2, pixels[asked], new[asked])

    def _patch(self, rows: Tensor) -> tuple[Tensor, Tensor, Rows]:
        """A random patch for each of these rows: its pixels, what they would be, and whether it is worth asking about."""
        draws = self._draw(len(rows), 3 + self.channels)
        corner, up = self._corner(draws[:, :3]), draws[:, 3:] < 0.5
        pixels = self._pixels(corner)
        now, low, high = (part[rows] if len(rows) < len(self.x) else part for part in (self.now, self.low, self.high))
        new = torch.where(up[:, :, None], high.gather(2, pixels), low.gather(2, pixels))
        asks = (new != now.gather(2, pixels)).flatten(1).any(1)
        if self.known is not None:
            code = (corner[:, 0] * self.corners[1] + corner[:, 1]) * self.corners[2] + corner[:, 2]
            for channel in up.unbind(1):
                code = 2 * code + channel
            asks &= ~self.known[rows, code]
            self.known[rows, code] = True
        return pixels.contiguous(), new, asks


class L2Walk(SquareWalk):
    """The whole budget is in use, but for what the box cut off."""

    least, odd = 3, True
    order = 2  # of the length: the budget is radius ** order

    def __init__(self, region: Region, x: Images) -> None:
        super().__init__(region, x)
        self.now = self._first(self._tiles(len(x)))
        self.used = self._used(self.now, self.x)

    def _first(self, tiles: Tensor) -> Tensor:
        """The first point: the tiles, as long as the radius."""
        tiles *= self.radius / tiles.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
        return self._fit(self.x + tiles.to(self.x))

    def _fit(self, trial: Tensor) -> Tensor:
        """Bring points of the ball into the box."""
        return trial.clamp_(0, 1)

    def _spread(self, budget: Tensor) -> Tensor:
        """How long the changes to the channels of a patch may be."""
        return budget.sqrt()

    def move(self, rows: Tensor, images: Images) -> None:
        super().move(rows, images)
        self.used[rows] = self._used(self.now[rows], self.x[rows])

    def keep(self, rows: Rows) -> None:
        super().keep(rows)
        self.used = self.used[rows]

    def _used(self, now: Tensor, x: Tensor) -> Tensor:
        return (now - x).abs().pow(self.order).sum((1, 2))

    def _tiles(self, rows: int) -> Tensor:
        """Five by five bumps, each with a random sign per row and channel, and a random orientation."""
        t, h, w = self.size
        down, across = max(h // 5, 1), max(w // 5, 1)
        lines, columns = min(5, h), min(5, w)
        both = torch.stack([bump((t, down, across), axis, self.order) for axis in (1, 2)]).to(self.x)
        turn = (self._draw(rows, 1, lines, columns) < 0.5).long()
        sign = torch.where(self._draw(rows, self.channels, lines, columns) < 0.5, -1.0, 1.0)
        tiles = (sign[..., None, None, None] * both[turn]).permute(0, 1, 4, 2, 5, 3, 6)
        tiles = tiles.reshape(rows, self.channels, t, lines * down, columns * across)
        top, left = (h - lines * down) // 2, (w - columns * across) // 2
        delta = torch.zeros(rows, self.channels, t, h, w, dtype=self.x.dtype, device=self.x.device)
        delta[..., top : top + lines * down, left : left + columns * across] = tiles
        return delta.flatten(2)

    def _resize(self) -> None:
        super()._resize()
        self.bumps = torch.stack([bump(self.sides, axis, self.order).flatten() for axis in (1, 2)]).to(self.x)

    def _change(self, whole: bool) -> tuple[Tensor, Tensor]:
        draws = self._draw(len(self.x), 7 + self.channels)
        here, there = self._corner(draws[:, :3]), self._corner(draws[:, 3:6])
        turn, sign = (draws[:, 6] < 0.5).long(), torch.where(draws[:, 7:] < 0.5, -1.0, 1.0).to(self.x)
        pixels, others = self._pixels(here), self._pixels(there)
        clean, clean_there = self.x.gather(2, pixels), self.x.gather(2, others)
        old, old_there = self.now.gather(2, pixels) - clean, self.now.gather(2, others) - clean_there
        at = self.inside + (there - here)[:, None]  # the second patch's pixels, seen from the first patch's corner
        shared = ((at >= 0) & (at < torch.tensor(self.sides, device=at.device))).all(2)[:, None]
        both = old.abs().pow(self.order).sum(2) + torch.where(shared, 0, old_there).abs().pow(self.order).sum(2)
        unused = (self.radius**self.order - self.used).clamp_min(0)
        length = self._spread(both + unused[:, None] / self.channels)
        new = unit(sign[:, :, None] * self.bumps[turn][:, None] + unit(old, self.order), self.order) * length[:, :, None]
        trial = self._fit(self.now.scatter(2, others, clean_there).scatter_(2, pixels, clean + new))
        return torch.arange(len(trial), device=trial.device), trial


class L1Walk(L2Walk):
    """Every change is longer than what is left allows, and is projected: that keeps its largest moves alone."""

    order = 1

    def __init__(self, region: Region, x: Images) -> None:
        self.region = region
        super().__init__(region, x)

    def keep(self, rows: Rows) -> None:
        super().keep(rows)
        self.region = self.region.select(rows)

    def _first(self, tiles: Tensor) -> Tensor:
        return self._fit(self.x + tiles.to(self.x))

    def _fit(self, trial: Tensor) -> Tensor:
        return self._flat(self.region.project(trial.view(-1, *self.shape)))

    def _spread(self, budget: Tensor) -> Tensor:
        return self.channels * budget


WALKS: dict[str, type[SquareWalk]] = {"linf": LinfWalk, "l2": L2Walk, "l1": L1Walk}
