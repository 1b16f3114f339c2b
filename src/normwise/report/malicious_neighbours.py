"""Clean images beside malicious ones: what the check of every network found, in sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..records import Result
from .cells import Cell
from .words import joined, plural, training, where

CHECK = "untouched rows beside malicious ones"
_COUNTED = re.compile(r"(\d+) of (\d+) (?:untouched rows fall|clean images are misclassified)")  # in older and newer records


class _Network(NamedTuple):
    """How many clean images of one network were misclassified."""

    name: str
    reads: str
    fell: int
    victims: int


def sentences(found: Sequence[Cell]) -> list[str]:
    """Networks where clean images changed their class, and where none did, by what the norms read."""
    networks = [one for cell in found for result in cell.results if (one := _counted(cell, result))]
    fallen, stood = ([one for one in networks if bool(one.fell) == fell] for fell in (True, False))
    lines, groups = [], dict[str, list[int]]()
    for one in stood:
        groups.setdefault(one.reads, []).append(one.victims)
    none = [f"of {sum(rows)} {reads} ({plural(len(rows), 'network')})" for reads, rows in groups.items()]
    if fallen:
        counts = joined(f"{one.name} ({one.fell} of {one.victims})" for one in fallen)
        lines.append(f"Beside malicious neighbours, unchanged images got another class: {counts}.")
    if none:
        start = "None did:" if fallen else "Beside malicious neighbours, no unchanged image got another class:"
        lines.append(f"{start} {joined(none)}.")
    return lines


def _counted(cell: Cell, result: Result) -> _Network | None:
    """Read the counts of the check; None where it was not asked, or could not measure."""
    e = result.evaluation
    measured = next((check.measured for check in e.checks if check.name == CHECK), "")
    counted = _COUNTED.match(measured)
    if not counted:
        return None
    name = where(f"{cell.norm} with {training(cell.recipe)}" if result.training else cell.norm, cell.setting)
    seed = f", seed {result.experiment.get('seed', e.seed)}" if len(cell.results) > 1 else ""
    kinds = {
        "running": "with running statistics",
        "batch": "with batch statistics",
        "sample": "with statistics of each image",
        "none": "without a norm",
    }
    reads = joined(kinds.get(what, f"with {what} statistics") for what in e.norm_reads or ("none",))
    return _Network(f"{name}{seed}", reads, int(counted[1]), int(counted[2]))
