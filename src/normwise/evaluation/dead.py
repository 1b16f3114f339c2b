"""Does a network give almost every image the same class? Then an attack finds nothing to change, and robust accuracy says nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..records import Check
from ..types import Batch
from ..utils.model_state import running
from .predictor import Predictor

NAME = "dead decision"
WHY = "a network that gives most images the same class is robust but useless: quote clean accuracy beside robust accuracy"
FEW = 20  # images, below which chance may give most of them one class


def asked(model: nn.Module, batches: Sequence[Batch], seed: int) -> Check:
    """Ask a network, in evaluation mode, about images (see `check_decision`)."""
    with running(model, "eval"):
        predictor = Predictor(model, seed)
        answers = torch.cat(
            [predictor.answers(*(part.to(predictor.device) for part in (b.x, b.y)))[0].cpu() for b in batches]
        )
    return check_decision(answers, torch.cat([batch.y for batch in batches]))


def check_decision(answers: Tensor, labels: Tensor, strict: bool = False) -> Check:
    """Warn if the most frequent answer's share exceeds that of the most frequent label by more than half of what is left to 1.

    `strict`, for audits: also if it is more than twice that share. `answers` and `labels` are classes, (n,) each.
    """
    n = len(labels)
    if n < FEW:
        return Check(name=NAME, status="pass", measured=f"not measured: needs {FEW} images", why=WHY, n=n)
    said, labelled, measured = shares(answers, labels)
    most = min((1 + labelled) / 2, 2 * labelled if strict else 1.0)
    return Check(name=NAME, status="warn" if said > most else "pass", measured=measured, why=WHY, n=n)


def shares(answers: Tensor, labels: Tensor) -> tuple[float, float, str]:
    """The share of the most frequent answer, that of the most frequent label, and both in words; classes are (n,)."""
    said, labelled = (int(classes.cpu().bincount().max()) / len(labels) for classes in (answers, labels))
    text = f"the most frequent class is predicted for {100 * said:.0f}% of images, the most frequent label has {100 * labelled:.0f}%"
    return said, labelled, text
