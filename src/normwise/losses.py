"""Losses an attacker raises: one number per row, larger is worse for the model."""

from __future__ import annotations

import math

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from .registry import unknown
from .types import Labels, Logits, Loss, PerRow, Rows

CLASSES = {"dlr": 3, "targeted dlr": 4}  # that a loss needs; where there are fewer, it is a difference of two logits
FLAT = -20.0  # where the cross-entropy is about to be lost in rounding


def cross_entropy(logits: Logits, y: Labels) -> PerRow:
    """-log softmax(logits)_y = softplus(m), m = log sum_{j != y} exp(z_j) - z_y.

    Written so because of confident models: where softmax_y rounds to 1, the gradient of the usual form loses its share of
    z_y and points elsewhere, or is 0. Below m = -20, where the value is under 3e-9, it goes on along its tangent, so that
    the direction of ascent is right at any scale of the logits.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    m = others.logsumexp(1) - own
    return torch.where(m > FLAT, F.softplus(m), (1 + m - FLAT) * math.exp(FLAT))


def margin(logits: Logits, y: Labels) -> PerRow:
    """max_{j != y} logit_j - logit_y: positive exactly when the row is misclassified.

    Source: Carlini and Wagner 2017, arXiv:1608.04644, f_6 without its floor and with the sign turned.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own


def gap(logits: Logits, y: Labels, target: Labels) -> PerRow:
    """logit_target - logit_y."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


def dlr(logits: Logits, y: Labels) -> PerRow:
    """Difference of logits ratio: (max_{j != y} z_j - z_y) / (z_(1) - z_(3)), z_(k) the k-th largest logit.

    It does not change when all logits are shifted or scaled, so that confident models cannot hide their gradient. With two
    classes there is no third logit: the margin is used.
    Source: Croce and Hein 2020, arXiv:2003.01690, eq. 6.
    """
    if logits.shape[1] < CLASSES["dlr"]:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits: Logits, y: Labels, target: Labels) -> PerRow:
    """(z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2); with fewer than four classes z_t - z_y alone.

    Source: Croce and Hein 2020, arXiv:2003.01690, eq. 7.
    """
    if logits.shape[1] < CLASSES["targeted dlr"]:
        return gap(logits, y, target)
    top = logits.topk(4, dim=1).values
    return gap(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp_min(1e-12)


def likely_wrong(logits: Logits, y: Labels, count: int) -> Int[Tensor, "b targets"]:
    """The `count` most likely wrong classes of each row (all of them where there are fewer), likeliest first."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.topk(min(count, logits.shape[1] - 1), dim=1).indices


def correct(logits: Logits, y: Labels) -> Rows:
    """Whether each row is classified as its label."""
    return logits.argmax(1) == y


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def named(name: str) -> Loss:
    """Look a loss up. Raises ValueError for an unknown name, naming the nearest."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
