"""The model's first layer: pixels in [0, 1] become zero-mean, unit-variance channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """(x - mean) / std per channel, for x of shape (b, c, ...) with pixels in [0, 1].

    Mean and std are numbers, one per channel; one number alone is for all channels. They are kept with the weights; a
    weights file without them leaves them as constructed. Raises ValueError for a std that is not above 0, or lists of
    different length.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float) -> None:
        super().__init__()
        mean, std = ([one] if isinstance(one, int | float) else list(one) for one in (mean, std))
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ValueError(f"Standardize needs one mean and one std > 0 per channel; got {mean} and {std}")
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        shape = [1, -1] + [1] * (x.ndim - 2)
        return (x - self.mean.view(shape)) / self.std.view(shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(prefix + "mean", self.mean)
        state_dict.setdefault(prefix + "std", self.std)
        super()._load_from_state_dict(state_dict, prefix, *args)
