"""Adversarial training with one gradient step: FGSM from a random start, and N-FGSM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ... import losses
from ...attacks import PGD
from ...attacks.base import BaseAttack, positive
from ...attacks.oracle import Oracle
from ...registry import check_words
from ...seeding import by_row
from ...types import Cost, Images, Labels, Mode, Region, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .crafting import craft
from .standard import check_smoothing


@dataclass(frozen=True, kw_only=True)
class FGSMRS:
    """Cross-entropy on FGSM images from a random start: x + delta, delta uniform in the ball, one step, projected.

    May overfit to its own step (catastrophic overfitting): validation tests one step too, and the record says it.

    Options
        relative_step       step length as a fraction of the radius
        craft_in            mode of the network while images are made: "eval" or "train" (the paper's). Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1

    Cost: two forwards and backwards per image.
    Source: Wong et al. 2020, arXiv:2001.03994, alg. 3. Differs: crafted in eval mode by default.
    """

    name: ClassVar[str] = "fgsm-rs"
    label: ClassVar[str] = "FGSM-RS"
    robust: ClassVar[bool] = True
    one_step: ClassVar[bool] = True

    relative_step: float = 1.25
    craft_in: Mode = "eval"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        positive(self.name, relative_step=self.relative_step)
        check_smoothing(self.name, self.label_smoothing)
        check_words(self)

    def prepare(self, model: nn.Module) -> nn.Module:
        return copied(model)

    def attack(self) -> BaseAttack:
        """What crafts: one step."""
        return PGD(steps=1, relative_step=self.relative_step, keep="last")

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        crafted = craft(self.attack(), model, x, y, threat, self.craft_in, generator=generator)
        logits = logits_of(model, crafted.x_adv)
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        return Cost(loss, logits.detach(), crafted.forwards + len(x), crafted.backwards + len(x))


@dataclass(frozen=True, kw_only=True)
class NFGSM(FGSMRS):
    """Cross-entropy on FGSM images from a wide random start, not projected: they may leave the ball, in training alone.

        x_aug = clip(x + u), u uniform in [-k eps, k eps];  x_adv = clip(x_aug + relative_step eps sign(grad_x CE(x_aug)))

    Options
        k                   half-width of the noise as a multiple of the radius
        relative_step       step length as a fraction of the radius
        craft_in            mode of the network while images are made: "eval" or "train" (the paper's). Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1

    For linf alone. Cost: two forwards and backwards per image.
    Source: de Jorge et al. 2022, arXiv:2202.01181, alg. 1. Differs: crafted in eval mode by default; both points are kept in
    the box of pixels.
    """

    name: ClassVar[str] = "n-fgsm"
    label: ClassVar[str] = "N-FGSM"

    k: float = 2.0
    relative_step: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self.name, k=self.k)

    def attack(self) -> BaseAttack:
        return NoisyStep(k=self.k, relative_step=self.relative_step)


@dataclass(frozen=True, kw_only=True)
class NoisyStep(BaseAttack):
    """The step of `n-fgsm`, with its options. It leaves the ball, so it is no attack for an evaluation."""

    name: ClassVar[str] = "n-fgsm"
    kinds: ClassVar[tuple[str, ...]] = ("linf",)

    k: float = 2.0
    relative_step: float = 1.0

    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        shape, rng = x.shape[1:], region.generator
        noise = by_row(lambda n: torch.empty(n, *shape, dtype=torch.float32).uniform_(-1, 1, generator=rng), len(x)).to(x)
        start = (x + self.k * region.radius * noise).clamp(0, 1)
        evaluated = oracle.gradient(start, y, losses.cross_entropy, region.victims)
        x_adv = region.ascend(start, evaluated.grad, self.relative_step * region.radius).clamp(0, 1)
        return x_adv, torch.full_like(y, -1)
