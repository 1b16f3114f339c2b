"""ABNN's training: clean images alone, and the target learns to live with the substitute's statistics."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn
from torch.nn import functional as F

from ..abnn import ABNN
from ..types import Cost, Images, Labels, ThreatModel


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """Cross-entropy on clean images, plus the alignment of the target's statistics with the delivered ones.

    Options
        align   weight of the alignment loss, which is 0 but for `source="statistics"`

    Cost: one forward and one backward per image; the substitute's pass is not counted.
    Raises ValueError for a network that is no ABNN.
    Source: Lo and Patel 2024, arXiv:2405.11708; the weight and the KL divergence are ours (the body was not available).
    """

    name: ClassVar[str] = "abnn"
    label: ClassVar[str] = "ABNN"
    robust: ClassVar[bool] = False

    align: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.align) and self.align >= 0):
            raise ValueError(f"align of abnn is a weight; got {self.align}; give a finite number >= 0")

    def prepare(self, model: nn.Module) -> nn.Module:
        if not isinstance(model, ABNN):
            raise ValueError(
                f"abnn trains a target with a substitute; got {type(model).__name__}; make one with abnn(target, substitute, x)"
            )
        return copy.deepcopy(model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        if self.align:
            loss = loss + self.align * model.alignment  # type: ignore[operator]
        return Cost(loss, logits.detach(), forwards=len(x), backwards=len(x))
