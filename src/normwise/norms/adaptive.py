"""A norm layer whose statistics come from another network's features of the same input (ABNN), and its controls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import unknown
from .layer import StatNorm
from .moments import at_least_float32, pooled_moments, row_moments

Source = Literal["features", "statistics", "constant", "fusion", "plain"]
Scope = Literal["batch", "channel", "sample"]
Head = Literal["pooled", "flattened"]

# What each source can be asked for, and the scope it has if none is named: the authors' code's, and BatchNorm's.
_HEADED: tuple[Source, ...] = ("features", "fusion")
_SCOPES: dict[Source, Scope] = {"features": "batch", "statistics": "channel", "constant": "channel"}


def check_adaptive(source: Source, scope: Scope | None, head: Head, affine: bool = True) -> None:
    """Refuse options of an adaptive layer that are unknown or do not go together. Raises ValueError."""
    for kind, value, hint in (("source", source, Source), ("scope", scope, Scope), ("head", head, Head)):
        if value not in get_args(hint) and not (kind == "scope" and value is None):
            raise unknown(kind, value, list(get_args(hint)))
    if scope is not None and source not in _SCOPES:
        raise ValueError(f"source {source} reads no statistics; got scope {scope!r}; leave scope out")
    if head != "pooled" and source not in _HEADED:
        raise ValueError(f"source {source} has no head; got head {head!r}; leave head out")
    if not affine and source != "features":
        raise ValueError(f"affine is an option of source features; got source {source}; leave affine out")


class EqualLinear(nn.Module):
    """y = x (w sqrt(2 / inputs))^T + b, w drawn from N(0, 1): the learning rate is the same whatever the fan-in.

    (b, inputs) -> (b, outputs). Source: Karras et al. 2018, arXiv:1710.10196, sec. 4.1.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.zeros(outputs))
        self.scale = math.sqrt(2 / inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) * self.scale, self.bias.to(x.dtype))


class _WideLinear(nn.Linear):
    """A linear layer that computes in the precision of its input, whatever that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class AdaptiveNorm(nn.Module):
    """Normalize the target's features z by what a substitute's features h of the same input say.

    Reads z (b, channels, ...) and h (b, *features), any ranks >= 2, any sizes after the channels; gives z's shape and dtype.
    Of h it takes a mean m and a variance v, in float32 at least, by `scope`; its own parameters may be of half precision.

    source "features" (the authors' code):
        out = gamma (sqrt(v + eps) BN(z) + m) + beta;   gamma, beta = equalized linear of h, one per row and channel
        In scope "channel" and "sample" m and the root become the target's channels by a learned map where the numbers of
        channels differ.
    source "statistics" (our reading of the paper's abstract; its text was not available):
        out = weight (z - centre) / spread + bias;   centre, log spread^2 = linear of (m, sqrt(v + eps))
        The linear map starts at 0, so that the layer starts as the identity.
    Controls:
        "constant"  as "statistics", but in evaluation m and v are running averages: nothing is read from the present input
        "fusion"    out = BN(z) + linear of h: the substitute gives features, no statistics
        "plain"     out = BN(z): no substitute

    Options
        source      see above
        scope       m and v over "batch" (two numbers for the whole tensor), "channel" (per channel over the batch) or "sample"
                    (per row and channel; rows then stay independent). None: "batch" for features, else "channel"
        affine      of features: BN(z) has a scale and a shift of its own, as in the code; without them, and with scope "channel",
                    the layer is gamma (sqrt(v + eps) (z - mean) / deviation + m) + beta, the best-supported reading of the paper
        head        what the linear of features and fusion reads: "pooled" (mean over positions) or "flattened" (all of h)
        eps         added to variances
        momentum    of "constant": weight of a new batch in its running averages; None: their plain average since the last
                    `reset_running_stats`

    Raises ValueError for options that do not go together and for features of other sizes than the layer was made for.
    Source: Lo and Patel 2024, arXiv:2405.11708 (abstract); first author's code, shaoyuanlo/GARD_eval,
    models/resnext_onthefly.py (source "features", scope "batch", head "flattened"). Differs: pooled head unless asked; eps
    inside the root, where the code's root of a constant tensor has no gradient.
    """

    running_mean: Tensor
    running_var: Tensor
    synchronized: bool = False  # statistics are those of the batches of all processes, see `convert_sync`

    pass_state: ClassVar[tuple[str, ...]] = ("_averaged",)  # what a pass in training changes beside buffers

    def __init__(
        self,
        channels: int,
        features: Sequence[int] = (),
        *,
        source: Source = "features",
        scope: Scope | None = None,
        head: Head = "pooled",
        affine: bool = True,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__()
        check_adaptive(source, scope, head, affine)
        if not features and source != "plain":
            raise ValueError(f"source {source} reads a substitute's features; got none; give their shape (channels, ...)")
        self.channels, self.features, self.source, self.head = channels, tuple(features), source, head
        self.scope: Scope = scope or _SCOPES.get(source, "channel")
        self.eps, self.momentum = eps, momentum
        if source in ("features", "fusion", "plain"):
            self.norm = StatNorm(channels, eps=eps, affine=affine)
        if source in ("features", "fusion"):
            inputs = math.prod(features) if head == "flattened" else features[0]
            self.style: nn.Module = (
                EqualLinear(inputs, 2 * channels) if source == "features" else _WideLinear(inputs, channels)
            )
        if source == "features":
            nn.init.ones_(self.style.bias[:channels])  # type: ignore[index]
            self.match: nn.Module = nn.Identity()
            if self.scope != "batch" and features[0] != channels:
                self.match = _WideLinear(features[0], channels, bias=False)
                nn.init.constant_(self.match.weight, 1 / features[0])
        if source in ("statistics", "constant"):
            read = 1 if self.scope == "batch" else features[0]
            self.map = _WideLinear(2 * read, 2 * channels)
            nn.init.zeros_(self.map.weight)
            nn.init.zeros_(self.map.bias)
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        if source == "constant":
            self.register_buffer("running_mean", torch.zeros(read))
            self.register_buffer("running_var", torch.ones(read))
        self._averaged = 0  # batches in the plain average

    @property
    def tracks(self) -> bool:
        """Whether it keeps running averages of what it reads, as source "constant" does."""
        return self.source == "constant"

    def reset_running_stats(self) -> None:
        """Forget the running averages of source "constant": mean 0, variance 1, no batch seen."""
        if self.tracks:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self._averaged = 0

    def forward(self, z: Tensor, h: Tensor | None = None) -> Tensor:
        self._check(z, h)
        with torch.autocast(z.device.type, enabled=False):
            if h is None or self.source == "plain":
                return self.norm(z)
            return self._adapt(at_least_float32(z), at_least_float32(h)).to(z.dtype)

    def divergence(self, z: Tensor, h: Tensor) -> Tensor:
        """How far the target's own statistics are from the delivered ones, one number >= 0, in nats.

        KL(N(own mean, own variance) || N(centre, spread^2)), mean over channels (and rows in scope "sample"); own statistics
        are z's, per channel, over the batch or, in scope "sample", the row. 0 for the sources that deliver no statistics.
        """
        self._check(z, h)
        if self.source not in ("statistics", "constant"):
            return at_least_float32(z).new_zeros(())
        with torch.autocast(z.device.type, enabled=False):
            mean, variance = self._moments(at_least_float32(z), "sample" if self.scope == "sample" else "channel")
            centre, log_spread = self._delivered(at_least_float32(h))
            variance = variance + self.eps
            ratio = (variance + (mean - centre).square()) * (-log_spread).exp()
            return 0.5 * (log_spread - variance.log() + ratio - 1).mean()

    def _adapt(self, z: Tensor, h: Tensor) -> Tensor:
        shape = [-1, self.channels] + [1] * (z.ndim - 2)
        if self.source in ("statistics", "constant"):
            if self.source == "constant" and self.training:
                self._track(h)
            centre, log_spread = self._delivered(h)
            scale = self.weight * (-0.5 * log_spread).exp()
            return (z - centre.view(shape)) * scale.view(shape) + self.bias.view(shape[1:])
        rows = row_moments(h)
        style = self.style(h.flatten(1) if self.head == "flattened" else rows[0])
        own = next((one for one in (*self.norm.buffers(), *self.norm.parameters()) if one.is_floating_point()), z)
        normalized = self.norm(z.to(own.dtype))
        if self.source == "fusion":
            return normalized + style.view(shape)
        gamma, beta = style.chunk(2, 1)
        mean, variance = _of_scope(*rows, h[0, 0].numel(), self.scope, self.synchronized)
        mean, root = self.match(mean), self.match((variance + self.eps).sqrt())
        return torch.addcmul((gamma * mean + beta).view(shape), (gamma * root).view(shape), normalized)

    def _delivered(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and log of the squared spread, each (b or 1, channels)."""
        if self.source == "constant" and not self.training:
            mean, variance = at_least_float32(self.running_mean)[None], at_least_float32(self.running_var)[None]
        else:
            mean, variance = self._moments(h, self.scope)
        centre, log_spread = self.map(torch.cat([mean, (variance + self.eps).sqrt()], 1)).chunk(2, 1)
        return centre, log_spread

    @torch.no_grad()
    def _track(self, h: Tensor) -> None:
        mean, variance = (value.mean(0) for value in self._moments(h, self.scope))
        if self.synchronized and self.scope == "sample":
            from .synchronized import averaged

            mean, variance = averaged(len(h), mean, variance)
        self._averaged += 1
        momentum = 1 / self._averaged if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)

    def _moments(self, h: Tensor, scope: Scope) -> tuple[Tensor, Tensor]:
        return _of_scope(*row_moments(h), h[0, 0].numel(), scope, self.synchronized)

    def _check(self, z: Tensor, h: Tensor | None) -> None:
        if z.ndim < 2 or z.shape[1] != self.channels:
            raise ValueError(f"AdaptiveNorm got features {tuple(z.shape)}; expected (b, {self.channels}, ...)")
        if self.source == "plain":
            return
        if h is None:
            raise ValueError(f"AdaptiveNorm got no substitute's features; source {self.source} reads them: give h")
        exact = self.head == "flattened"
        got, expected = (tuple(h.shape[1:]), self.features) if exact else (h.shape[1], self.features[0])
        if len(h) != len(z) or got != expected:
            wanted = ", ".join(map(str, self.features)) if exact else f"{self.features[0]}, ..."
            raise ValueError(f"AdaptiveNorm got a substitute's features {tuple(h.shape)}; expected ({len(z)}, {wanted})")

    def extra_repr(self) -> str:
        own = "" if self.source != "features" or self.norm.weight is not None else ", affine=False"
        return f"{self.channels}, source={self.source!r}, scope={self.scope!r}, head={self.head!r}{own}"


def _of_scope(mean: Tensor, variance: Tensor, positions: int, scope: Scope, synchronized: bool) -> tuple[Tensor, Tensor]:
    """Mean and variance by scope, from those of each row's channels (b, c): (1, 1) for "batch", (1, c) "channel", (b, c) "sample".

    The variance of the batch is unbiased, as torch.std and the authors' code; the others are biased, as BatchNorm's.
    """
    if scope == "sample":
        return mean, variance
    whole, spread = pooled_moments(mean, variance, 0 if scope == "channel" else (0, 1))
    n = mean.numel() * positions
    if synchronized:
        from .synchronized import pooled

        whole, spread, n = pooled(n, whole, spread)
    return whole, spread * (n / max(n - 1, 1)) if scope == "batch" else spread
