"""Recipes that train part of a network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ...norms.surgery.trainable import Trains, check_part, frozen_statistics, only
from ...types import Images
from ...utils.forward import logits_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """What of the network trains, for recipes to inherit.

    Options
        trains      "all"; of the norms "affine", "scale" or "shift"; "head" (the last linear layer); "affine+head"; "subset"
                    (as many random weights as the norms have parameters)
        first       of the norms, so many from the input side; 0 with last 0: all. Not with "all" or "head"
        last        of the norms, so many from the output side
        statistics  of the norms in training: "batch" (read the batch and track it) or "frozen" (read the running ones)
    """

    trains: Trains = "all"
    first: int = 0
    last: int = 0
    statistics: Literal["batch", "frozen"] = "batch"

    def __post_init__(self) -> None:
        check_part(self.trains, self.first, self.last)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return a copy of the model in which only what is named may train."""
        return only(model, self.trains, first=self.first, last=self.last)

    def answer(self, model: nn.Module, x: Images) -> Tensor:
        """The logits of a training forward."""
        with frozen_statistics(model) if self.statistics == "frozen" else nullcontext():
            return logits_of(model, x)
