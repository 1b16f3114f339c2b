"""ABNN's layer: a normalization that takes its statistics, or its scale and shift, from another network's features."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layer import StatNorm

Source = Literal["features", "statistics", "constant", "fusion", "plain"]
Scope = Literal["batch", "channel", "sample"]


class EqualLinear(nn.Linear):
    """A linear layer whose weights are drawn from N(0, 1) and multiplied by sqrt(2 / inputs) when used.

    Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.1, as ABNN's authors use it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        nn.init.normal_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * math.sqrt(2 / self.in_features), self.bias)


class AdaptiveNorm(nn.Module):
    """Normalize z of shape (b, channels, ...) by what a substitute's features h of shape (b, features, ...) say.

    With u = BatchNorm(z), running statistics and affine parameters its own:

        features      gamma(h) * (std(h) * u + mean(h)) + beta(h); gamma, beta per sample by a linear head
        statistics    weight * (z - m) / sqrt(v + eps) + bias; m, v linear in the mean and deviation of h's channels
        constant      as statistics, from h's mean and deviation as running averages of training: a control
        fusion        u + a linear head of h: a control, features without statistics
        plain         u: a control, one more BatchNorm

    "features" is the authors' code; "statistics" is our own reading of the abstract (clean statistics are delivered and
    replace the target's), since the paper's body was not available. `scope` says over what the mean and deviation of h are
    taken: the whole batch as two numbers ("batch", the authors' code: rows are coupled), each channel over the batch
    ("channel"), or each channel of each sample ("sample"). Per channel they pass through a learned linear map that starts
    as the mean over h's channels.

    After a forward in training with "statistics", `alignment` is the mean over channels of KL(N(target's) || N(delivered)),
    else 0.

    Options
        size    length of one flattened sample of h: the head reads all of it; 0: h averaged over positions (the default)

    Raises ValueError for an unknown source or scope. Statistics are float32 at least; a constant h gives no NaN.
    Source: Lo and Patel 2024, arXiv:2405.11708, and the first author's public video code. Differs: pooled head by default.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        *,
        source: Source = "features",
        scope: Scope = "batch",
        size: int = 0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if source not in get_args(Source) or scope not in get_args(Scope):
            raise ValueError(
                f"source is {source!r} and scope {scope!r}; "
                f"give one of {', '.join(get_args(Source))}, and one of {', '.join(get_args(Scope))}"
            )
        self.channels, self.features, self.source, self.scope, self.size, self.eps = (
            channels,
            features,
            source,
            scope,
            size,
            eps,
        )
        self.norm = StatNorm(channels, eps=eps)
        self.alignment: Tensor | float = 0.0
        if source == "features":
            self.head = EqualLinear(size or features, 2 * channels)
            nn.init.ones_(self.head.bias[:channels])
        if source == "fusion":
            self.head = EqualLinear(size or features, channels)
        mapped = source in ("statistics", "constant") or (source == "features" and scope != "batch")
        if mapped:
            self.centre, self.spread = nn.Linear(features, channels), nn.Linear(features, channels)
            for layer in (self.centre, self.spread):
                nn.init.constant_(layer.weight, 1 / features)
                nn.init.zeros_(layer.bias)
        if source == "constant":
            self.register_buffer("seen_mean", torch.zeros(features))
            self.register_buffer("seen_deviation", torch.ones(features))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        shape = [-1, self.channels] + [1] * (z.ndim - 2)
        if self.source in ("statistics", "constant"):
            return self._delivered(z, h)
        u = self.norm(z)
        if self.source == "plain":
            return u
        read = h.flatten(1) if self.size else h.flatten(2).mean(2) if h.ndim > 2 else h
        if self.source == "fusion":
            return u + self.head(read).view(shape)
        gamma, beta = self.head(read).split(self.channels, 1)
        mean, deviation = self._moments(h)
        if self.scope != "batch":
            mean, deviation = self.centre(mean).view(shape), self.spread(deviation).view(shape)
        return (gamma.view(shape) * (deviation * u + mean) + beta.view(shape)).to(z.dtype)

    def _moments(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the features over the scope: numbers, (1, features) or (b, features)."""
        h = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
        if self.scope == "batch":
            variance, mean = torch.var_mean(h, correction=0)
        elif self.scope == "channel":
            variance, mean = torch.var_mean(h.transpose(0, 1).flatten(1), 1, correction=0)
            variance, mean = variance[None], mean[None]
        else:
            variance, mean = torch.var_mean(h.flatten(2) if h.ndim > 2 else h[..., None], 2, correction=0)
        return mean, (variance + self.eps).sqrt()

    def _delivered(self, z: Tensor, h: Tensor) -> Tensor:
        if self.source == "constant":
            mean, deviation = self._constant(h)
        else:
            mean, deviation = self._moments(h)
        if mean.ndim == 0:
            mean, deviation = mean.expand(1, self.features), deviation.expand(1, self.features)
        centre, spread = self.centre(mean), F.softplus(self.spread(deviation)) + self.eps
        if self.training:
            self.alignment = self._distance(z, centre, spread)
        shape = [-1, self.channels] + [1] * (z.ndim - 2)
        u = (z - centre.view(shape)) / spread.view(shape)
        assert self.norm.weight is not None
        assert self.norm.bias is not None
        return torch.addcmul(self.norm.bias.view(shape), u, self.norm.weight.view(shape)).to(z.dtype)

    def _constant(self, h: Tensor) -> tuple[Tensor, Tensor]:
        if self.training:
            with torch.no_grad():
                variance, mean = torch.var_mean(h.transpose(0, 1).flatten(1), 1, correction=0)
                self.get_buffer("seen_mean").lerp_(mean.to(self.get_buffer("seen_mean")), 0.1)
                self.get_buffer("seen_deviation").lerp_((variance + self.eps).sqrt().to(self.get_buffer("seen_mean")), 0.1)
        return self.get_buffer("seen_mean")[None], self.get_buffer("seen_deviation")[None]

    def _distance(self, z: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
        """KL(N(m, v) || N(centre, spread^2)) with the moments of z over the same scope, mean over channels and samples."""
        flat = z.flatten(2) if z.ndim > 2 else z[..., None]
        each = self.scope == "sample" and self.source == "statistics"
        variance, mean = torch.var_mean(flat, 2, correction=0) if each else torch.var_mean(flat, (0, 2), correction=0)
        variance = variance + self.eps
        ratio = variance / spread**2
        return (0.5 * (ratio + (mean - centre) ** 2 / spread**2 - 1 - ratio.log())).mean()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "alignment": 0.0}  # a graph cannot be copied

    def extra_repr(self) -> str:
        return f"{self.channels}, features={self.features}, source={self.source!r}, scope={self.scope!r}"
