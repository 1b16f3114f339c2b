"""Recipes that train part of a network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from ...norms.surgery.trainable import Trains, check_part, frozen_statistics, only
from ...registry import check_words
from ...types import Images
from ...utils.forward import logits_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which parameters train; recipes inherit it.

    Options
        trains      what is trained: "all"; of the norms "affine", "scale" or "shift"; "head" (the last linear layer);
                    "affine+head"; "subset" (as many random weights as the norms have parameters)
        first       train only the first so many norms; 0 with last 0: all norms. Not with "all" or "head"
        last        train only the last so many norms
        statistics  of the norms in training: "batch" (use and track batch statistics) or "frozen" (use running statistics)
    """

    trains: Trains = "all"
    first: int = 0
    last: int = 0
    statistics: Literal["batch", "frozen"] = "batch"

    def __post_init__(self) -> None:
        check_words(self)
        check_part(self.trains, self.first, self.last)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return a copy of the model in which only what is named may train."""
        return only(model, self.trains, first=self.first, last=self.last)

    def answer(self, model: nn.Module, x: Images) -> Tensor:
        """The logits of a training forward."""
        with frozen_statistics(model) if self.statistics == "frozen" else nullcontext():
            return logits_of(model, x)
