"""Standard training: cross-entropy on clean images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn
from torch.nn import functional as F

from ...types import Cost, Images, Labels, ThreatModel
from .part import Part


@dataclass(frozen=True, kw_only=True)
class Standard(Part):
    """Cross-entropy on clean images.

    Options
        label_smoothing     share of the target spread over all classes, 0 to 1

    Cost: one forward and one backward per image.
    """

    name: ClassVar[str] = "standard"
    label: ClassVar[str] = "standard"
    robust: ClassVar[bool] = False

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.name, self.label_smoothing)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        logits = self.answer(model, x)
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        return Cost(loss, logits.detach(), forwards=len(x), backwards=len(x))


def check_smoothing(recipe: str, value: float) -> None:
    """Refuse a label smoothing that is not a share. Raises ValueError."""
    if not 0 <= value < 1:
        raise ValueError(f"label_smoothing of {recipe} is a share; got {value}; give a number from 0 to below 1")
