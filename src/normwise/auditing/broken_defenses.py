"""Broken defences: networks that seem robust and are not, to test an evaluation on them; and sound relatives.

Each function takes a network and returns a new one that answers (nearly) as it does on clean images. Those of `BROKEN` let
attacks fail, or have no robustness of one image. Those of `TWO_FACED` take a fragile network and a sturdy one, and behave
differently for attackers. None of them is a defence. Those of `BENIGN_CONTROLS` are similar, and as robust as what they are
given. Source of the kinds: Athalye et al. 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705; Tramer et al. 2020,
arXiv:2002.08347.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..norms.layer import StatNorm
from ..types import Images, Logits
from ..utils.model_state import copied, set_mode

LEVELS = 8
_TRACKING = StatNorm | nn.BatchNorm2d | nn.BatchNorm3d


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
        planes = x.reshape(len(x), -1, *x.shape[-2:])  # each frame of a clip by itself
        mean = F.interpolate(F.avg_pool2d(planes, 2, ceil_mode=True), scale_factor=2.0)
        mean = mean[..., : x.shape[-2], : x.shape[-1]].reshape(x.shape)
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
            if isinstance(module, _TRACKING):
                module.train()
        logits: Tensor = self.inner(x)
        return logits


class _Updating(nn.Module):
    """Reads running statistics, and moves the first layer's with every batch it is asked about."""

    def __init__(self, model: nn.Module, momentum: float = 0.05) -> None:
        super().__init__()
        self.inner, self.momentum = copied(model), momentum
        norms = [m for m in self.inner.modules() if isinstance(m, _TRACKING)]
        if not norms:
            raise ValueError("this broken defence moves running statistics; got a network without any")
        norms[0].register_forward_pre_hook(self._move)

    def _move(self, module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen = given[0].detach()
        module.get_buffer("running_mean").lerp_(seen.mean((0, *range(2, seen.ndim))), self.momentum)

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.inner(x)
        return logits


class Remembers(nn.Module):
    """Keeps the first images it sees in a plain list, and answers what is near to one of them as it answered that one.

    The gradient is the network's own.
    """

    def __init__(self, model: nn.Module, rows: int = 600, within: float = 0.25) -> None:
        super().__init__()
        self.inner, self.rows, self.within = copied(model), rows, within
        self.seen: list[Tensor] = []
        self.said: list[Tensor] = []

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.inner(x)
        with torch.no_grad():
            near, answer = torch.zeros(len(x), dtype=torch.bool, device=x.device), logits.detach().clone()
            if self.seen:
                gap, nearest = torch.cdist(x.flatten(1), torch.stack(self.seen).flatten(1), p=math.inf).min(1)
                near = gap <= self.within
                answer = torch.where(near[:, None], torch.stack(self.said)[nearest], answer)
            for row in (~near).nonzero().flatten().tolist()[: self.rows - len(self.seen)]:
                self.seen.append(x[row].detach().clone())
                self.said.append(answer[row].clone())
        return logits + (answer - logits).detach()


class _Mirrored(nn.Module):
    """Answers about the mirrored picture as soon as a gradient is asked for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copied(model)

    def forward(self, x: Images) -> Logits:
        logits: Tensor = self.inner(x.flip(-1) if x.requires_grad else x)
        return logits


class _TwoFaced(nn.Module):
    """Two networks, and a rule that says for which images, or when, the fragile one answers."""

    def __init__(self, fragile: nn.Module, sturdy: nn.Module, rule: Callable[[Images], Tensor | bool]) -> None:
        super().__init__()
        self.fragile, self.sturdy, self.rule = copied(fragile), copied(sturdy), rule

    def forward(self, x: Images) -> Logits:
        shown = self.rule(x.detach())
        if isinstance(shown, bool):
            logits: Tensor = (self.fragile if shown else self.sturdy)(x)
            return logits
        return torch.where(shown[:, None], self.fragile(x), self.sturdy(x))


def _on_a_grid(x: Images) -> Tensor:
    """Per row, whether all pixels are whole multiples of 1/255 or of 1/16."""
    gaps = [(levels * x - (levels * x).round()).abs().flatten(1).amax(1) for levels in (255, 16)]
    return torch.stack(gaps).amin(0) < 1e-3


class _Caches(nn.Module):
    """Counts its calls, and keeps the answers to the last images: it asks the network itself where a gradient is asked for."""

    def __init__(self, model: nn.Module, rows: int = 1000) -> None:
        super().__init__()
        self.inner, self.rows, self.calls = copied(model), rows, 0
        self.kept: dict[bytes, Tensor] = {}

    def forward(self, x: Images) -> Logits:
        self.calls += 1
        if torch.is_grad_enabled():
            logits: Tensor = self.inner(x)
            return logits
        keys = [row.cpu().contiguous().numpy().tobytes() for row in x]
        if not all(key in self.kept for key in keys):
            self.kept = dict(list(self.kept.items())[-self.rows :]) | dict(zip(keys, self.inner(x), strict=True))
        return torch.stack([self.kept[key] for key in keys]).clone()


class _FastPath(nn.Module):
    """Without a graph the rows go through the network in two halves, as an attention layer takes another kernel then."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copied(model)

    def forward(self, x: Images) -> Logits:
        parts = (x,) if torch.is_grad_enabled() else x.split(-(-len(x) // 2))
        return torch.cat([self.inner(part) for part in parts])


class _WholeNumbers(nn.Module):
    """As an int8 network: weights, and what each layer answers to an image, take 255 values, and nothing passes a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = copied(model)
        with torch.no_grad():
            for layer in self.inner.modules():
                if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
                    layer.weight.copy_(_in_8_bits(layer.weight[None])[0])
                    layer.register_forward_hook(_answer_in_8_bits)

    def forward(self, x: Images) -> Logits:
        with torch.no_grad():
            logits: Tensor = self.inner(x)
            return logits


def _in_8_bits(x: Tensor) -> Tensor:
    size = x.flatten(1).abs().amax(1).clamp_min(1e-12).view(-1, *[1] * (x.ndim - 1)) / 127
    return (x / size).round() * size


def _answer_in_8_bits(layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
    return _in_8_bits(answer)


BROKEN: dict[str, Callable[[nn.Module], nn.Module]] = {
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
TWO_FACED: dict[str, Callable[[nn.Module, nn.Module], nn.Module]] = {
    "remembers images": lambda fragile, sturdy: Remembers(fragile).eval(),
    "mirrored for gradients": lambda fragile, sturdy: _Mirrored(fragile).eval(),
    "fragile on the grid": lambda fragile, sturdy: _TwoFaced(fragile, sturdy, _on_a_grid).eval(),
    "fragile in inference_mode": lambda fragile, sturdy: _TwoFaced(
        fragile, sturdy, lambda x: torch.is_inference_mode_enabled()
    ).eval(),
    "fragile in autocast": lambda fragile, sturdy: _TwoFaced(
        fragile, sturdy, lambda x: torch.is_autocast_enabled(x.device.type)
    ).eval(),
    "fragile alone": lambda fragile, sturdy: _TwoFaced(fragile, sturdy, lambda x: len(x) == 1).eval(),
}
BENIGN_CONTROLS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "rounds to 255 levels": lambda model: before(model, Round(255)),
    "fast path without a graph": lambda model: _FastPath(model).eval(),
    "counts and caches": lambda model: _Caches(model).eval(),
    "whole numbers": lambda model: _WholeNumbers(model).eval(),
}
