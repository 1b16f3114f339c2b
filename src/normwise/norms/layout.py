"""Where channels are in what a layer reads: the second axis, or the last one of tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """One value per channel (c,) as it meets x, whose channels are along this axis."""
    return values if axis == -1 else values.view([1, -1] + [1] * (x.ndim - 2))


def channels_second(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Let a layer's `forward`, written for x of shape (b, c, ...), read channels along the layer's own `axis`, 1 or -1.

    What it answers is contiguous: a linear layer multiplies strided tokens row by row, which takes twice the time.
    """

    @wraps(forward)
    def moved(self: Any, input: Tensor) -> Tensor:
        if self.axis == 1:
            return forward(self, input)
        return forward(self, input.movedim(-1, 1)).movedim(1, -1).contiguous()

    return moved


def positions_as_rows(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """As `channels_second`, of a layer that takes rows and positions alike: with channels last each position becomes a row."""

    @wraps(forward)
    def flattened(self: Any, input: Tensor) -> Tensor:
        if self.axis == 1:
            return forward(self, input)
        return forward(self, input.flatten(0, -2)).view(input.shape)

    return flattened
