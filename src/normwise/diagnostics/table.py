"""What every diagnosis promises: the network is left as it was, and the result is a table."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Generator, nn

from ..types import Batch, ThreatModel
from ..utils.model_state import device_of, running, untouched
from .taps import unread

NOWHERE = "the network normalizes nowhere"  # what a diagnosis of norms says then


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures with their units, as plain data.

    `units` says of each column what its numbers count; words have "". A figure that does not exist, or is not finite, is
    None. `note` says why rows, or some of them, are missing.
    """

    columns: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Diagnosis(ABC):
    """A diagnosis looks at a network and returns a table; `measure` is all that a new one has to write.

    The network is looked at in evaluation mode, on copies of its buffers and with noise inside it drawn from the generator:
    parameters, buffers, `.grad`, modes, hooks and the global random state are as before.
    """

    name: ClassVar[str]
    columns: ClassVar[Mapping[str, str]]  # each column's unit, "" for words
    of_norms: ClassVar[bool] = False  # whether it looks into norm layers
    nothing: ClassVar[str] = ""  # why there may be no rows

    def __call__(self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, *, generator: Generator) -> Table:
        """Look at a network on batches of images. Raises ValueError for no batches, and where there is nothing to measure."""
        if not batches:
            raise ValueError(f"{self.name} needs images; got no batch; give at least one")
        device = device_of(model)
        there = [Batch(batch.x.to(device), batch.y.to(device), batch.ids) for batch in batches]
        with torch.inference_mode(False), running(model, "eval"), untouched(model, generator):
            rows = tuple(tuple(map(_figure, row)) for row in self.measure(model, there, threat, generator))
            note = unread(model, there[0].x) if self.of_norms else ""
        return self.table(rows, note or ("" if rows else self.nothing))

    def table(self, rows: tuple[tuple[Any, ...], ...], note: str) -> Table:
        """Put rows under this diagnosis's columns."""
        return Table(columns=tuple(self.columns), units=tuple(self.columns.values()), rows=rows, note=note)

    @abstractmethod
    def measure(
        self, model: nn.Module, batches: Sequence[Batch], threat: ThreatModel, rng: Generator
    ) -> Iterable[tuple[Any, ...]]:
        """Return the rows of the table, a value for each of `columns`."""


def _figure(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def share(part: int, whole: int) -> float | None:
    """A share, or None of nothing."""
    return part / whole if whole else None
