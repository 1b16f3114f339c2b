"""Training with routed norms: clean images take one route, adversarial images the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Generator, nn
from torch.nn import functional as F

from ...norms import Routed, routed
from ...types import Cost, Images, Labels, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .mixed import Crafting, check_lam

CLEAN, ADVERSARIAL = 0, 1  # routes


@dataclass(frozen=True, kw_only=True)
class Routes(Crafting):
    """(1 - lam) * CE(clean images on route 0) + lam * CE(adversarial images on route 1), attacked on route 1.

    The evaluation uses the route that the norms are set to: `--norm mbn --norm.route 1`, or `on_route(model, 1)`. The
    checkpoint is always chosen on route 1: the clean route is most robust where it has learned least.

    Options
        lam                 weight of the adversarial images, between 0 and 1
        steps               PGD steps per batch, from a random start
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" or "train". Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1, in both terms

    Cost: steps + 2 forwards and backwards per image.
    Raises ValueError for a network without routed norms.
    Source: Xie and Yuille 2020, arXiv:1906.03787 (mixture BatchNorm); AdvProp: Xie et al. 2020, arXiv:1911.09665.
    """

    name: ClassVar[str] = "mbn"
    label: ClassVar[str] = "mixed, by routes"
    chosen_by: ClassVar[int] = ADVERSARIAL

    lam: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lam(self.name, self.lam)

    def prepare(self, model: nn.Module) -> nn.Module:
        if not any(isinstance(module, Routed) and module.routes > 1 and not module.kinds for module in model.modules()):
            raise ValueError(
                f"mbn trains networks with routes; {type(model).__name__} has none; use norm mbn, or convert(model, MBN())"
            )
        return copied(model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        with routed(model, ADVERSARIAL):
            crafted = self.craft(model, x, y, threat, generator)
            adversarial = logits_of(model, crafted.x_adv)
        with routed(model, CLEAN):
            clean = logits_of(model, x)
        terms = [F.cross_entropy(logits, y, label_smoothing=self.label_smoothing) for logits in (clean, adversarial)]
        loss = (1 - self.lam) * terms[0] + self.lam * terms[1]
        return Cost(loss, adversarial.detach(), crafted.forwards + 2 * len(x), crafted.backwards + 2 * len(x))
