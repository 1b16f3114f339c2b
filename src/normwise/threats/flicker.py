"""Flicker: each frame of a clip gets another tint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from ..seeding import by_row
from ..types import Images, PerRow, Region, Rows
from ..utils import per_row as rows
from .lp import LpRegion, check_eps
from .pixels import clip_or_refuse

PLANE = (3, 4)  # the axes of a frame's pixels


@dataclass(frozen=True, kw_only=True)
class Flicker:
    """Every frame of a clip may be shifted in colour: one number per frame and channel, the same for all its pixels.

    Options
        eps     largest shift, in pixels of [0, 1]

    Pixels that would leave [0, 1] stay at its ends. Raises ValueError unless 0 <= eps <= 1, and for what is no clip
    (b, c, t, h, w).
    Source: Pony et al. 2021, arXiv:2002.05123 (over-the-air flickering attacks). Differs: a bound instead of penalties on
    size and roughness.
    """

    name: ClassVar[str] = "flicker"

    eps: float = 8 / 255

    def __post_init__(self) -> None:
        check_eps(self.name, self.eps, 1, "an image and any other lie within 1")

    def around(self, x: Images, *, generator: Generator) -> Region:
        clip_or_refuse(x, self.name)
        return FlickerRegion(x, self.eps, generator)


class FlickerRegion(LpRegion):
    """x_adv = clip(x + s), one shift |s| <= eps for each frame and channel."""

    kind = "flicker"

    def start(self) -> Images:
        draws = (
            2
            * by_row(lambda n: torch.rand(n, *self.x.shape[1:3], generator=self.generator, dtype=torch.float32), len(self.x))
            - 1
        )
        return self._shifted(self.radius * draws.to(self.x)[..., None, None])

    def ascend(self, x_adv: Images, grad: Images, size: float | PerRow) -> Images:
        sign = grad.sum(PLANE, keepdim=True).sign()
        return x_adv + rows.step_of(size, x_adv) * sign

    def project(self, x_adv: Images) -> Images:
        """Return the allowed point whose frames have the same mean in each channel, or the next brighter or darker one.

        Where no pixel is cut off at 0 or 1 that is the nearest. The mean rises with the shift, piecewise linearly: Newton's
        method, with a bisection where it leaves the bracket.
        """
        wanted = x_adv.clamp(0, 1).mean(PLANE, dtype=torch.float64, keepdim=True)
        low, high = torch.full_like(wanted, -self.radius), torch.full_like(wanted, self.radius)
        shift = (wanted - self.x.mean(PLANE, dtype=torch.float64, keepdim=True)).clamp(low, high)
        for _ in range(60):  # few are needed: seldom more than five
            moved = self.x + shift
            gap = moved.clamp(0, 1).mean(PLANE, keepdim=True) - wanted
            low, high = torch.where(gap < 0, shift, low), torch.where(gap > 0, shift, high)
            newton = shift - gap / ((moved > 0) & (moved < 1)).double().mean(PLANE, keepdim=True)
            better = torch.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            better = torch.where(gap.abs() <= 1e-12, shift, better)
            if not ((better - shift).abs() > 1e-9).any():
                break
            shift = better
        return self._shifted(shift.to(self.x))

    def distance(self, x_adv: Images) -> PerRow:
        return rows.linf(x_adv - self.x)

    def contains(self, x_adv: Images) -> Rows:
        return super().contains(x_adv) & (rows.linf(self.project(x_adv) - x_adv) <= 1e-6)

    def _shifted(self, shift: Tensor) -> Images:
        return (self.x + shift).clamp(0, 1)
