"""What every attack promises, kept in one place: the model is left as it was, and the cost is counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from ..modes import untouched
from ..types import Images, Labels, Proposal, Region, ThreatModel
from .oracle import Oracle


@dataclass(frozen=True, kw_only=True)
class BaseAttack(ABC):
    """An attack is a search inside a region; `search` is all that a new one has to write.

    Calling it runs the search in the mode the model is in (see `modes.running`), on copies of the model's buffers and
    with noise inside the model drawn from `generator`: parameters, buffers, `.grad`, modes and the global random state
    are as before.
    """

    name: ClassVar[str]
    black_box: ClassVar[bool] = False  # it never asks for a gradient

    @property
    def label(self) -> str:
        """How the attack is called in tables."""
        return self.name

    def __call__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: Generator,
        independent: bool = False,
    ) -> Proposal:
        """Search for images in `threat.around(x)` that the model misclassifies.

        `independent=True` (measured by `coupling`) lets each row go as soon as it has fallen and keeps each row's best
        image; otherwise batches are kept whole. An empty batch gives an empty proposal.
        """
        oracle = Oracle(model)
        with torch.inference_mode(False), untouched(model, generator):
            x, y = (tensor.clone() if tensor.is_inference() else tensor for tensor in (x, y))
            region = threat.around(x, generator=generator)
            x_adv, first_hit = (x, y.new_empty(0)) if len(x) == 0 else self.search(oracle, region, x, y, independent)
        return Proposal(x_adv.detach(), first_hit, oracle.forwards, oracle.backwards)

    @abstractmethod
    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels, independent: bool) -> tuple[Images, Tensor]:
        """Return images inside the region and, per row, the step at which the row was first seen to fall (-1: never)."""


def only(attack: str, kinds: tuple[str, ...], region: Region) -> None:
    """Refuse a region whose geometry the attack is not defined for. Raises ValueError."""
    if region.kind not in kinds:
        raise ValueError(f"{attack} needs {' or '.join(kinds)}; got {region.kind}")


def at_least(attack: str, least: int, **options: int) -> None:
    """Refuse counts below `least`. Raises ValueError."""
    for option, value in options.items():
        if value < least:
            raise ValueError(f"{option} of {attack} is a count; got {value!r}; give a whole number >= {least}")


def positive(attack: str, **options: float) -> None:
    """Refuse lengths that are not above 0 and finite. Raises ValueError."""
    for option, value in options.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{option} of {attack} is a step length; got {value}; give a finite number > 0")
