"""What layers share that read the height and width of each channel of a sample."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from .free import ChannelAffine
from .layout import channels_second


class PositionNorm(ChannelAffine, ABC):
    """A layer for x of shape (b, c, h, w) or (b, c, t, h, w), or with `axis` -1 channels last, that reads each sample's positions.

    Raises ValueError for x without height and width, such as tokens (b, n, c).
    """

    called: ClassVar[str]

    def __init__(self, channels: int, *, eps: float, axis: int = 1) -> None:
        super().__init__(channels, axis=axis)
        self.eps = eps

    @channels_second
    def forward(self, input: Tensor) -> Tensor:
        if input.ndim < 4:
            shape = tuple(input.shape if self.axis == 1 else input.movedim(1, -1).shape)
            raise ValueError(
                f"{self.called} reads height and width, (b, c, h, w) or (b, c, t, h, w); got {shape}; "
                "use layernorm2d, rmsnorm or dyt there"
            )
        return self.normalized(input).to(input.dtype)

    @abstractmethod
    def normalized(self, x: Tensor) -> Tensor:
        """The layer's answer to x (b, c, ..., h, w), in any precision."""

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, axis={self.axis}"
