"""ABNN's training: clean images, and statistics that are to agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn
from torch.nn import functional as F

from ...models.abnn import ABNN
from ...types import Cost, Images, Labels, ThreatModel
from ...utils.forward import logits_in
from ...utils.model_state import copied
from .standard import check_smoothing


@dataclass(frozen=True, kw_only=True)
class AlignedBN:
    """Cross-entropy on clean images, and the alignment of the target's statistics with those its substitute delivers.

        loss = cross-entropy + align_weight * mean over layers of KL(own statistics || delivered statistics)

    Target and adaptive layers train, the substitute never does. The alignment is 0 where no statistics are delivered
    (adaptive.source "features", "fusion", "plain"): training is then the cross-entropy alone, as in the authors' code.

    Options
        align_weight        weight of the alignment loss (nats)
        label_smoothing     share of the target spread over all classes, 0 to 1

    Cost: two forwards (target and substitute; one where there is no substitute) and one backward (target) per image.
    Validation and evaluation count a pass through both networks as one.
    Raises ValueError for a model without adaptive layers.
    Source: Lo and Patel 2024, arXiv:2405.11708, abstract (clean training, statistics aligned). Differs: the form of the
    alignment loss and its weight are ours; the paper's text was not available and the authors' code has no such loss.
    """

    name: ClassVar[str] = "abnn"
    label: ClassVar[str] = "ABNN"
    robust: ClassVar[bool] = False

    align_weight: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        check_smoothing(self.name, self.label_smoothing)
        if not 0 <= self.align_weight < float("inf"):
            raise ValueError(f"align_weight of {self.name} is {self.align_weight}; give a finite number >= 0")

    def prepare(self, model: nn.Module) -> nn.Module:
        model = copied(_adaptive(model))
        if model.substitute is not None:
            model.substitute.freeze()
        return model

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        network = _adaptive(model)
        answer, alignment = network.aligned(x) if self.align_weight else (network(x), 0.0)
        logits = logits_in(answer, len(x))
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing) + self.align_weight * alignment
        forwards = len(x) * (1 if network.substitute is None else 2)
        return Cost(loss, logits.detach(), forwards=forwards, backwards=len(x))


def _adaptive(model: nn.Module) -> ABNN:
    if not isinstance(model, ABNN):
        raise ValueError(
            f"recipe abnn trains a network with adaptive layers; got a {type(model).__name__} without any; "
            "make one with abnn(target, substitute), or name a substitute"
        )
    return model
