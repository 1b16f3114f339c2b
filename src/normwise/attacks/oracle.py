"""What an attacker may ask of a model: logits, and gradients in pixels. Nothing else of the model is touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Generator, Tensor, nn

from .. import losses
from ..types import WHOLE, Images, Labels, Logits, PerRow, Rows, Search
from ..utils.forward import in_parts, in_time, logits_of
from ..utils.per_row import over

T = TypeVar("T", bound="tuple[Tensor, ...]")


class LossAndGradient(NamedTuple):
    """The loss at a point: the gradient in pixels, the loss per row, the logits."""

    grad: Images
    loss: PerRow
    logits: Logits


class Answer(NamedTuple):
    """The logits alone."""

    logits: Logits


class Oracle:
    """A model seen by an attack, with the images counted that went forward and backward.

    Gradients are taken with respect to the pixels alone: no parameter's `.grad` is computed or changed. Losses are reckoned
    in the logits' own precision; what comes out is of the pixels' dtype, float32 at least. `how` says what the search may
    count on: independent rows may go through the model in parts, where a batch is too large for memory.
    """

    def __init__(self, model: nn.Module, how: Search = WHOLE) -> None:
        self.model, self.how = model, how
        self.targeted = how.goal == "targeted"
        self.forwards = 0
        self.backwards = 0

    def reached(self, logits: Logits, y: Labels) -> Rows:
        """Whether the attacker's goal is reached: another class than the label y, or the class y itself."""
        return losses.correct(logits, y) if self.targeted else ~losses.correct(logits, y)

    def margin(self, logits: Logits, y: Labels) -> PerRow:
        """Positive exactly where the goal is reached; see `losses.margin`."""
        return self.loss(losses.margin)(logits, y)

    def loss(self, raised: str | Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The loss to raise, by its name or itself: towards a class it is lowered instead."""
        loss = losses.named(raised) if isinstance(raised, str) else raised
        return (lambda *given: -loss(*given)) if self.targeted else loss

    def logits(self, x: Images) -> Logits:
        """The model's answer, without a graph."""
        with torch.no_grad():
            return self._pass(lambda part: Answer(_as_pixels(self._forward(part), part)), x).logits

    def gradient(
        self, x: Images, y: Labels, loss: Callable[..., Tensor], victims: Rows, *more: Tensor, fallen: bool = True
    ) -> LossAndGradient:
        """The gradient in pixels of `loss(logits, y, *more)` summed over the victims; `more` has one value per row each.

        `fallen=False`: rows that have reached the goal need no gradient; where they are many it is 0, and not paid for.

        Raises ValueError where there is none (the logits do not depend on x through anything differentiable) or where it
        is not finite: an attack that goes on without a gradient only seems to be defended against.
        """

        def work(x: Images, y: Labels, victims: Rows, *more: Tensor) -> LossAndGradient:
            return self._gradient(x, y, loss, victims, *more, fallen=fallen)

        here = self._pass(work, x, y, victims, *more)
        if not torch.isfinite(here.grad.sum()) and not torch.isfinite(here.grad).all():  # the sum is quicker to look at
            bad = int((~torch.isfinite(here.grad.flatten(1)).all(1)).sum())
            raise ValueError(
                f"the gradient in pixels is not finite for {bad} of {len(x)} rows; find the layer that overflows or divides by 0"
            )
        return here

    def averaged(self, draws: int, over: str, x: Images, generator: Generator) -> Oracle:
        """An oracle that answers with means over so many draws of noise inside the model, or of the rows beside a row."""
        return self if draws == 1 else Averaged(self, draws, x if over == "peers" else None, generator)

    def _gradient(
        self, x: Images, y: Labels, loss: Callable[..., Tensor], victims: Rows, *more: Tensor, fallen: bool
    ) -> LossAndGradient:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self._forward(x)
            per_row = loss(logits, y, *more)
        here = LossAndGradient(torch.zeros_like(x), per_row.detach().to(_like(x)), _as_pixels(logits.detach(), x))
        if not fallen:
            stands = ~self.reached(here.logits, y)
            if 3 * stands.sum() < 2 * len(x):  # cheaper to go through these once more than to go back through all
                if stands.any():
                    rest = (part[stands] for part in more)
                    here.grad[stands] = self._gradient(x[stands], y[stands], loss, victims[stands], *rest, fallen=True).grad
                return here
        grad = torch.autograd.grad((per_row * victims).sum(), x, allow_unused=True)[0] if logits.requires_grad else None
        if grad is None:
            raise ValueError(
                "the gradient is cut: the logits do not depend on the pixels through anything differentiable; "
                "remove the detach, no_grad or rounding inside the model, or attack it without gradients"
            )
        self.backwards += len(x)
        return here._replace(grad=grad)

    def _pass(self, work: Callable[..., T], *tensors: Tensor) -> T:
        return in_parts(self.model, work, *tensors) if self.how.independent else work(*tensors)

    def _forward(self, x: Images) -> Tensor:
        in_time()
        logits = logits_of(self.model, x)
        self.forwards += len(x)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _like(x: Images) -> torch.dtype:
    """The dtype of losses and logits: the pixels' own, float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def _as_pixels(logits: Logits, x: Images) -> Logits:
    """The logits as `_like` says; where that would change a decision, less each row's largest, which no loss sees."""
    cast = logits.to(_like(x))
    if cast.dtype == logits.dtype or torch.equal(cast.argmax(1), logits.argmax(1)):
        return cast
    return (logits - logits.amax(1, keepdim=True)).to(cast)


class Averaged(Oracle):
    """Expectation over transformation: means over draws of what the model draws itself, or of a row's neighbours.

    `peers` are the clean images: each draw asks twice, once for each half of the rows while the other half is replaced by
    clean images at random, so that a row's gradient holds whoever stands beside it.
    Source: Athalye et al. 2018, arXiv:1707.07397, eq. 1.
    """

    def __init__(self, oracle: Oracle, draws: int, peers: Images | None, generator: Generator) -> None:
        super().__init__(oracle.model, oracle.how)
        self.oracle, self.draws, self.peers, self.generator = oracle, draws, peers, generator

    def logits(self, x: Images) -> Logits:
        return torch.stack(
            [self._mixed(x, lambda x, kept: Answer(self.oracle.logits(x))).logits for _ in range(self.draws)]
        ).mean(0)

    def gradient(
        self, x: Images, y: Labels, loss: Callable[..., Tensor], victims: Rows, *more: Tensor, fallen: bool = True
    ) -> LossAndGradient:  # a row that falls in one draw may stand in the mean: it needs its gradient
        def work(x: Images, kept: Rows) -> LossAndGradient:
            return self.oracle.gradient(x, y, loss, victims & kept, *more)

        draws = [self._mixed(x, work) for _ in range(self.draws)]
        return LossAndGradient(*(torch.stack(part).mean(0) for part in zip(*draws, strict=True)))

    def _mixed(self, x: Images, ask: Callable[[Tensor, Tensor], T]) -> T:
        """Ask about all rows; with peers about each half beside clean images, and put the halves together."""
        if self.peers is None:
            return ask(x, torch.ones(len(x), dtype=torch.bool, device=x.device))
        draws = torch.rand(2, len(x), generator=self.generator, dtype=torch.float32).to(x.device)
        first = draws[0].argsort().argsort() % 2 == 0
        others = self.peers[(draws[1] * len(self.peers)).long()]
        halves = [ask(torch.where(over(kept, x), x, others), kept) for kept in (first, ~first)]
        return type(halves[0])(*(torch.where(over(first, a), a, b) for a, b in zip(*halves, strict=True)))
