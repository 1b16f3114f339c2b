"""One pattern for all images: a patch or a frame that is made beforehand, from other images."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .. import losses
from ..seeding import by_row
from ..threats.masked import MaskedRegion, PatchRegion, plane
from ..types import WHOLE, Goal, Images, Labels, Region, ThreatModel
from ..utils.batches import range_problem
from ..utils.model_state import device_of
from .base import BaseAttack, at_least, positive, restarted
from .oracle import Oracle

MOMENTUM = 0.9


@dataclass(frozen=True, kw_only=True)
class Universal(BaseAttack):
    """One pattern for all images, in a patch or a frame: the attacker has not seen the images that are attacked.

        g       <- 0.9 g + grad / |grad|_1,   grad = sum over rows of grad loss(x with the pattern, y), at the pattern's pixels
        pattern <- clip(pattern + size sign(g), 0, 1),   size = first_step * (1 - update / updates)

    `fit` makes the pattern from training rows, one batch per update, and returns the attack that puts it on any image
    without a look at it. The verbs that evaluate do so with the training rows of their data. Without `fit` the pattern is
    made from the very batch that is attacked: an attacker who has to take one pattern, but has seen the images.

    A patch lies at the place that its region draws, is shrunk to a random share of its side, and is turned by a random
    angle; what of it leaves the square is cut off, and the square's pixels that it leaves free stay clean. That is drawn
    anew for every image, in training and after it. A frame lies still, and so does a segment of a signal.

    Options
        updates     of the pattern; each looks at one batch
        first_step  first length of an update, in pixels of [0, 1]
        loss        what is raised: "ce", "dlr" or "margin"
        shrink      smallest share of the side to which a patch is shrunk, above 0; 1: never
        turn        largest angle by which a patch is turned, in degrees to both sides; 0: never
        pattern     the pixels, as `fit` writes them: 8 bits each, in base64
        made_from   what `fit` made the pattern from, in words

    Cost: of `fit` one forward and backward per row of each update, which no evaluation counts; then none.
    Source: Brown et al. 2017, arXiv:1712.09665, sec. 2 (expectation over place, scale and rotation); frames: Zajac et al.
    2019, arXiv:1812.04599. Differs: steps along the sign, with momentum (Dong et al. 2018, arXiv:1710.06081); any wrong
    class counts.
    """

    name: ClassVar[str] = "universal"
    kinds: ClassVar[tuple[str, ...]] = ("patch", "frame")
    goals: ClassVar[tuple[Goal, ...]] = ("misclassified",)

    updates: int = 500
    first_step: float = 0.1
    loss: str = "ce"
    shrink: float = 0.8
    turn: float = 15.0
    pattern: str = ""
    made_from: str = ""

    def __post_init__(self) -> None:
        at_least(self.name, 1, updates=self.updates)
        positive(self.name, first_step=self.first_step)
        losses.named(self.loss)
        if not 0 < self.shrink <= 1:
            raise ValueError(
                f"shrink of {self.name} is a share of the side; got {self.shrink}; give a number above 0, up to 1"
            )
        if not 0 <= self.turn <= 180:
            raise ValueError(f"turn of {self.name} is an angle in degrees; got {self.turn}; give a number from 0 to 180")
        try:
            _read(self.pattern)
        except ValueError:
            raise ValueError(
                f"pattern of {self.name} is no base64; give what `fit` wrote, from a record, or leave it out"
            ) from None

    @property
    def label(self) -> str:
        return f"{self.name}-{self.updates}" if self.pattern else f"{self.name}-{self.updates}-own"

    def fit(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, ...]],
        threat: ThreatModel,
        *,
        generator: Generator,
        called: str = "rows",
    ) -> Universal:
        """Make the pattern from batches (images, labels, ...), and return the attack that has it.

        `batches` is a DataLoader or a list, which is gone through again until there were enough updates; `called` says in
        the record what rows these are. The model is left as it was. Raises ValueError for no batches, and for a threat model
        that is no patch or frame.
        """
        fitting, seen, where = _Fitting(self, generator), 0, device_of(model)
        while (left := self.updates - fitting.update) > 0:
            before = seen
            for x, y, *_ in islice(batches, left):
                if problem := range_problem(x):
                    raise ValueError(f"{self.name} makes its pattern from images in [0, 1]; got {problem}")
                self._update(fitting, model, x.to(where), y.to(where), threat, generator)
                seen += len(y)
            if seen == before:
                raise ValueError(
                    f"{self.name} makes its pattern from training rows, and got no batches; give a DataLoader or a list of batches"
                )
        return replace(self, pattern=_written(fitting.pattern), made_from=f"{seen:,} {called}")

    def _update(
        self, fitting: _Fitting, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, generator: Generator
    ) -> None:
        with self._facing(model, x, y, threat, generator, WHOLE) as (oracle, region, _, y):
            fitting.improve(oracle, region, y)

    def check(self, region: Region, goal: Goal = "misclassified") -> None:
        super().check(region, goal)
        if self.pattern and isinstance(region, MaskedRegion) and len(region.x):
            given, wanted = len(_read(self.pattern)), int(region.mask[0].sum())
            if given != wanted:
                raise ValueError(
                    f"pattern of {self.name} has {given} values, and a {region.kind} of these images {wanted}; make it with `fit` for these"
                )

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        assert isinstance(region, MaskedRegion)
        if self.pattern:
            pattern = _read(self.pattern)
        else:
            fitting = _Fitting(self, region.generator)
            for update in range(self.updates):
                fitting.improve(oracle, restarted(region, update), y)
            pattern = fitting.pattern
        return _Placement(self, region).images(pattern.to(x)), torch.full_like(y, -1)


class _Fitting:
    """The pattern while it is made."""

    pattern: Tensor
    direction: Tensor

    def __init__(self, attack: Universal, generator: Generator) -> None:
        self.attack, self.generator, self.update = attack, generator, 0

    def improve(self, oracle: Oracle, region: Region, y: Labels) -> None:
        """One update, by what one batch says."""
        assert isinstance(region, MaskedRegion)
        if not self.update:
            self.pattern = torch.rand(int(region.mask[0].sum()), generator=self.generator, dtype=torch.float32).to(region.x)
            self.direction = torch.zeros_like(self.pattern)
        placement, raised = _Placement(self.attack, region), oracle.loss(self.attack.loss)
        here = oracle.gradient(placement.images(self.pattern), y, raised, region.victims)
        slope = placement.slope(self.pattern, here.grad)
        self.direction = MOMENTUM * self.direction + slope / slope.abs().sum().clamp_min(1e-30)
        size = self.attack.first_step * (1 - self.update / self.attack.updates)
        self.pattern = (self.pattern + size * self.direction.sign()).clamp(0, 1)
        self.update += 1


class _Placement:
    """How a pattern lies on each image of a region."""

    def __init__(self, attack: Universal, region: MaskedRegion) -> None:
        self.region, self.grid = region, None
        if isinstance(region, PatchRegion) and len(region.steps) == 2:
            self.side = [min(region.size, region.x.shape[axis]) for axis in plane(region.x)]
            draws = by_row(lambda n: torch.rand(n, 2, generator=region.generator, dtype=torch.float32), len(region.x)).to(
                region.x
            )
            share, angle = 1 - (1 - attack.shrink) * draws[:, 0], math.radians(attack.turn) * (2 * draws[:, 1] - 1)
            across, down = angle.cos() / share, angle.sin() / share
            none = torch.zeros_like(share)
            turned = torch.stack([across, down, none, -down, across, none], 1).view(-1, 2, 3)
            self.grid = F.affine_grid(turned, [len(region.x), 1, *self.side], align_corners=False)

    def images(self, pattern: Tensor) -> Images:
        """The images with the pattern on them, as far as is allowed."""
        region = self.region
        return region.project(region.x.masked_scatter(region.mask, self._placed(pattern)))

    def slope(self, pattern: Tensor, grad: Images) -> Tensor:
        """The gradient in the pattern, of one in pixels."""
        with torch.enable_grad():
            pattern = pattern.detach().requires_grad_()
            under = self._placed(pattern)
            return torch.autograd.grad(under, pattern, grad[self.region.mask].view_as(under))[0]

    def _placed(self, pattern: Tensor) -> Tensor:
        """What is under the mask of each image, with the pattern: (b, values)."""
        rows = len(self.region.x)
        if self.grid is None:
            return pattern.expand(rows, -1)
        flat = pattern.view(1, -1, *self.side).expand(rows, -1, -1, -1)
        turned = F.grid_sample(flat, self.grid, padding_mode="border", align_corners=False)
        free = (self.grid.abs() > 1).any(3)[:, None]
        clean = self.region.x[self.region.mask].view_as(turned)
        return torch.where(free, clean, turned).flatten(1)


def _written(pattern: Tensor) -> str:
    return base64.b64encode((255 * pattern).round().byte().cpu().numpy().tobytes()).decode()


def _read(pattern: str) -> Tensor:
    return torch.tensor(list(base64.b64decode(pattern, validate=True)), dtype=torch.float32) / 255
