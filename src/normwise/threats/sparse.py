"""Few of many: only some pixels, or some frames, may change, and the attacker chooses which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..seeding import by_row
from ..types import Images, PerRow, Region, Rows
from ..utils import per_row as views
from .masked import Mask


class SparseRegion:
    """What `inner` allows around x, where at most `count` units of each row change (of each frame, if `per_frame`).

    A unit is what lies at one place of all axes but `shared`: all channels of a pixel, or all pixels of a frame. The
    geometry of lengths is that of `inner`.
    """

    def __init__(
        self, inner: Region, x: Images, count: int, kind: str, *, shared: Sequence[int], per_frame: bool = False
    ) -> None:
        self.inner, self.x, self.count, self.kind, self.shared, self.per_frame = inner, x, count, kind, shared, per_frame
        self.radius, self.victims, self.generator = inner.radius, inner.victims, inner.generator

    def sums(self, values: Images) -> Tensor:
        """Sum over each unit: (b, cells, units), where a cell is a frame if counts are per frame, else the row."""
        values = values.sum(tuple(self.shared)) if self.shared else values
        return values.reshape(len(values), self.x.shape[2] if self.per_frame else 1, -1)

    def spread(self, chosen: Tensor) -> Tensor:
        """Shape one value per unit, (b, cells, units), so that it broadcasts over the images."""
        lengths = [1 if axis in self.shared else length for axis, length in enumerate(self.x.shape)]
        return chosen.reshape(-1, *lengths[1:])

    def largest(self, scores: Tensor) -> Mask:
        """The `count` units of each cell with the largest scores, as a mask over (b, cells, units)."""
        top = scores.topk(min(self.count, scores.shape[2]), dim=2).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(2, top, True)

    def start(self) -> Images:
        x_adv = self.inner.start()
        sums = self.sums(self.x).shape[1:]
        draws = by_row(lambda n: torch.rand(n, *sums, generator=self.generator, dtype=torch.float32), len(self.x)).to(
            self.x.device
        )
        return torch.where(self.spread(self.largest(draws)), x_adv, self.x)

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        """Take the step of `inner` in those units that, to first order, then raise the loss most over the clean image.

        Other units go back to the clean image. A row whose gradient is 0 stays.
        """
        z = self.inner.ascend(x_adv, grad, size)
        gain = self.sums(grad * (self.inner.project(z) - self.x))
        chosen = torch.where(self.spread(self.largest(gain)), z, self.x)
        return torch.where(views.over(views.linf(grad) > 0, x_adv), chosen, x_adv)

    def project(self, x_adv: Images) -> Images:
        """Return the nearest allowed point in Euclidean length: the units stay changed that would lose most."""
        near = self.inner.project(x_adv)
        gain = self.sums((x_adv - self.x).square() - (x_adv - near).square())
        return torch.where(self.spread(self.largest(gain)), near, self.x)

    def distance(self, x_adv: Images) -> PerRow:
        return self.inner.distance(x_adv)

    def contains(self, x_adv: Images) -> Rows:
        changed = self.sums((x_adv != self.x).to(self.x)) > 0
        return self.inner.contains(x_adv) & (changed.sum(2) <= self.count).all(1)

    def select(self, rows: Tensor) -> SparseRegion:
        inner, x = self.inner.select(rows), self.x[rows]
        return SparseRegion(inner, x, self.count, self.kind, shared=self.shared, per_frame=self.per_frame)
