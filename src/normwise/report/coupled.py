"""What a report says of coupled networks, whose answer to an image depends on the other images of its batch."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import Cell
from .words import percent, plural

_WHY = "Images are coupled there (◆): an answer depends on the rest of its batch, so such figures are about batches."


def exceptions(gains: Sequence[tuple[str, Cell, Cell | None]]) -> list[tuple[str, str]]:
    """Coupled networks that keep more than what they are compared with, named beside the answer; `gains` are (training, network, its reference)."""
    lines = [
        f"{cell.norm} with {name} keeps {cell.worst} in the worst case, {reference.reference} {reference.worst}."
        for name, cell, reference in gains
        if cell.coupled and reference
    ]
    return [("Exception" if len(lines) == 1 else "Exceptions", " ".join([*lines, _WHY]))] if lines else []


def sentences(found: Sequence[Cell]) -> list[tuple[str, list[str]]]:
    """How much of the accuracy under attack belongs to coupled networks, and what is left of it one image at a time."""
    coupled, total = [cell for cell in found if cell.coupled], sum(cell.worst.value for cell in found)
    if not coupled:
        return [("Coupled images", ["None: no answer changed when only the other images of the batch did."])]
    lines = ["Measured: the answer to an image changed when only the other images of its batch did."]
    if len(found) > 1:
        lines = [
            f"{len(coupled)} of {plural(len(found), 'network')}: the answer to an image changed when only the other images of its batch did."
        ]
    if total and len(coupled) < len(found):
        share = 100 * sum(cell.worst.value for cell in coupled) / total
        lines.append(
            f"They are {100 * len(coupled) / len(found):.0f}% of the networks and have {share:.0f}% of the apparent robustness "
            "(worst-case accuracy, added up)."
        )
    alone = [
        r.evaluation.alone_accuracy for cell in coupled for r in cell.results if r.evaluation.alone_accuracy is not None
    ]
    if alone:
        spread = percent(min(alone)) if len(alone) == 1 else f"{percent(min(alone))} to {percent(max(alone))}"
        lines.append(f"Their worst-case images, given one by one, are classified correctly in {spread} of cases.")
    return [("Coupled images", lines)]


def of_batches(cell: Cell) -> str:
    """Say of a coupled network what its worst case is about; nothing of another."""
    if not cell.coupled:
        return ""
    size, joint, single = cell.results[0].evaluation.batch_size, cell.joint, cell.single
    if single and single.value < joint.value:
        text = f"one image attacked among the clean neighbours of its batch of {size}; whole batches {percent(joint.value)}"
    else:
        alone = f"; one image among clean neighbours {percent(single.value)}" if single else ""
        text = f"for whole batches of {size}{alone}"
    return f" (coupled images: {text})"
