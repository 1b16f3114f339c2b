"""Patterns for all images are made before any test row is attacked, from the training rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from ..attacks import ATTACKS, Universal
from ..records import write
from ..registry import plain
from ..seeding import generator
from ..types import Attack, Batch, Data, Report, silent
from ..utils.model_state import running

PATTERNS = "patterns.json"


@dataclasses.dataclass
class _Epochs:
    """The training rows again and again, in another order each time."""

    data: Data
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        self.generator = generator(self.seed, "universal", "rows")

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.data.train(batch_size=self.batch_size, generator=self.generator))


def with_patterns(e: Any, model: nn.Module, report: Report = silent, folder: Path | None = None) -> Any:
    """The settings, with a pattern for each universal attack that has none, made for this network from the training rows of `e.data`.

    With `folder` they are kept there, and read again by a run that resumes. Raises ValueError as `Universal.fit` does, and
    for data without training rows.
    """
    wanted = [one for one in (*e.attacks, *e.strongest) if isinstance(one, Universal) and not one.pattern]
    if not wanted:
        return e
    kept = folder and folder / PATTERNS
    if kept and kept.exists():
        found = [ATTACKS.make(one) for one in json.loads(kept.read_text())]
    else:
        found = [_made(one, e, model, report) for one in wanted]
        if kept:
            write(kept, json.dumps(plain(found)))
    made: dict[Attack, Attack] = dict(zip(wanted, found, strict=True))
    return dataclasses.replace(
        e,
        attacks=tuple(made.get(one, one) for one in e.attacks),
        strongest=tuple(made.get(one, one) for one in e.strongest),
    )


def _made(attack: Universal, e: Any, model: nn.Module, report: Report) -> Universal:
    report("a pattern from training rows", 0, 1)
    rows, rng = _Epochs(e.data, e.batch_size, e.seed), generator(e.seed, "universal")
    with running(model, "eval"):
        return attack.fit(model, rows, e.threat, generator=rng, called=f"draws of training rows of {e.data.name}")
