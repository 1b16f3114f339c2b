"""Square: random search with square patches, without gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..types import Images, Labels, Logits, Loss, PerRow, Region, Rows
from .base import BaseAttack, at_least
from .best import Best
from .oracle import Oracle

# queries of 10,000 after which the share of pixels that a patch covers is halved
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

LARGE = 9  # pixels of a patch; a useless one is drawn anew


@dataclass(frozen=True, kw_only=True)
class Square(BaseAttack):
    """Random search: one random patch of each image changes at a time, and stays if the loss rises. Uses no gradient.

        linf:   x_adv <- x + radius * sign_c inside the patch, one random sign per channel c
        l2:     x_adv <- x + the patch's bump, as long as the budget of two patches and what was unused allow; the second
                patch goes back to x

    A patch is a square in a picture, a segment in a row of numbers or a signal, a cuboid in a clip (all frames while it is
    large); it covers a share p of the picture, p_init at first, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and
    8000 of 10,000 queries (rescaled to `steps`).

    Options
        steps       queries per restart
        p_init      share of the picture covered by the first patches
        restarts    independent searches
        loss        what is raised: "margin" or "ce"

    Cost: at most steps + 2 forwards per image and restart, no backwards. Independent rows stop as soon as they fall. In
    linf they are not asked about a patch that changes nothing, nor (with up to 4 channels) twice about the same patch
    while they have not moved: the answer is known, and up to a third of the forwards is saved.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, alg. 1-3; sides in l2 are odd and at least 3, as in the authors'
    code. Differs: the outermost places of a patch are drawn half as often as the others (the authors' code never draws the
    last one; drawn as often as the others they cost strength on digits); where a square does not fit, an oblong covers the
    same share; in linf an independent row whose patch of 9 or more pixels would be of no use draws it once more; coupled
    rows spend every second query on the batch in which each row keeps its new patch if its own loss rose, and move to that
    batch only if it is better as a whole.

    >>> x_adv = Square(steps=50)(model, x, y, Linf(eps=8 / 255), generator=generator, independent=True).x_adv
    """

    name: ClassVar[str] = "square"
    black_box: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = 5000
    p_init: float = 0.8
    restarts: int = 1
    loss: str = "margin"

    def __post_init__(self) -> None:
        at_least(self.name, 0, steps=self.steps)
        at_least(self.name, 1, restarts=self.restarts)
        losses.named(self.loss)
        if not 0 < self.p_init <= 1:
            raise ValueError(f"p_init of square is a share of the picture; got {self.p_init}; give a number in (0, 1]")

    @property
    def label(self) -> str:
        return f"square-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels, independent: bool) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, independent=independent)
        logits = oracle.logits(x)
        best.offer(best.standing, x, losses.margin(logits, y), ~losses.correct(logits, y), 0)
        for _ in range(self.restarts):
            rows = best.standing
            if len(rows) == 0:
                break
            walk = (_LinfWalk if region.kind == "linf" else _L2Walk)(region.select(rows), x[rows])
            (self._alone if independent else self._together)(oracle, walk, y[rows], rows, best)
        return best.x_adv, best.first_hit

    def share(self, step: int) -> float:
        """The share of the picture covered by the patch of query `step` (the first is 0)."""
        return self.p_init / 2 ** bisect_left(HALVINGS, int(step / self.steps * 10_000))

    def _alone(self, oracle: Oracle, walk: _Walk, y: Labels, rows: Tensor, best: Best) -> None:
        """Every row walks for itself, and leaves when it has fallen."""
        loss, fallen, margin = self._judge(oracle.logits(walk.images), y)
        best.offer(rows, walk.images, margin, fallen, 0)
        walk.keep(~fallen)
        rows, y, loss = rows[~fallen], y[~fallen], loss[~fallen]
        for step in range(self.steps):
            if len(rows) == 0:
                return
            asked, trial = walk.propose(self.share(step))
            if len(asked) == 0:
                continue
            new, fallen, margin = self._judge(oracle.logits(trial), y[asked])
            better = fallen | (new > loss[asked])
            moved = asked[better]
            walk.move(moved, trial[better])
            loss[moved] = new[better]
            if fallen.any():
                gone = asked[fallen]
                best.offer(rows[gone], trial[fallen], margin[fallen], fallen[fallen], step + 1)
                stay = torch.ones_like(rows, dtype=torch.bool)
                stay[gone] = False
                walk.keep(stay)
                rows, y, loss = rows[stay], y[stay], loss[stay]
        if len(rows):
            _, fallen, margin = self._judge(oracle.logits(walk.images), y)
            best.offer(rows, walk.images, margin, fallen, self.steps)

    def _together(self, oracle: Oracle, walk: _Walk, y: Labels, rows: Tensor, best: Best) -> None:
        """The batch walks as a whole: it moves to images that it has been seen to hold together."""

        def look(images: Images, step: int) -> tuple[PerRow, tuple[int, float]]:
            loss, fallen, margin = self._judge(oracle.logits(images), y)
            best.offer(rows, images, margin, fallen, step)
            return loss, (int((fallen & best.victims).sum()), float(loss[best.victims].mean()))

        loss, score = look(walk.images, 0)
        step = 0
        while step < self.steps:
            asked, trial = walk.propose(self.share(step), whole=True)
            step += 1
            new, _ = look(trial, step)
            better = new > loss
            if not better.any() or step == self.steps:
                continue
            before = walk.images.clone()
            walk.move(asked[better], trial[better])
            step += 1
            new, now = look(walk.images, step)
            if now > score:
                loss, score = new, now
            else:
                walk.move(asked, before)

    def _judge(self, logits: Logits, y: Labels) -> tuple[PerRow, Rows, PerRow]:
        margin = losses.margin(logits, y)
        loss: Loss = losses.named(self.loss)
        return (margin if self.loss == "margin" else loss(logits, y)), ~losses.correct(logits, y), margin


class _Walk(ABC):
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
        return torch.rand(shape, generator=self.generator).to(self.x.device)

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


class _LinfWalk(_Walk):
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


class _L2Walk(_Walk):
    """The whole budget is in use, but for what the box cut off."""

    least, odd = 3, True

    def __init__(self, region: Region, x: Images) -> None:
        super().__init__(region, x)
        delta = self._tiles(len(x))
        delta *= self.radius / delta.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
        self.now = (self.x + delta.to(self.x)).clamp(0, 1)
        self.used = self._used(self.now, self.x)

    def move(self, rows: Tensor, images: Images) -> None:
        super().move(rows, images)
        self.used[rows] = self._used(self.now[rows], self.x[rows])

    def keep(self, rows: Rows) -> None:
        super().keep(rows)
        self.used = self.used[rows]

    @staticmethod
    def _used(now: Tensor, x: Tensor) -> Tensor:
        return (now - x).square_().sum((1, 2))

    def _tiles(self, rows: int) -> Tensor:
        """Five by five bumps, each with a random sign per row and channel, and a random orientation."""
        t, h, w = self.size
        down, across = max(h // 5, 1), max(w // 5, 1)
        lines, columns = min(5, h), min(5, w)
        both = torch.stack([bump((t, down, across), axis) for axis in (1, 2)]).to(self.x)
        turn = (self._draw(rows, 1, lines, columns) < 0.5).long()
        sign = torch.where(self._draw(rows, self.channels, lines, columns) < 0.5, -1.0, 1.0)
        tiles = (sign[..., None, None, None] * both[turn]).permute(0, 1, 4, 2, 5, 3, 6)
        tiles = tiles.reshape(rows, self.channels, t, lines * down, columns * across)
        top, left = (h - lines * down) // 2, (w - columns * across) // 2
        delta = torch.zeros(rows, self.channels, t, h, w, device=self.x.device)
        delta[..., top : top + lines * down, left : left + columns * across] = tiles
        return delta.flatten(2)

    def _resize(self) -> None:
        super()._resize()
        self.bumps = torch.stack([bump(self.sides, axis).flatten() for axis in (1, 2)]).to(self.x)

    def _change(self, whole: bool) -> tuple[Tensor, Tensor]:
        draws = self._draw(len(self.x), 7 + self.channels)
        here, there = self._corner(draws[:, :3]), self._corner(draws[:, 3:6])
        turn, sign = (draws[:, 6] < 0.5).long(), torch.where(draws[:, 7:] < 0.5, -1.0, 1.0).to(self.x)
        pixels, others = self._pixels(here), self._pixels(there)
        clean, clean_there = self.x.gather(2, pixels), self.x.gather(2, others)
        old, old_there = self.now.gather(2, pixels) - clean, self.now.gather(2, others) - clean_there
        at = self.inside + (there - here)[:, None]  # the second patch's pixels, seen from the first patch's corner
        shared = ((at >= 0) & (at < torch.tensor(self.sides, device=at.device))).all(2)[:, None]
        both = old.square().sum(2) + torch.where(shared, 0, old_there).square().sum(2)
        unused = (self.radius**2 - self.used).clamp_min(0)
        length = (both + unused[:, None] / self.channels).sqrt()
        new = unit(sign[:, :, None] * self.bumps[turn][:, None] + unit(old)) * length[:, :, None]
        trial = self.now.scatter(2, others, clean_there).scatter_(2, pixels, (clean + new).clamp_(0, 1))
        return torch.arange(len(trial), device=trial.device), trial


def unit(x: Tensor) -> Tensor:
    """Scale along the last axis to length 1; zeros stay zeros."""
    return x / x.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def patch_sides(size: tuple[int, int, int], share: float, least: int = 1, *, odd: bool = False) -> tuple[int, int, int]:
    """The sides (frames, height, width) of the patch that covers this share of a clip: equal, but none longer than the clip's.

    >>> patch_sides((1, 32, 32), 0.8), patch_sides((16, 112, 112), 0.8), patch_sides((1, 1, 20), 0.5)
    ((1, 29, 29), (16, 100, 100), (1, 1, 10))
    """
    left, sides = share * math.prod(size), [1, 1, 1]
    for done, axis in enumerate(sorted(range(3), key=size.__getitem__)):
        side = min(size[axis], max(1.0, left ** (1 / (3 - done))))
        left /= side
        sides[axis] = round(side)
        if axis:  # frames are told apart one by one
            sides[axis] = max(sides[axis], least)
            sides[axis] = min(size[axis], sides[axis] + (odd and sides[axis] % 2 == 0))
    return sides[0], sides[1], sides[2]


def bump(sides: tuple[int, int, int], axis: int) -> Tensor:
    """Two halves of opposite sign along one of the axes height and width, each highest in its middle; of length 1.

    At a distance of r pixels from its middle (in the larger of the two coordinates) a half is sum_{j > r} 1 / j^2, up to
    the j that belongs to its farthest pixel; all frames are equal.
    Source: Andriushchenko et al. 2020, arXiv:1912.00049, the l2 update of sec. 4.

    >>> bump((1, 1, 2), 2).flatten().tolist()
    [0.7071067690849304, -0.7071067690849304]
    """
    frames, *plane = sides
    if plane[axis - 1] == 1:
        axis = 3 - axis  # there is nothing to halve along this axis
    first = list(plane)
    first[axis - 1] //= 2
    second = list(plane)
    second[axis - 1] -= first[axis - 1]
    halves = torch.cat([_hill(first), -_hill(second)], dim=axis - 1)
    return (halves / (halves.norm() * math.sqrt(frames))).expand(frames, *plane)


def _hill(sides: list[int]) -> Tensor:
    rank = torch.zeros(sides)
    for line, column in product(*map(range, sides)):
        rank[line, column] = max(abs(line - sides[0] // 2), abs(column - sides[1] // 2))
    steps = torch.arange(1, max(sides) // 2 + 2, dtype=torch.float32).reciprocal().square()
    return steps.flip(0).cumsum(0).flip(0)[rank.long()]
