"""Does a faster copy answer as the network does? Its logits and its gradients are compared on real images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import losses
from ..seeding import generator
from ..types import Images, Labels, Logits
from .forward import logits_of
from .model_state import untouched
from .per_row import l2

LOGITS = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}  # largest difference of a logit, `logit_distance`
STEEPER = 10  # gradients may differ by so many times that share: a unit at its kink turns a few of their entries
AT_MOST = 0.5  # and never by more than this


def logit_distance(answer: Logits, base: Logits) -> Tensor:
    """How far each logit (b, classes) is from the base's, relative to the largest of its class in the batch, or to what decides:
    the largest of the first two of each row, where that is more.

    So a logit that masks a class, such as -1e9, hides no change of the others. NaN where a change is no number.
    """
    deciding = base.topk(2, 1).values.abs().amax()
    scale = torch.maximum(base.abs().amax(0), deciding).clamp_min(1e-12)
    return torch.where(answer == base, 0.0, (answer - base).abs() / scale)


def difference_from(model: nn.Module, made: nn.Module, x: Images, seed: int, precision: str = "float32") -> str:
    """How a copy's answers to the images x (b, c, ...) differ from the model's, in words; empty where they agree.

    Logits are compared by their distances from the largest of their row, as `logit_distance` does; gradients in pixels (of
    the margin against the model's own answer) by the median over rows of the relative l2 distance. Both networks are left as
    they were, and draw the same noise.
    """
    expected, slope = _logits_and_gradient(model, x, None, seed)
    got, other = _logits_and_gradient(made, x, expected.argmax(1), seed)
    gap = float("nan")
    if got.shape == expected.shape:
        most = expected.double().amax(1, keepdim=True)
        gap = float(logit_distance(got.double() - most, expected.double() - most).amax())
    if not gap <= LOGITS[precision]:
        return f"its logits differ by {100 * gap:.2g}% of their spread"
    if (slope is None) != (other is None):
        return "a gradient arrives in the pixels of one of the two alone"
    if slope is None or other is None:
        return ""
    if (other.isnan() & ~slope.isnan()).any():
        return "its gradients are no numbers where the network's are"
    turned = float((l2(other - slope) / l2(slope).clamp_min(1e-30)).nan_to_num(0.0).median())
    if turned > min(STEEPER * LOGITS[precision], AT_MOST):
        return f"its gradients differ by {100 * turned:.2g}%"
    return ""


def _logits_and_gradient(model: nn.Module, x: Images, y: Labels | None, seed: int) -> tuple[Logits, Tensor | None]:
    """Logits, and the gradient in pixels of the margins against y (None: the model's answers); none where there is none."""
    with torch.inference_mode(False), untouched(model, generator(seed, "judge")):
        asked = x.detach().clone()
        try:
            with torch.enable_grad():
                logits = logits_of(model, asked.requires_grad_())
                total = losses.margin(logits, logits.argmax(1) if y is None else y).sum()
                grad = torch.autograd.grad(total, asked, allow_unused=True)[0] if total.requires_grad else None
            return logits.detach(), grad
        except TimeoutError:
            raise
        except Exception:  # it answers, perhaps, and cannot be differentiated
            with torch.no_grad():
                return logits_of(model, asked.detach()), None
