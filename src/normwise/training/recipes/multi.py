"""Adversarial training against several attackers at once: their mean, or each image's worst."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ...threats.scaled import KINDS, Kind, scaled
from ...types import Cost, Images, Labels, Proposal, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import running, untouched
from .mixed import Crafting


@dataclass(frozen=True, kw_only=True)
class Multi(Crafting):
    """Adversarial training against several attackers, scaled to the images as `threats.scaled` says.

        mean    the mean over the attackers of CE(their images)
        max     CE of each image as the attacker makes it that raises its cross-entropy most

    Options
        kinds               attackers: some of linf, l2, multav, roa, af, spa
        over                "mean" or "max"
        steps               PGD steps per attacker; a patch is at a random place
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" or "train". Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1

    One forward pass over the images of all attackers together: they share batch statistics. Cost, k attackers: k (steps + 1)
    forwards and backwards per image; "max": k (steps + 1) + 1 forwards and k steps + 1 backwards. Raises ValueError for a
    threat model that is not in linf.
    Source: Tramer and Boneh 2019, arXiv:1904.13000, sec. 3 ("avg" and "max" strategies).
    """

    name: ClassVar[str] = "multi"

    kinds: tuple[Kind, ...] = ("linf", "roa")
    over: Literal["mean", "max"] = "mean"
    steps: int = 5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self.name, self.kinds)

    @property
    def label(self) -> str:
        return f"{self.kinds[0]} adversarial" if len(self.kinds) == 1 else f"multi-attack {self.over}"

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        crafted = craft_each(self, self.kinds, model, x, y, threat, generator)
        inputs, asked = torch.cat([one.x_adv for one in crafted]), 0
        if self.over == "max":
            with running(model, self.craft_in), untouched(model, generator), torch.no_grad():
                losses = _losses([logits_of(model, one.x_adv) for one in crafted], y)
            inputs, asked = _of_worst([one.x_adv for one in crafted], losses), len(y) * len(crafted)
        answers = logits_of(model, inputs).split(len(y))
        loss = torch.stack([F.cross_entropy(one, y, label_smoothing=self.label_smoothing) for one in answers]).mean()
        logits = [one.detach() for one in answers]
        n = len(inputs)
        forwards, backwards = (sum(getattr(one, way) for one in crafted) for way in ("forwards", "backwards"))
        return Cost(loss, _of_worst(logits, _losses(logits, y)), forwards + asked + n, backwards + n)


def craft_each(
    recipe: Crafting,
    kinds: Sequence[str],
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    generator: Generator,
) -> list[Proposal]:
    """The batch as each of these attackers makes it."""
    return [recipe.craft(model, x, y, scaled(kind, threat, x.shape[1:]), generator) for kind in kinds]


def check_kinds(choice: str, kinds: Sequence[str]) -> None:
    """Refuse attackers that are not known, none, and one twice. Raises ValueError."""
    if not kinds or not set(kinds) <= set(KINDS) or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds of {choice} are {', '.join(kinds) or 'none'}; give some of {', '.join(KINDS)}, each once")


def _losses(answers: Sequence[Tensor], y: Labels) -> Tensor:
    """The cross-entropy of each answer and row: (k, b)."""
    return torch.stack([F.cross_entropy(one, y, reduction="none") for one in answers])


def _of_worst(values: Sequence[Tensor], losses: Tensor) -> Tensor:
    """Of each row what belongs to its largest loss."""
    return torch.stack(list(values))[losses.argmax(0), torch.arange(losses.shape[1], device=losses.device)]
