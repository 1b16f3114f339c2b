"""The strongest images a search has seen: row by row if rows are independent, else batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..types import Images, Labels, Logits, PerRow, Rows, Search
from .oracle import Oracle


class Best:
    """Keeps the best images offered so far.

    For independent rows each row's best counts alone: a misclassified image beats any other, then the larger loss. For
    coupled rows images are only ever kept as a whole batch: the one with most misclassified victims, then the largest
    mean loss, because a batch put together from several iterates never existed.

    `leaves`: rows that fell need no further search. Without `stops` they do, for one success decides nothing where another
    model is checked, or where the model draws noise; such a row goes on to a larger loss.
    """

    def __init__(self, x: Images, victims: Rows, how: Search) -> None:
        self.x_adv = x.clone()
        self.victims = victims
        self.independent = how.independent
        self.stops, self.leaves = how.stops, how.independent and how.stops
        self.first_hit = torch.full((len(x),), -1, device=x.device)
        self.part = torch.zeros_like(self.first_hit)  # whose image it is, if several attacks offer
        self._fell = torch.zeros(len(x), dtype=torch.bool, device=x.device)  # whether the image kept did
        self._loss = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self._batch: tuple[int, float] = (-1, 0.0)

    @property
    def standing(self) -> Tensor:
        """Indices of the rows still worth attacking: where rows leave, those that have not fallen, else all."""
        return torch.nonzero(self.first_hit < 0 if self.leaves else self.first_hit >= -1).squeeze(1)

    @property
    def fallen(self) -> int:
        """How many rows fell in the images kept."""
        return int(self._fell.sum()) if self.independent else max(0, self._batch[0])

    def offer(self, rows: Tensor, x_adv: Images, loss: PerRow, fallen: Rows, step: int | Tensor, part: int = 0) -> None:
        """Consider the images `x_adv` of the rows with indices `rows`, seen at gradient step `step` (of all, or of each)."""
        if self.independent:
            fell, larger = self._fell[rows], loss > self._loss[rows]
            better = (fallen & ~fell) | ((fallen == fell) & larger)
            self._fell[rows[better]] = fallen[better]
            self.x_adv[rows[better]] = x_adv[better]
            self._loss[rows[better]] = loss[better].to(self._loss)
            self.part[rows[better]] = part
        else:
            score = int((fallen & self.victims).sum()), float(loss[self.victims].mean())
            if score > self._batch:
                self._batch, self.x_adv = score, x_adv.clone()
                self.part[:] = part
        new = fallen & (self.first_hit[rows] < 0)
        self.first_hit[rows[new]] = step[new] if isinstance(step, Tensor) else step

    def check(self, oracle: Oracle, rows: Tensor, x_adv: Images, y: Labels, step: int, logits: Logits | None = None) -> Rows:
        """Consider the images `x_adv` of these rows, with labels `y`, by their margins; returns which have fallen.

        The network is asked, where `logits` are not known.
        """
        logits = oracle.logits(x_adv) if logits is None else logits
        fallen = oracle.reached(logits, y)
        self.offer(rows, x_adv, oracle.margin(logits, y), fallen, step)
        return fallen

    def take(self, oracle: Oracle, rows: Tensor, y: Labels, found: tuple[Tensor, ...], steps: int, part: int = 0) -> None:
        """Consider what a search of so many steps among these rows, with labels `y`, returned: images, and where each was seen to fall.

        The network is asked about what was not seen to fall.
        """
        x_adv, hit = found[:2]
        asked = hit < 0 if self.leaves else hit >= -1  # rows that left were seen to fall
        fallen, margin = hit >= 0, torch.zeros_like(hit, dtype=x_adv.dtype)
        if asked.any():
            logits = oracle.logits(x_adv[asked])
            fallen[asked], margin[asked] = oracle.reached(logits, y[asked]), oracle.margin(logits, y[asked])
        seen = torch.where(hit < 0, steps, hit)  # what only the last image shows, fell at the end
        self.offer(rows, x_adv, margin, fallen, seen, part)
