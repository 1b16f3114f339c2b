"""Clean and adversarial images in one loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, nn
from torch.nn import functional as F

from ...attacks import PGD
from ...attacks.base import at_least, positive
from ...registry import check_words
from ...types import Cost, Images, Labels, Mode, Proposal, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .crafting import craft
from .standard import check_smoothing


@dataclass(frozen=True, kw_only=True)
class Crafting:
    """What the recipes share that craft with PGD: `steps`, `relative_step`, `craft_in` and `label_smoothing` of `mixed`."""

    name: ClassVar[str]
    robust: ClassVar[bool] = True

    steps: int = 10
    relative_step: float | None = None
    craft_in: Mode = "eval"
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        at_least(self.name, 1, steps=self.steps)
        if self.relative_step is not None:
            positive(self.name, relative_step=self.relative_step)
        check_smoothing(self.name, self.label_smoothing)
        check_words(self)

    def prepare(self, model: nn.Module) -> nn.Module:
        return copied(model)

    def attack(self, threat: ThreatModel) -> PGD:
        """The PGD that crafts: its step is the one given, else min(1.25 eps, eps + 4/255) / steps (1.25 eps off linf)."""
        reach = 1.25
        if threat.name == "linf" and (eps := getattr(threat, "eps", 0.0)) > 0:
            reach = min(reach, 1 + 4 / 255 / eps)
        step = self.relative_step or reach / self.steps
        return PGD(steps=self.steps, relative_step=step, keep="last")

    def craft(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, generator: Generator) -> Proposal:
        """Attack the batch in the mode `craft_in`; the model is left as it was."""
        return craft(self.attack(threat), model, x, y, threat, self.craft_in, generator=generator)


@dataclass(frozen=True, kw_only=True)
class Mixed(Crafting):
    """(1 - lam) * CE(clean images) + lam * CE(adversarial images), both with smoothed labels.

    Options
        lam                 weight of the adversarial images, between 0 (that is `standard`) and 1 (that is `adversarial`)
        batches             which images share a forward pass, and so batch statistics: "separate" (clean, then adversarial
                            images: two passes) or "concatenated" (both: one pass over twice the images)
        steps               PGD steps per batch, from a random start
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" or "train". The attack raises the cross-entropy
                            without smoothing; buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1, in both terms

    Cost: steps + 2 forwards and backwards per image.
    Source: Goodfellow et al. 2015, arXiv:1412.6572, sec. 6; the settings and the BatchNorm baseline ("separate") of Wang et
    al. 2022, arXiv:2207.01156, as in their code. Differs: crafted before the clean forward, so that no graph is held
    meanwhile (with "separate", running statistics that the attack sees are one update older).
    """

    name: ClassVar[str] = "mixed"
    label: ClassVar[str] = "mixed PGD adversarial"

    lam: float = 0.5
    batches: Literal["separate", "concatenated"] = "separate"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lam(self.name, self.lam)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        crafted = self.craft(model, x, y, threat, generator)
        if self.batches == "concatenated":
            clean, adversarial = logits_of(model, torch.cat([x, crafted.x_adv])).split(len(x))
        else:
            clean, adversarial = logits_of(model, x), logits_of(model, crafted.x_adv)
        terms = [F.cross_entropy(logits, y, label_smoothing=self.label_smoothing) for logits in (clean, adversarial)]
        loss = (1 - self.lam) * terms[0] + self.lam * terms[1]
        return Cost(loss, adversarial.detach(), crafted.forwards + 2 * len(x), crafted.backwards + 2 * len(x))


def check_lam(recipe: str, lam: float) -> None:
    """Refuse a weight that leaves nothing of one kind of image. Raises ValueError."""
    if not 0 < lam < 1:
        raise ValueError(
            f"lam of {recipe} is {lam}; give a number between 0 and 1 (0 is the recipe standard, 1 the recipe adversarial)"
        )
