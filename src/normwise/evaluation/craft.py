"""Adversarial images of one batch, without a verdict."""

from __future__ import annotations

from torch import nn

from ..attacks import PGD
from ..seeding import generator
from ..types import Attack, Batch, Images, Labels, Mode, Search, ThreatModel
from ..utils.model_state import device_of, running
from .coupling import measure_coupling
from .predictor import check_network


def attack(
    model: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    by: Attack | None = None,
    *,
    seed: int = 0,
    mode: Mode = "eval",
) -> Images:
    """Search for images in `threat.around(x)` that the model misclassifies; returns them, on the model's device.

    x are images (b, c, ...) with pixels in [0, 1], y their labels (b,). `by` is the attack (None: PGD-20). Whether rows are
    coupled is measured first; coupled rows are attacked as one batch. The model is left as it was. Whether an image is
    misclassified is for the model to say, or for `evaluate`, which checks. Raises ValueError as `evaluate` does.
    """
    x, y = x.to(device_of(model)), y.to(device_of(model))
    check_network(model, Batch(x, y, y), mode)
    with running(model, mode):
        coupled = len(x) > 1 and measure_coupling(model, [x], seed=seed).coupled
        return (by or PGD())(
            model, x, y, threat, generator=generator(seed, "attack"), search=Search(independent=not coupled)
        ).x_adv
