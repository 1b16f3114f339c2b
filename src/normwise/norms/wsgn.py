"""GroupNorm with standardized weights in the convolutions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ..types import Norm
from ..utils.model_state import frozen
from .sample import GN

EPS = 1e-10  # added to a filter's variance, as in BiT


class _Standardized:
    weight: Tensor
    bias: Tensor | None
    _conv_forward: Any

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = self._conv_forward(input, standardized(self.weight), self.bias)
        return y


class StandardizedConv1d(_Standardized, nn.Conv1d):
    """nn.Conv1d whose filters have mean 0 and variance 1. Source: as `WSGN`."""


class StandardizedConv2d(_Standardized, nn.Conv2d):
    """nn.Conv2d whose filters have mean 0 and variance 1. Source: as `WSGN`."""


class StandardizedConv3d(_Standardized, nn.Conv3d):
    """nn.Conv3d whose filters have mean 0 and variance 1. Source: as `WSGN`."""


STANDARDIZED: dict[type[nn.Module], type[nn.Module]] = {  # exact types: a subclass may compute something else
    nn.Conv1d: StandardizedConv1d,
    nn.Conv2d: StandardizedConv2d,
    nn.Conv3d: StandardizedConv3d,
}


def complete(model: nn.Module, norm: Norm) -> None:
    """Let a norm change, in place, what else belongs to it in a network: `wsgn` standardizes the convolutions, `multibn` adds its detector."""
    if finish := getattr(norm, "finish", None):
        finish(model)


def standardized(weight: Tensor) -> Tensor:
    """A convolution's weight (out, in, ...) with mean 0 and biased variance 1 of each output's filter; constant ones become 0."""
    flat = weight.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred * (centred.square().mean(1, keepdim=True) + EPS).rsqrt()).view_as(weight)


@dataclass(frozen=True, kw_only=True)
class WSGN(GN):
    """GroupNorm, and weight standardization of every convolution of the network (but for a frozen substitute's).

    Keys stay as they are; a convolution of another class than torch's own stays too.

    Options: those of `gn`.

    Source: Qiao et al. 2019, arXiv:1903.10520; with GroupNorm in BiT: Kolesnikov et al. 2020, arXiv:1912.11370, sec. 2.1.
    """

    name: ClassVar[str] = "wsgn"
    label: ClassVar[str] = "GroupNorm, standardized weights"
    retrain: ClassVar[bool] = True

    def finish(self, model: nn.Module) -> None:
        """Standardize the convolutions of a network, in place."""
        for layer in set(model.modules()) - set(frozen(model)):
            layer.__class__ = STANDARDIZED.get(type(layer), type(layer))
