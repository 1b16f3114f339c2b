"""Broken defences: networks that seem robust and are not, to see whether an evaluation finds them out.

Each function takes a network and returns a new one that answers (nearly) as it does on clean images and lets attacks fail, or
that cannot be judged row by row. None of them is a defence.
Source of the kinds: Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramer et al. 2020, arXiv:2002.08347.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .modes import copied, set_mode
from .norms.layer import StatNorm
from .types import Images, Logits

LEVELS = 8


class Cut(nn.Module):
    """Passes images on, and no gradient back."""

    def forward(self, x: Images) -> Images:
        return x.detach()


class Round(nn.Module):
    """Rounds pixels to `levels` steps: the gradient is 0 nearly everywhere."""

    def __init__(self, levels: int = LEVELS) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Images) -> Images:
        return (self.levels * x).round() / self.levels


class Blocks(nn.Module):
    """As JPEG does: the mean of each block of 2 x 2 pixels is rounded finely, what differs from it coarsely."""

    def forward(self, x: Images) -> Images:
        mean = F.interpolate(F.avg_pool2d(x, 2, ceil_mode=True), scale_factor=2.0)[..., : x.shape[-2], : x.shape[-1]]
        return (32 * mean).round() / 32 + (LEVELS * (x - mean)).round() / LEVELS


class Thermometer(nn.Module):
    """Codes each pixel by how many of 8 levels it exceeds. Source: Buckman et al. 2018 (ICLR). Differs: summed up again."""

    def forward(self, x: Images) -> Images:
        levels = (torch.arange(LEVELS, device=x.device, dtype=x.dtype) + 0.5) / LEVELS
        return (x.unsqueeze(-1) > levels).to(x).mean(-1)


class Noise(nn.Module):
    """Adds Gaussian noise of this deviation, drawn anew in every pass."""

    def __init__(self, deviation: float = 0.1) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Images) -> Images:
        return x + self.deviation * torch.randn_like(x)


class Scale(nn.Module):
    """Multiplies logits, so that a softmax of them is exactly 0 or 1."""

    def __init__(self, factor: float = 100.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Logits) -> Logits:
        return self.factor * logits


def before(model: nn.Module, layer: nn.Module) -> nn.Module:
    """A copy of the network behind another layer."""
    return set_mode(nn.Sequential(layer, copied(model)), "eval")


def after(model: nn.Module, layer: nn.Module) -> nn.Module:
    """A copy of the network before another layer."""
    return set_mode(nn.Sequential(copied(model), layer), "eval")


class _AlwaysTraining(nn.Module):
    """Norms stay in training mode: they read the batch, and move their statistics at test time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copied(model)

    def forward(self, x: Images) -> Logits:
        for module in self.inner.modules():
            if isinstance(module, StatNorm | nn.BatchNorm2d):
                module.train()
        logits: Tensor = self.inner(x)
        return logits


class _Updating(nn.Module):
    """Reads running statistics, and moves the first layer's with every batch it is asked about."""

    def __init__(self, model: nn.Module, momentum: float = 0.05) -> None:
        super().__init__()
        self.inner, self.momentum = copied(model), momentum
        norms = [m for m in self.inner.modules() if isinstance(m, StatNorm | nn.BatchNorm2d)]
        if not norms:
            raise ValueError("this illusion moves running statistics; got a network without any")
        norms[0].register_forward_pre_hook(self._move)

    def _move(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen = given[0].detach()
        module.get_buffer("running_mean").lerp_(seen.mean((0, *range(2, seen.ndim))), self.momentum)

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.inner(x)
        return logits


ILLUSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "left in training": lambda model: _AlwaysTraining(model).eval(),
    "updates at test time": lambda model: _Updating(model).eval(),
    "gradient cut": lambda model: before(model, Cut()),
    "rounded pixels": lambda model: before(model, Round()),
    "blocks as in JPEG": lambda model: before(model, Blocks()),
    "thermometer code": lambda model: before(model, Thermometer()),
    "noise": lambda model: before(model, Noise()),
    "logits times 100": lambda model: after(model, Scale()),
    "probabilities": lambda model: after(
        model, nn.Sequential(Scale(20.0), nn.Softmax(1))
    ),  # as defensive distillation leaves them
}
