"""What every attack promises, kept in one place: the model is left as it was, and the cost is counted."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from .. import losses
from ..types import WHOLE, Goal, Images, Labels, Proposal, Region, Search, ThreatModel
from ..utils.batches import range_problem
from ..utils.model_state import untouched
from .oracle import Oracle

COUNTS = (
    "steps",
    "restarts",
    "targets",
    "draws",
    "repeats",
    "binary_steps",
)  # options that lengthen a search, each by its factor

GENERAL = "pgd", "apgd"  # attacks for every geometry


@dataclass(frozen=True, kw_only=True)
class BaseAttack(ABC):
    """An attack is a search inside a region; `search` is all that a new one has to write.

    Calling it runs the search in the mode the model is in (see `utils.model_state.running`), on copies of the model's
    buffers and with noise inside the model drawn from `generator`: parameters, buffers, `.grad`, modes and the global random
    state are as before.
    """

    name: ClassVar[str]
    black_box: ClassVar[bool] = False  # it never asks for a gradient
    kinds: ClassVar[tuple[str, ...]] = ()  # the only geometries it is defined for; empty: all
    goals: ClassVar[tuple[Goal, ...]] = ("misclassified", "targeted")
    registered: ClassVar[Mapping[str, type]] = {}  # the attacks that have a name to ask for: `ATTACKS`

    @property
    def label(self) -> str:
        """How the attack is called in tables."""
        return self.name

    @property
    def classes(self) -> int:
        """The classes that its loss needs; where there are fewer, it raises a difference of two logits instead."""
        return losses.CLASSES.get(getattr(self, "loss", ""), 2)

    @property
    def parts(self) -> tuple[BaseAttack, ...]:
        """The attacks that it runs one after the other: itself, if it is not made of others."""
        return (self,)

    @property
    def passes(self) -> int:
        """About how many passes of a row through the network a search takes that finds nothing; a gradient is three."""
        if self.parts != (self,):
            return sum(part.passes for part in self.parts)
        return (1 if self.black_box else 3) * math.prod(max(1, getattr(self, name, 1)) for name in COUNTS)

    def parts_in(self, kind: str) -> tuple[BaseAttack, ...]:
        """The parts, in order, with what suits a region of this kind."""
        return self.parts

    def __call__(
        self,
        model: nn.Module,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: Generator,
        search: Search = WHOLE,
    ) -> Proposal:
        """Search for images in `threat.around(x)` that the model misclassifies, or with the goal "targeted" classifies as y.

        x are images (b, c, ...) with pixels in [0, 1], y labels or classes to reach (b,); see `Search` for what it may count
        on. An empty batch gives an empty proposal. Raises ValueError for a threat model or a goal that the attack is not
        defined for, for pixels outside [0, 1], and for images in half precision.
        """
        if x.dtype.itemsize < 4:
            raise ValueError(
                f"images of dtype {x.dtype} cannot hold eps exactly; give x.float(), and a model that takes it (torch.autocast inside)"
            )
        if len(x) and (problem := range_problem(x)):
            raise ValueError(f"cannot attack: {problem}")
        with self._facing(model, x, y, threat, generator, search) as (oracle, region, x, y):
            found = (x, y.new_empty(0)) if len(x) == 0 else self.search(oracle, region, x, y)
        return Proposal(found[0].detach(), found[1], oracle.forwards, oracle.backwards, *found[2:])

    @contextmanager
    def _facing(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        generator: Generator,
        search: Search,
    ) -> Iterator[tuple[Oracle, Region, Tensor, Tensor]]:
        """Let the attack ask the model about x; afterwards the model is as it was."""
        with torch.inference_mode(False), untouched(model, generator):
            x, y = (tensor.clone() if tensor.is_inference() else tensor for tensor in (x, y))
            region = threat.around(x, generator=generator)
            self.check(region, search.goal)
            yield Oracle(model, search), region, x, y

    def check(self, region: Region, goal: Goal = "misclassified") -> None:
        """Refuse a region whose geometry, or a goal that the attack is not defined for. Raises ValueError."""
        for part in (self, *self.parts_in(region.kind)):
            if goal not in part.goals:
                raise ValueError(
                    f"{part.name} looks for any misclassified image; for the goal {goal} take another, such as apgd, pgd or square"
                )
            if part.kinds and region.kind not in part.kinds:
                others = [name for name, one in self.registered.items() if region.kind in getattr(one, "kinds", ())]
                raise ValueError(
                    f"{part.name} needs {either(part.kinds)}; got {region.kind}; for {region.kind} take {either(others or GENERAL)}"
                )

    @abstractmethod
    def search(self, oracle: Oracle, region: Region, x: Images, y: Labels) -> tuple[Tensor, ...]:
        """Return images inside the region and, per row, the step at which the goal was first seen to be reached (-1: never).

        What the search may count on is in `oracle.how`; `oracle.margin`, `oracle.reached` and `oracle.loss` know the goal.

        An attack with parts also returns, per row, which of them found the image.
        """


def either(names: Sequence[str]) -> str:
    """Names as a choice.

    >>> either(["linf", "l2", "l1"])
    'linf, l2 or l1'
    """
    *most, last = names
    return f"{', '.join(most)}{' or ' if most else ''}{last}"


def restarted(region: Region, restart: int) -> Region:
    """The region of one restart: one with places, such as a patch's, is drawn anew for each but the first."""
    return region.elsewhere() if restart and hasattr(region, "elsewhere") else region


def at_least(attack: str, least: int, **options: int) -> None:
    """Refuse counts below `least`. Raises ValueError."""
    for option, value in options.items():
        if value < least:
            raise ValueError(f"{option} of {attack} is a count; got {value!r}; give a whole number >= {least}")


def check_draws(attack: str, draws: int, over: str) -> None:
    """Refuse means that cannot be taken. Raises ValueError."""
    at_least(attack, 1, draws=draws)
    if over == "peers" and draws == 1:
        raise ValueError(f"over='peers' of {attack} takes means over draws of neighbours; got draws=1; give draws >= 2")


def positive(attack: str, **options: float) -> None:
    """Refuse lengths that are not above 0 and finite. Raises ValueError."""
    for option, value in options.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{option} of {attack} is a step length; got {value}; give a finite number > 0")
