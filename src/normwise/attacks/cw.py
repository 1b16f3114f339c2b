"""CW: distance and margin weighed against each other, the weight found by binary search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch

from ..types import Labels, Logits, PerRow, Rows
from ..utils.per_row import flat
from .base import at_least, positive
from .minimal import MinimalNorm, Track

EDGE = 1 - 1e-6  # arctanh is infinite at pixels 0 and 1: they start this share of the way from the middle of the box
MOST = 1e10  # no constant is larger


@dataclass(frozen=True, kw_only=True)
class CW(MinimalNorm):
    """Carlini and Wagner's L2 attack: descend by Adam on w, in the box by its form, for constants c found by bisection.

        |z - x|_2^2 + c max(confidence - margin(z), 0),   z = (tanh(w) + 1) / 2

    Per row, c halves its way towards the smallest with which a misclassified point was found; it grows tenfold until then.

    Options
        steps           gradient evaluations per constant
        binary_steps    constants tried
        lr              Adam's learning rate, in units of w
        initial_const   the first constant c
        confidence      the margin that a point must have to count, in logits
        early_abort     a row leaves a constant after a tenth of the steps that lowered its least objective by less than 0.01%

    Cost: at most steps * binary_steps forwards and backwards per image, and one forward; for coupled rows twice the
    forwards.
    Source: Carlini and Wagner 2017, arXiv:1608.04644, sec. V-B, V-C and VI-A; settings of the authors' code (there, and with
    10 or more constants, the last one tried is the smallest that was successful). Differs: each row aborts on its own least
    objective, coupled rows when all do; 1,000 steps, not 10,000.

    >>> distance = CW(steps=50, binary_steps=5, lr=0.05).distances(model, x, y, L2(), generator=generator).distance
    """

    name: ClassVar[str] = "cw"
    kinds: ClassVar[tuple[str, ...]] = ("l2",)

    steps: int = 1000
    binary_steps: int = 9
    lr: float = 0.01
    initial_const: float = 1e-3
    confidence: float = 0.0
    early_abort: bool = True

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps, binary_steps=self.binary_steps)
        positive(self.name, lr=self.lr, initial_const=self.initial_const)
        if not 0 <= self.confidence < float("inf"):
            raise ValueError(f"confidence of cw is a margin of logits; got {self.confidence}; give a finite number >= 0")

    @property
    def label(self) -> str:
        return f"cw-{self.steps}x{self.binary_steps}"

    def approach(self, track: Track) -> None:
        track.walk().last(track.x)  # tanh comes near the clean images only
        track.confidence = self.confidence
        low = torch.zeros(len(track.x), device=track.x.device, dtype=torch.float32)
        high, const = torch.full_like(low, torch.inf), torch.full_like(low, self.initial_const)
        for number in range(self.binary_steps):
            if number >= 9 and number == self.binary_steps - 1:
                const = torch.where(torch.isfinite(high), high, const)
            found = self._descend(track, const)
            low, high, const = narrowed(low, high, const, found)

    def _lacks(self, track: Track, logits: Logits, y: Labels, const: PerRow) -> PerRow:
        """What the margin lacks of the confidence, weighed, as a loss to raise: it is 0 where nothing lacks."""
        return const * (track.oracle.margin(logits, y) - self.confidence).clamp_max(0)

    def _descend(self, track: Track, const: PerRow) -> Rows:
        """Descend with these constants. Returns the rows of which a misclassified point was found."""
        found = torch.zeros_like(track.done)
        walk = track.walk()
        c = const[walk.rows]
        w = ((2 * walk.x.to(torch.promote_types(walk.x.dtype, torch.float32)) - 1) * EDGE).atanh()
        mean, square = torch.zeros_like(w), torch.zeros_like(w)
        lowest = before = torch.full_like(c, torch.inf)  # objective: so far, and when it was last checked
        for step in range(self.steps if len(walk) else 0):
            z = (w.tanh() + 1) / 2
            here, wrong, (z, w, mean, square, c, lowest, before) = walk.evaluate(
                z, partial(self._lacks, track), z, w, mean, square, c, lowest, before, more=(c,)
            )
            if len(walk) == 0:
                break
            found[walk.rows[wrong]] = True
            grad = (2 * (z - walk.x) - here.grad) * (1 - w.tanh().square()) / 2
            lowest = torch.minimum(lowest, flat(z - walk.x).square().sum(1) - here.loss)
            if self.early_abort and (step + 1) % max(1, self.steps // 10) == 0:
                stalled = lowest > 0.9999 * before
                grad, w, mean, square, c, lowest = walk.leave(stalled, grad, w, mean, square, c, lowest)
                if len(walk) == 0:
                    break
                before = lowest
            mean, square = torch.lerp(grad, mean, 0.9), torch.lerp(grad.square(), square, 0.999)
            size = (square / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            w = w - self.lr * mean / (1 - 0.9 ** (step + 1)) / size
        return found


def narrowed(low: PerRow, high: PerRow, const: PerRow, found: Rows) -> tuple[PerRow, PerRow, PerRow]:
    """The largest constant without success, the smallest with, and the next to try: between them; tenfold before any success."""
    low, high = torch.where(found, low, const), torch.where(found, const, high)
    return low, high, torch.where(torch.isfinite(high), (low + high) / 2, (10 * const).clamp_max(MOST))
