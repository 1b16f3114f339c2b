"""Losses an attacker raises: one number per row, larger is worse for the model."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from .registry import unknown
from .types import Labels, Logits, Loss, PerRow, Rows


def cross_entropy(logits: Logits, y: Labels) -> PerRow:
    """-log softmax(logits)_y."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Logits, y: Labels) -> PerRow:
    """max_{j != y} logit_j - logit_y: positive exactly when the row is misclassified.

    Source: Carlini and Wagner 2017, arXiv:1608.04644, f_6 without its floor and with the sign turned.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - own


def correct(logits: Logits, y: Labels) -> Rows:
    """Whether each row is classified as its label."""
    return logits.argmax(1) == y


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}


def named(name: str) -> Loss:
    """Look a loss up. Raises ValueError for an unknown name, naming the nearest."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    return LOSSES[name]
