"""What the minimal-norm attacks share: one search for the nearest misclassified point serves a radius and a distance."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..types import WHOLE, Images, Labels, Logits, PerRow, Region, Search, ThreatModel
from ..utils.per_row import over
from .base import BaseAttack
from .best_iterate import Best
from .oracle import LossAndGradient, Oracle

TINY = 1e-6  # keeps a distance of 0 from being divided by


class Nearest(NamedTuple):
    """The nearest misclassified image found for each row, and its distance: the clean row and inf where none was found."""

    x_adv: Images
    distance: PerRow


@dataclass(frozen=True, kw_only=True)
class MinimalNorm(BaseAttack):
    """A search for the nearest misclassified point; `approach` is all that a new one has to write.

    As an attack it stops at the radius, if a fall is all that counts: independent rows leave as soon as they have come
    within it, and of a row that stayed beyond, the nearest point is tried once more after projection onto the region. For
    coupled rows every point is offered projected, as a whole batch. `distances` knows no radius: it goes on to the end.
    """

    def distances(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: Generator,
        search: Search = WHOLE,
    ) -> Nearest:
        """Find each row's nearest misclassified image in the box, in the geometry of `threat`, whose radius does not count.

        The model is left as it was, as by a call. Distances are per row: of coupled rows each was seen in a batch of its
        own.
        """
        with self._facing(model, x, y, threat, generator, search) as (oracle, region, x, y):
            track = Track(oracle, region, x, y, None)
            if len(x):
                self.approach(track)
        return Nearest(track.nearest.detach(), track.distance)

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        best = Best(x, region.victims, oracle.how)
        track = Track(oracle, region, x, y, best)
        self.approach(track)
        track.offer_nearest()
        return best.x_adv, best.first_hit

    @abstractmethod
    def approach(self, track: Track) -> None:
        """Walk towards the boundary, once or more often; the track remembers the nearest misclassified points."""


class Track:
    """The nearest misclassified point that each row has come to, and the rows that are done.

    `best` takes what falls within the radius; without it distances alone are wanted.
    """

    def __init__(self, oracle: Oracle, region: Region, x: Images, y: Labels, best: Best | None) -> None:
        self.oracle, self.region, self.x, self.y, self.best = oracle, region, x, y, best
        self.independent = oracle.how.independent
        self.stops = best is None or best.stops
        self.leaves = self.independent and self.stops
        reached = 0.0 if best is None else region.radius
        self.enough = reached if self.stops else -1.0  # a row with a misclassified point this near is done
        self.confidence = 0.0  # the margin from which on a point counts as misclassified
        self.nearest, self.distance = x.clone(), torch.full_like(y, torch.inf, dtype=x.dtype)
        self.done = torch.zeros_like(y, dtype=torch.bool)
        self.evaluations = 0

    def walk(self) -> Walk:
        """Set out with the rows that are not done."""
        return Walk(self, torch.nonzero(~self.done).squeeze(1))

    def offer(self, rows: Tensor, region: Region, points: Images, logits: Logits | None = None) -> None:
        """Offer the allowed images nearest to these points; `logits` are those of the points, if they are known."""
        if self.best is None:
            return
        x_adv = region.project(points)
        if logits is None or not torch.equal(x_adv, points):
            logits = self.oracle.logits(x_adv)
        loss, fallen = self.oracle.margin(logits, self.y[rows]), self.oracle.reached(logits, self.y[rows])
        kept = fallen if self.independent else torch.ones_like(fallen)  # of a row that stands, the clean image is kept
        self.best.offer(rows[kept], x_adv[kept], loss[kept], fallen[kept], self.evaluations)

    def offer_nearest(self) -> None:
        """Offer the nearest points of rows that stayed beyond the radius; of coupled rows those of the whole batch."""
        near = torch.isfinite(self.distance)
        wanted = near if self.independent else near.any().expand_as(near)
        if self.leaves:
            wanted = near & (self.distance > self.region.radius)
        rows = torch.nonzero(wanted).squeeze(1)
        if len(rows) == 0:
            return
        region, x, nearest = self.region.select(rows), self.x[rows], self.nearest[rows]
        self.offer(rows, region, nearest)
        if not self.leaves:  # what lies just across the boundary falls back when neighbours or the model change: go further
            stretch = (self.region.radius / self.distance[rows].clamp_min(TINY)).clamp_max(1 / TINY)
            self.offer(rows, region, x + over(stretch, x) * (nearest - x))


class Walk:
    """The rows under way: they leave when they are done, coupled rows all together or not at all."""

    def __init__(self, track: Track, rows: Tensor) -> None:
        self.track, self.rows = track, rows
        self.x, self.y, self.region = track.x[rows], track.y[rows], track.region.select(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def evaluate(
        self, points: Images, loss: Callable[..., Tensor], *state: Tensor, more: tuple[Tensor, ...] = ()
    ) -> tuple[LossAndGradient, Tensor, list[Tensor]]:
        """Evaluate `loss(logits, y, *more)` and its gradient at these points: these, which are misclassified, and the rest of the state.

        Rows that are done leave: all that is returned belongs to the rows that stay.
        """
        points = points.to(self.x.dtype)  # a search may reckon more finely than the model sees
        here = self.track.oracle.gradient(points, self.y, loss, self.region.victims, *more)
        wrong, done = self.see(points, here.logits)
        grad, per_row, logits, wrong, *state_left = self.leave(done, *here, wrong, *state)
        return LossAndGradient(grad, per_row, logits), wrong, state_left

    def last(self, points: Images) -> None:
        """Look at points from which no step is made any more."""
        points = points.to(self.x.dtype)
        if len(self):
            self.see(points, self.track.oracle.logits(points))

    def see(self, points: Images, logits: Logits) -> tuple[Tensor, Tensor]:
        """Remember the misclassified points that are nearer than any before. Returns which are misclassified, which rows are done."""
        track, rows, length = self.track, self.rows, self.region.distance(points)
        wrong = track.oracle.reached(logits, self.y) & (track.oracle.margin(logits, self.y) >= track.confidence)
        closer = wrong & (length < track.distance[rows])
        if not track.stops:  # by noise, or for another model, the clean image may fall: no reason to stay there
            closer &= length > 0
        track.nearest[rows[closer]], track.distance[rows[closer]] = points[closer], length[closer]
        done = self._together(wrong & (length <= track.enough))
        track.done[rows] = done
        if not track.independent:
            track.offer(rows, self.region, points, logits)
        elif (within := wrong & (length <= self.region.radius)).any():
            track.offer(rows[within], self.region.select(within), points[within], logits[within])
        track.evaluations += 1
        return wrong, done

    def leave(self, gone: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Let rows leave the walk. Returns the state of those that stay."""
        gone = self._together(gone)
        if not gone.any():
            return state
        self.rows, self.x, self.y = self.rows[~gone], self.x[~gone], self.y[~gone]
        self.region = self.region.select(~gone)
        return tuple(part[~gone] for part in state)

    def _together(self, rows: Tensor) -> Tensor:
        return rows if self.track.independent else rows.all().expand_as(rows)


def cosine(first: float, last: float, share: float) -> float:
    """Go from the first value to the last along half a cosine.

    >>> cosine(1.0, 0.0, 0.0), round(cosine(1.0, 0.0, 0.5), 6), cosine(1.0, 0.0, 1.0)
    (1.0, 0.5, 0.0)
    """
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


def farthest(region: Region, x: Images) -> PerRow:
    """The distance of the farthest corner of the box."""
    return region.distance(1 - x.round())
