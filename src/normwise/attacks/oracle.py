"""What an attacker may ask of a model: logits, and gradients in pixels. Nothing else of the model is touched."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..types import Images, Labels, Logits, Loss, PerRow, Rows


class Look(NamedTuple):
    """One look at the loss from a point: the gradient in pixels, the loss per row, the logits."""

    grad: Images
    loss: PerRow
    logits: Logits


class Oracle:
    """A model seen by an attack, with the images counted that went forward and backward.

    Gradients are taken with respect to the pixels alone: no parameter's `.grad` is computed or changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.forwards = 0
        self.backwards = 0

    def logits(self, x: Images) -> Logits:
        """The model's answer, without a graph."""
        with torch.no_grad():
            return self._forward(x)

    def gradient(self, x: Images, y: Labels, loss: Loss, victims: Rows) -> Look:
        """The gradient in pixels of the loss summed over the victims.

        Raises ValueError where there is none (the logits do not depend on x through anything differentiable) or where it
        is not finite: an attack that goes on without a gradient only seems to be defended against.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self._forward(x)
            per_row = loss(logits, y)
            grad = torch.autograd.grad((per_row * victims).sum(), x, allow_unused=True)[0] if logits.requires_grad else None
        if grad is None:
            raise ValueError(
                "the gradient is cut: the logits do not depend on the pixels through anything differentiable; "
                "remove the detach, no_grad or rounding inside the model, or attack it without gradients"
            )
        self.backwards += len(x)
        if not torch.isfinite(grad).all():
            bad = int((~torch.isfinite(grad.flatten(1)).all(1)).sum())
            raise ValueError(
                f"the gradient in pixels is not finite for {bad} of {len(x)} rows; find the layer that overflows or divides by 0"
            )
        return Look(grad, per_row.detach(), logits.detach())

    def _forward(self, x: Images) -> Tensor:
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
