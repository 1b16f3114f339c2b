"""MultiBN's training: every type of image on a route of its own, and a detector that learns to tell the types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from ...norms import Routed, routed
from ...norms.multibn import Detector, detected
from ...types import Cost, Images, Labels, ThreatModel
from ...utils.forward import logits_of
from ...utils.model_state import copied
from .mixed import Crafting
from .multi import check_kinds, craft_each


@dataclass(frozen=True, kw_only=True)
class MultiRoutes(Crafting):
    """The mean of CE over clean images on route 0 and over each attacker's images on its own route, and the detector's CE.

        loss = mean over routes r of CE(images of type r on route r) + CE(detector(images of type r), r)

    The attackers are the `kinds` of the norm, scaled to the images as `threats.scaled` says. Each makes its images on its
    own route. Validation, as any evaluation, goes through the detector.

    Options
        steps               PGD steps per attacker; a patch is at a random place
        relative_step       step length as a fraction of the radius; null: min(1.25 eps, eps + 4/255) / steps
        craft_in            mode of the network while images are made: "eval" or "train". Buffers do not change
        label_smoothing     share of the target spread over all classes, 0 to below 1; not of the detector

    Cost, k attackers: k (steps + 1) + 1 forwards and backwards per image; the detector's passes are not counted.
    Raises ValueError for a network without the norm `multibn`, and for a threat model that is not in linf.
    Source: Lo and Patel 2021, arXiv:2009.05244. Differs: detector and network train at the same time.
    """

    name: ClassVar[str] = "multibn"
    label: ClassVar[str] = "MultiBN"

    steps: int = 5
    label_smoothing: float = 0.0

    def prepare(self, model: nn.Module) -> nn.Module:
        _parts(model)
        return copied(model)

    def loss(self, model: nn.Module, x: Images, y: Labels, threat: ThreatModel, *, generator: Generator) -> Cost:
        layers, detector = _parts(model)
        inputs, answers, forwards, backwards = [x], list[Tensor](), 0, 0
        for route, kind in enumerate(layers[0].kinds, 1):
            with routed(model, route):
                (made,) = craft_each(self, [kind], model, x, y, threat, generator)
            inputs.append(made.x_adv)
            forwards, backwards = forwards + made.forwards, backwards + made.backwards
        for route, images in enumerate(inputs):
            with routed(model, route):
                answers.append(logits_of(model, images))
        terms = [F.cross_entropy(one, y, label_smoothing=self.label_smoothing) for one in answers]
        types = torch.arange(len(inputs), device=y.device).repeat_interleave(len(y))
        detector_loss = F.cross_entropy(detector(torch.cat(inputs)), types)
        n = len(inputs) * len(y)
        return Cost(torch.stack(terms).mean() + detector_loss, answers[-1].detach(), forwards + n, backwards + n)


def _parts(model: nn.Module) -> tuple[list[Routed], Detector]:
    """The layers with routes, and the detector. Raises ValueError where they are not there."""
    layers = detected(model)
    found = [module for module in model.modules() if isinstance(module, Detector)]
    if not layers or len(found) != 1:
        raise ValueError(
            f"multibn trains networks with routes by attack and a detector; {type(model).__name__} has none; use norm multibn, or "
            "convert(model, MultiBN())"
        )
    check_kinds("the norm multibn", layers[0].kinds)
    return layers, found[0]
