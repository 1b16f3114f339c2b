"""DeepFool: again and again to the nearest boundary of the linear approximation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import losses
from ..types import Goal, Images, PerRow
from ..utils.per_row import DUAL, over
from .base import at_least
from .minimal import MinimalNorm, Track, Walk

LEAST = 1e-4  # where the box cuts steps short, ever shorter ones would near the boundary and not cross it


@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimalNorm):
    """Step to the nearest of the planes on which the linear approximation of logit_k - logit_y is 0, until a row falls.

        z <- clip(ascend(z, w_k, (1 + overshoot) |f_k| / |w_k|_dual)),   f_k = logit_k - logit_y,  w_k = grad f_k at z,
        k the class with the smallest |f_k| / |w_k|_dual

    A row is done at its first misclassified point: nothing nearer is sought.

    Options
        steps       most steps per image
        overshoot   how much longer than the way to the plane a step is, as a share
        targets     the k most likely wrong classes (where there are fewer, all); 0: all

    Cost: per step, as many forwards and backwards per image as there are classes to look at, until the row falls; one
    forward more at the start and at the end.
    Source: Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, alg. 2, eq. 8 and 10 to 12. Differs: every step overshoots, not
    their sum alone, so that one look says whether the row has fallen; no step is shorter than 1e-4; images stay in the box;
    the ten likeliest classes, as in the authors' code.

    >>> x_adv = DeepFool()(model, x, y, L2(eps=0.5), generator=generator, search=Search(independent=True)).x_adv
    """

    name: ClassVar[str] = "deepfool"
    goals: ClassVar[tuple[Goal, ...]] = ("misclassified",)
    kinds: ClassVar[tuple[str, ...]] = ("linf", "l2")

    steps: int = 50
    overshoot: float = 0.02
    targets: int = 9

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        at_least(self.name, 0, targets=self.targets)
        if not 0 <= self.overshoot < float("inf"):
            raise ValueError(f"overshoot of deepfool is a share; got {self.overshoot}; give a finite number >= 0")

    def approach(self, track: Track) -> None:
        if track.stops:
            track.enough = float("inf")
        logits = track.oracle.logits(track.x)
        targets = losses.likely_wrong(logits, track.y, self.targets or logits.shape[1])
        walk = track.walk()
        z = walk.x
        for _ in range(self.steps):
            here, wrong, (z, targets) = walk.evaluate(z, losses.gap, z, targets, more=(targets[:, 0],))
            if len(walk) == 0:
                return
            far, grad = _nearest_plane(track, walk, z, targets, here.loss, here.grad)
            size = torch.where(
                wrong, 0, ((1 + self.overshoot) * far).clamp_min(LEAST)
            )  # in a batch of coupled rows the fallen ones wait
            z = walk.region.ascend(z, grad, size).clamp(0, 1)
        walk.last(z)


def _nearest_plane(track: Track, walk: Walk, z: Images, targets: Tensor, gap: PerRow, grad: Images) -> tuple[PerRow, Images]:
    """How far the nearest plane is, and the gradient that leads there; the first target's gap and gradient are known."""
    dual = DUAL[walk.region.kind]
    far = _way(gap, dual(grad))
    for target in targets.unbind(1)[1:]:
        here = track.oracle.gradient(z, walk.y, losses.gap, walk.region.victims, target)
        way = _way(here.loss, dual(here.grad))
        grad = torch.where(over(way < far, z), here.grad, grad)
        far = torch.minimum(way, far)
    return torch.where(torch.isfinite(far), far, 0), grad


def _way(gap: PerRow, slope: PerRow) -> PerRow:
    """The way to the plane; inf where there is no slope."""
    return torch.where(slope > 0, gap.abs() / slope, torch.inf)
