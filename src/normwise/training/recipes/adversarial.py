"""PGD adversarial training: cross-entropy on the images PGD makes of the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn
from torch.nn import functional as F

from ...attacks import PGD
from ...types import Cost, Images, Labels, Mode, ThreatModel
from .crafting import craft
from .part import Part
from .standard import check_smoothing


@dataclass(frozen=True, kw_only=True)
class Adversarial(Part):
    """Minimize the cross-entropy on adversarial images, which PGD finds inside the threat model.

    Options
        steps               PGD steps per batch
        relative_step       step length as a fraction of the radius
        craft_in            mode of the norm layers while images are made: "eval" (as when the network is attacked later) or
                            "train" (older code, with batch statistics). Buffers do not change in either
        label_smoothing     share of the target spread over all classes, 0 to 1

    Cost: steps + 1 forwards and backwards per image.
    Source: Madry et al. 2018, arXiv:1706.06083, eq. 2.1 and sec. 5; with the norms alone: Walter et al. 2022,
    arXiv:2204.12393. Differs: crafted in eval mode by default.
    """

    name: ClassVar[str] = "adversarial"
    label: ClassVar[str] = "PGD adversarial"
    robust: ClassVar[bool] = True

    steps: int = 7
    relative_step: float = 0.25
    craft_in: Mode = "eval"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._attack()  # checks its own options
        check_smoothing(self.name, self.label_smoothing)

    def _attack(self) -> PGD:
        return PGD(steps=self.steps, relative_step=self.relative_step, keep="last")

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        crafted = craft(self._attack(), model, x, y, threat, self.craft_in, generator=generator)
        logits = self.answer(model, crafted.x_adv)
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        n = len(x)
        return Cost(loss, logits.detach(), forwards=crafted.forwards + n, backwards=crafted.backwards + n)
